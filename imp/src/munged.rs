//! Who answers when the monitor asks whether a request is what its user has signed? Only munged, or root.

use std::ffi::CString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::path;
use crate::refusal::demand;
use crate::sys::fd;

/// How long is waited before a busy munged is tried again.
const TICK: Duration = Duration::from_millis(2);

/// Connects to munged: a socket below directories of root's, in one of root's or of the user as whom munged runs.
///
/// # Errors
/// What is not trusted, or what `connect(2)` returns.
pub fn connect(socket: &Path, time: Duration) -> io::Result<UnixStream> {
    let refuse = |why: String| io::Error::new(io::ErrorKind::PermissionDenied, why);
    let text = socket.to_str().unwrap_or_default();
    let names = path::components(text).map_err(|why| refuse(format!("{text} {why}")))?;
    let [above @ .., parent, _] = names.as_slice() else {
        return Err(refuse(format!("{text}: the socket's path is too short")));
    };
    // `/run/munge` belongs to munge; `/run` must be root's.
    let above = path::walk(text, above).map_err(refuse)?;
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_DIRECTORY;
    let parent = fd::openat(Some(&above), parent, flags, 0)
        .map_err(|err| refuse(format!("{text}: its directory cannot be opened: {err}")))?
        .metadata()?;
    let shared = format!("{text}: its directory may be written by others than its owner");
    demand(parent.mode() & 0o022 == 0, shared).map_err(refuse)?;
    let (path, deadline) = (CString::new(text)?, Instant::now() + time);
    let stream = loop {
        match fd::connect(&path) {
            // A munged that accepts nobody would hold a call that waits for ever.
            Err(err) if err.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::park_timeout(TICK);
            }
            connected => break connected?,
        }
    };
    let server = fd::peer_uid(&stream)?;
    let owner = parent.uid();
    let stranger = format!("{text}: userid {server} listens, not root or userid {owner}");
    demand(server == 0 || server == owner, stranger).map_err(refuse)?;
    Ok(stream)
}
