//! Is the request what its user signed? The monitor asks munged itself.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use flux_sign::kv::Kv;
use flux_sign::{Config, Signer, Unwrapped};

use crate::path;
use crate::sys::fd::{connect_unix, fstat, peer_uid};

/// Checks a token; `caller` is the only user whom the mechanism `none` serves.
///
/// # Errors
/// What to log.
pub fn token(sign: &Kv, token: &str, caller: u32) -> Result<(Unwrapped, Config), String> {
    let config = Config::from_kv(sign).map_err(|err| err.to_string())?;
    let signer = Signer::with_connect(config.clone(), connect);
    let unwrapped = signer
        .unwrap(token, caller)
        .map_err(|err| format!("exec: {err}"))?;
    Ok((unwrapped, config))
}

/// Connects to munged: a socket below directories of root's, in one of root's or of the user as whom munged runs.
fn connect(socket: &Path, time: Duration) -> io::Result<UnixStream> {
    let refuse = |why: String| io::Error::new(io::ErrorKind::PermissionDenied, why);
    let (Some(directory), Some(text)) = (socket.parent().and_then(Path::parent), socket.to_str()) else {
        return Err(refuse("the socket's path is too short".to_owned()));
    };
    path::components(text).map_err(|why| refuse(format!("{text} {why}")))?;
    // `/run/munge` belongs to munge; `/run` must be root's.
    let above = path::open_directory_or_root(&directory.to_string_lossy()).map_err(refuse)?;
    let parent = socket.parent().and_then(Path::file_name).unwrap_or_default();
    let parent = path::open_below(&above, parent).map_err(|why| refuse(format!("{text}: {why}")))?;
    let stat = fstat(parent.as_fd())?;
    if stat.mode & 0o022 != 0 {
        return Err(refuse(format!(
            "{text}: its directory may be written by others than its owner"
        )));
    }
    // A munged that accepts nobody would hold a plain `connect` for ever.
    let socket = CString::new(text)?;
    let stream = UnixStream::from(connect_unix(&socket, libc::SOCK_STREAM, Some(time))?);
    let server = peer_uid(stream.as_fd())?;
    if server != 0 && server != stat.uid {
        return Err(refuse(format!(
            "{text}: userid {server} listens, not root or userid {}",
            stat.uid
        )));
    }
    Ok(stream)
}
