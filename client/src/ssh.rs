//! How is a broker on another host reached? `ssh HOST flux relay PATH`, with a socket pair as its standard streams.
//!
//! `FLUX_SSH` names another remote shell, `FLUX_SSH_RCMD` the `flux` command of the other host.

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::Error;
use crate::connector::pause;

/// Environment variable that names the remote shell.
const SSH: &str = "FLUX_SSH";
/// Environment variable that names the `flux` command of the other host.
const REMOTE_COMMAND: &str = "FLUX_SSH_RCMD";
/// Longest wait for the remote shell to end by itself.
const END_WAIT: Duration = Duration::from_secs(1);
/// Most bytes of the remote shell's words that are kept for an error.
const WORDS_MAX: usize = 4096;

/// The parts of `ssh://[USER@]HOST[:PORT]/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target<'u> {
    /// `[USER@]HOST`
    host: &'u str,
    port: Option<u16>,
    /// The socket, beginning with a slash.
    path: &'u str,
}

impl<'u> Target<'u> {
    /// Takes a URI apart.
    ///
    /// # Errors
    /// [`Error::Uri`].
    pub(crate) fn parse(uri: &'u str) -> Result<Self, Error> {
        let bad = |reason| Error::Uri {
            uri: uri.to_owned(),
            reason,
        };
        let rest = uri
            .strip_prefix("ssh://")
            .ok_or_else(|| bad("it does not begin with ssh://"))?;
        let slash = rest.find('/').ok_or_else(|| bad("it has no path"))?;
        let (authority, path) = rest.split_at(slash);
        if path.contains(['?', '#']) {
            return Err(bad("an ssh URI has neither query nor fragment"));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => match port.parse() {
                Ok(port) => (host, Some(port)),
                Err(_) => return Err(bad("its port is no number")),
            },
            None => (authority, None),
        };
        // a host that looks like an option would be one to ssh
        if host.is_empty() || host.starts_with('-') || host.ends_with('@') {
            return Err(bad("it has no valid host"));
        }
        Ok(Target { host, port, path })
    }

    /// Returns the words after the remote shell's name.
    fn words(&self, remote_command: Option<OsString>, library_path: Option<OsString>) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        if let Some(port) = self.port {
            words.extend(["-p".into(), port.to_string().into()]);
        }
        words.push(self.host.into());
        if remote_command.is_none() || library_path.is_some() {
            words.push("env".into());
        }
        if remote_command.is_none() {
            words.push(self.search_path());
        }
        if let Some(path) = library_path {
            let mut word = OsString::from("LD_LIBRARY_PATH=");
            word.push(path);
            words.push(word);
        }
        words.push(remote_command.unwrap_or_else(|| "flux".into()));
        words.extend(["relay".into(), self.path.into()]);
        words
    }

    /// Returns where the other host looks for `flux`: in the instance's directory, then where this host has it.
    fn search_path(&self) -> OsString {
        let rundir = Path::new(self.path).parent().unwrap_or(Path::new("/"));
        let mut word = OsString::from("PATH=");
        word.push(rundir.join("bin"));
        if let Some(dir) = own_flux() {
            word.push(":");
            word.push(dir);
        }
        word.push(":/bin:/usr/bin");
        word
    }
}

/// Returns the socket of a URI that names this very host and a socket that is here: no remote shell is needed then.
///
/// With `FLUX_SSH` set the remote shell is used all the same.
pub(crate) fn local_socket(uri: &str) -> Option<PathBuf> {
    let target = Target::parse(uri).ok()?;
    let own = nix::unistd::gethostname().ok()?;
    let here = target.port.is_none() && *target.host == *own && std::env::var_os(SSH).is_none();
    Some(PathBuf::from(target.path)).filter(|path| here && path.exists())
}

/// Returns the directory of the `flux` command in this process's search path.
fn own_flux() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find(|dir| dir.join("flux").is_file())
}

/// A running remote shell; it ends with the connection.
#[derive(Debug)]
pub(crate) struct Tunnel {
    child: Child,
}

impl Drop for Tunnel {
    /// Waits for the remote shell, whose input has been closed, and ends it when it does not go.
    fn drop(&mut self) {
        let deadline = Instant::now() + END_WAIT;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // it may end at this moment
                drop(self.child.kill());
                drop(self.child.wait());
                return;
            }
            pause(Duration::from_millis(5));
        }
    }
}

/// Starts the remote shell and waits until the relay at its other end is connected.
///
/// # Errors
/// [`Error::Uri`], and [`Error::Tunnel`] with what the remote shell said.
pub(crate) fn connect(uri: &str) -> Result<(UnixStream, Tunnel), Error> {
    let target = Target::parse(uri)?;
    let shell = std::env::var_os(SSH)
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "ssh".into());
    let failed = |text: String| Error::Tunnel {
        uri: uri.to_owned(),
        text,
    };
    let io = |err: std::io::Error| failed(err.to_string());
    let (ours, theirs) = UnixStream::pair().map_err(io)?;
    let theirs = OwnedFd::from(theirs);
    let input = theirs.try_clone().map_err(io)?;
    let mut child = Command::new(&shell)
        .args(target.words(
            std::env::var_os(REMOTE_COMMAND),
            std::env::var_os("LD_LIBRARY_PATH"),
        ))
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(theirs))
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|err| {
            let shell = shell.display();
            failed(format!("{shell}: {err}; set {SSH} to name another remote shell"))
        })?;
    let words = child.stderr.take();
    let tunnel = Tunnel { child };
    let mut answer = [0u8; 1];
    let mut stream = ours;
    match stream.read(&mut answer) {
        Ok(1) if answer == [0] => Ok((stream, tunnel)),
        Ok(1) => Err(failed(said(words).unwrap_or_else(|| {
            "the other host wrote something before the connection was up; its shell's start-up files must be \
             silent when not interactive"
                .to_owned()
        }))),
        _ => {
            Err(failed(said(words).unwrap_or_else(|| {
                "the remote shell ended without a word".to_owned()
            })))
        }
    }
}

/// Returns what the remote shell has written to standard error.
fn said(words: Option<ChildStderr>) -> Option<String> {
    let mut words = words?;
    let deadline = Instant::now() + END_WAIT;
    let mut bytes = Vec::new();
    let mut buffer = [0u8; 512];
    while bytes.len() < WORDS_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(words.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) if ready > 0 => {}
            _ => break,
        }
        match words.read(&mut buffer) {
            Ok(count) if count > 0 => bytes.extend_from_slice(buffer.get(..count).unwrap_or(&[])),
            _ => break,
        }
    }
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let target = Target::parse("ssh://me@host:22/run/flux/local-0").unwrap();
        assert_eq!(
            target,
            Target {
                host: "me@host",
                port: Some(22),
                path: "/run/flux/local-0"
            }
        );
        let words = target.words(Some("/opt/flux".into()), None);
        assert_eq!(
            words,
            ["-p", "22", "me@host", "/opt/flux", "relay", "/run/flux/local-0"]
        );
        let words = Target::parse("ssh://h/d/local")
            .unwrap()
            .words(None, Some("/l".into()));
        assert_eq!(words[..2], ["h", "env"]);
        assert!(words[2].to_str().unwrap().starts_with("PATH=/d/bin:"));
        assert_eq!(words[3..], ["LD_LIBRARY_PATH=/l", "flux", "relay", "/d/local"]);
        for bad in [
            "ssh://",
            "ssh:///p",
            "ssh://h",
            "ssh://h:x/p",
            "ssh://-oProxyCommand=x/p",
            "ssh://u@/p",
            "ssh://h/p?q",
            "local:///p",
        ] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
