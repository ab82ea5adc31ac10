//! What went wrong in a command, in the words that are printed after `flux-NAME: `?

use std::io;

/// Result of a command: its exit code.
pub(crate) type CmdResult = Result<u8, CmdError>;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CmdError {
    /// A complete sentence for the user.
    #[error("{0}")]
    Text(String),
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The message has been printed; only the exit code is left.
    #[error("exit {0}")]
    Silent(u8),
    /// A message and an exit code other than 1.
    #[error("{text}")]
    Exit {
        /// What to print.
        text: String,
        /// Exit code.
        code: u8,
    },
    /// The connection could not be opened.
    #[error("unable to connect to Flux: {}", chain(.0))]
    Open(#[source] flux_client::Error),
    /// An RPC or the connection failed.
    #[error("{}", chain(.0))]
    Client(#[from] flux_client::Error),
    /// An RPC failed while doing something that has a name.
    #[error("{what}: {}", chain(source))]
    Doing {
        /// What was being done, or with which object.
        what: String,
        /// Why it failed.
        #[source]
        source: flux_client::Error,
    },
    /// Reading or writing a file failed.
    #[error("{what}: {}", chain(source))]
    File {
        /// The file, or what was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Writing to standard output failed.
    #[error("error writing output: {0}")]
    Output(#[from] io::Error),
    /// JSON could not be read or written.
    #[error("{what}: {source}")]
    Json {
        /// Where the JSON comes from.
        what: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// Returns an error with a complete message.
pub(crate) fn fail<T>(text: impl Into<String>) -> Result<T, CmdError> {
    Err(CmdError::Text(text.into()))
}

/// Returns a usage error.
pub(crate) fn usage<T>(text: impl Into<String>) -> Result<T, CmdError> {
    Err(CmdError::Usage(text.into()))
}

/// Joins an error and its sources with colons.
pub(crate) fn chain(err: &dyn std::error::Error) -> String {
    let mut text = plain(err);
    let mut source = err.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&plain(inner));
        source = inner.source();
    }
    text
}

/// Drops the " (os error N)" that the standard library adds to the C library's words.
fn plain(err: &dyn std::error::Error) -> String {
    let text = err.to_string();
    match text.split_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

impl CmdError {
    /// Wraps a file error with the file's name.
    pub(crate) fn file(what: impl Into<String>) -> impl FnOnce(io::Error) -> CmdError {
        let what = what.into();
        move |source| CmdError::File { what, source }
    }

    /// Wraps a JSON error with where the JSON comes from.
    pub(crate) fn json(what: impl Into<String>) -> impl FnOnce(serde_json::Error) -> CmdError {
        let what = what.into();
        move |source| CmdError::Json { what, source }
    }

    /// Wraps a client error with what was being done.
    pub(crate) fn doing(what: impl Into<String>) -> impl FnOnce(flux_client::Error) -> CmdError {
        let what = what.into();
        move |source| CmdError::Doing { what, source }
    }

    /// Returns the exit code that goes with the error.
    pub(crate) fn code(&self) -> u8 {
        match self {
            CmdError::Silent(code) | CmdError::Exit { code, .. } => *code,
            CmdError::Usage(_) => 2,
            _ => 1,
        }
    }

    /// Returns true when nothing may be printed: it has been, or the reader of our output has gone.
    pub(crate) fn is_silent(&self) -> bool {
        match self {
            CmdError::Silent(_) => true,
            CmdError::Output(err) => err.kind() == io::ErrorKind::BrokenPipe,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_thing() {
        let err = CmdError::file("conf.toml")(io::Error::from_raw_os_error(2));
        assert_eq!(
            (err.to_string().as_str(), err.code()),
            ("conf.toml: No such file or directory", 1)
        );
        let lost = flux_client::Error::SocketNotFound("/run/x".into());
        assert_eq!(
            CmdError::Open(lost).to_string(),
            "unable to connect to Flux: broker socket /run/x was not found"
        );
        assert_eq!(CmdError::Usage("x".into()).code(), 2);
        assert!(CmdError::Output(io::ErrorKind::BrokenPipe.into()).is_silent());
    }
}
