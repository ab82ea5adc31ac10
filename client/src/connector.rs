//! How is the socket opened? `local://` only: connect with retries, then one byte from the broker says yes.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use flux_formats::errno::{self, Errnum};
use nix::poll::PollTimeout;

use crate::Error;

/// First pause between two attempts to connect; it doubles each time.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(16);
/// Longest pause between two attempts to connect.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(2);
/// Environment variable that overrides the number of retries.
const RETRY_COUNT_ENV: &str = "FLUX_LOCAL_CONNECTOR_RETRY_COUNT";

/// How hard to try to connect, and as whom the messages are sent.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Attempts after the first one; `FLUX_LOCAL_CONNECTOR_RETRY_COUNT`, else 5.
    pub retries: u32,
    /// How long to wait for the broker's yes or no once connected; `None` is forever.
    pub patience: Option<Duration>,
    /// User id put on every message sent (`FLUX_HANDLE_USERID`); only an owner's connection may.
    pub userid: Option<u32>,
    /// Role mask put on every message sent (`FLUX_HANDLE_ROLEMASK`); only an owner's connection may.
    pub rolemask: Option<u32>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        ConnectOptions {
            retries: env_number(RETRY_COUNT_ENV).unwrap_or(5),
            patience: None,
            userid: env_number("FLUX_HANDLE_USERID"),
            rolemask: env_number("FLUX_HANDLE_ROLEMASK"),
        }
    }
}

fn env_number(name: &str) -> Option<u32> {
    let text = std::env::var(name).ok()?;
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Connects to the socket at `path` and waits for the byte that admits the client.
///
/// # Errors
/// [`Error::SocketNotFound`], [`Error::Connect`] after the last retry, [`Error::Refused`], [`Error::Closed`].
pub(crate) fn connect(path: &Path, options: &ConnectOptions) -> Result<UnixStream, Error> {
    let mut delay = RETRY_DELAY_MIN;
    let mut left = options.retries;
    let mut stream = loop {
        let source = match UnixStream::connect(path) {
            Ok(stream) => break stream,
            Err(err) => err,
        };
        let hopeless = source.kind() == io::ErrorKind::InvalidInput;
        if hopeless || left == 0 {
            let path = path.to_owned();
            return Err(match source.kind() {
                io::ErrorKind::NotFound => Error::SocketNotFound(path),
                _ => Error::Connect { path, source },
            });
        }
        left -= 1;
        pause(delay);
        delay = (delay * 2).min(RETRY_DELAY_MAX);
    };
    let mut answer = [0u8; 1];
    let unusable = |source| Error::Connect {
        path: path.to_owned(),
        source,
    };
    if options.patience.is_some() {
        stream.set_read_timeout(options.patience).map_err(unusable)?;
    }
    loop {
        match stream.read(&mut answer) {
            Ok(0) => return Err(refused(path, errno::ECONNRESET)),
            Ok(_) => break,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(unusable(source)),
        }
    }
    if options.patience.is_some() {
        stream.set_read_timeout(None).map_err(unusable)?;
    }
    match answer {
        [0] => Ok(stream),
        [errnum] => Err(refused(path, Errnum::from(errnum))),
    }
}

fn refused(path: &Path, errnum: Errnum) -> Error {
    Error::Refused {
        path: path.to_owned(),
        errnum,
    }
}

/// Waits without a file descriptor; a signal may end the wait early, which only makes the next attempt earlier.
pub(crate) fn pause(delay: Duration) {
    let timeout = PollTimeout::try_from(delay).unwrap_or(PollTimeout::MAX);
    if let Err(err) = nix::poll::poll(&mut [], timeout) {
        // EINTR is the only error that no descriptor can cause.
        debug_assert_eq!(err, nix::errno::Errno::EINTR);
    }
}
