//! What does a running command have at hand? Its name, the broker, the environment for what it starts.

use std::ffi::OsString;
use std::io::{self, BufWriter, Stdout, Write};

use flux_client::Handle;

use super::error::CmdError;

/// How a command words its errors: the original's C programs and its Python programs differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// `flux-kvs: foo: No such file or directory`
    Plain,
    /// `flux-queue: ERROR: drain: timeout`
    Tagged,
}

/// The state of one run of a command.
#[derive(Debug)]
pub(crate) struct Ctx {
    /// Name before messages, such as `flux-kvs`.
    pub(crate) name: String,
    /// How errors are worded.
    pub(crate) style: Style,
    /// Environment of started programs and of submitted jobs: this process's with Flux's own variables.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// Words of the command line after the sub-command's name.
    pub(crate) words: Vec<OsString>,
    /// URI chosen by `-p` or `-r`; `None` leaves it to `FLUX_URI`.
    pub(crate) uri: Option<String>,
}

impl Ctx {
    /// Connects to the broker.
    ///
    /// # Errors
    /// [`CmdError::Open`].
    pub(crate) fn open(&self) -> Result<Handle, CmdError> {
        Handle::open(self.uri.as_deref()).map_err(CmdError::Open)
    }

    /// Prints a message on standard error after the command's name.
    pub(crate) fn warn(&self, text: impl AsRef<str>) {
        // Nobody is left to tell when standard error cannot be written.
        let _gone = writeln!(io::stderr(), "{}: {}", self.name, text.as_ref());
    }

    /// Prints an error as the command words them.
    pub(crate) fn report(&self, text: &str) {
        match self.style {
            Style::Plain => self.warn(text),
            Style::Tagged => self.warn(format!("ERROR: {text}")),
        }
    }

    /// Returns a variable of the prepared environment as text.
    pub(crate) fn env_str(&self, name: &str) -> Option<&str> {
        self.env
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .and_then(|(_, value)| value.to_str())
    }
}

/// Returns buffered standard output; the caller flushes it.
pub(crate) fn stdout() -> BufWriter<Stdout> {
    BufWriter::with_capacity(64 * 1024, io::stdout())
}

/// Writes one line to standard error.
pub(crate) fn eprint(text: impl AsRef<str>) {
    let _gone = writeln!(io::stderr(), "{}", text.as_ref());
}
