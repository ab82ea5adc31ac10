//! Files and descriptors.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{check, demand};

/// Opens `name` below `directory` with `O_CLOEXEC`; `None` stands for the working directory.
pub fn openat(directory: Option<&File>, name: &CStr, flags: i32, mode: u32) -> io::Result<File> {
    let at = directory.map_or(libc::AT_FDCWD, File::as_raw_fd);
    // SAFETY: `name` ends with NUL, and `at` is open for as long as it is borrowed.
    let fd = check(unsafe { libc::openat(at, name.as_ptr(), flags | libc::O_CLOEXEC, mode) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Makes a directory.
pub fn mkdirat(directory: &File, name: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: `name` ends with NUL.
    check(unsafe { libc::mkdirat(directory.as_raw_fd(), name.as_ptr(), mode) }).map(drop)
}

/// Removes an empty directory.
pub fn rmdirat(directory: &File, name: &CStr) -> io::Result<()> {
    // SAFETY: `name` ends with NUL.
    check(unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), libc::AT_REMOVEDIR) }).map(drop)
}

/// Returns the magic number of the file system that a file is in.
pub fn filesystem(file: &File) -> io::Result<i64> {
    // SAFETY: all bytes zero is a valid `struct statfs`.
    let mut raw: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `raw` is writable and of the size that the kernel fills.
    check(unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut raw) })?;
    Ok(raw.f_type)
}

/// Makes `target`, one of 0, 1 and 2, a copy of `file`, kept over `exec`.
pub fn dup_to(file: &File, target: i32) -> io::Result<()> {
    // SAFETY: replacing 0, 1 or 2 takes nothing from an owner: no value of this crate owns those numbers.
    check(unsafe { libc::dup2(file.as_raw_fd(), target) }).map(drop)
}

/// Returns whether a standard descriptor (0, 1, 2) is open.
pub fn is_open(number: i32) -> bool {
    // SAFETY: asks about a number only.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

/// Closes every descriptor from `first` on. Only the clean start calls it, before any descriptor is owned.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: at the clean start no value of this program owns a descriptor.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0u32) }).map(drop)
}

/// Waits until one of the files is readable (`POLLIN`) or has the event named; returns which had any event.
///
/// An interruption by a signal counts as "none".
pub fn poll<const N: usize>(
    fds: [(BorrowedFd<'_>, i16); N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    let mut raw = fds.map(|(fd, events)| libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    });
    let millis = timeout.map_or(-1, |time| i32::try_from(time.as_millis()).unwrap_or(i32::MAX));
    let count = libc::nfds_t::try_from(N).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `raw` has `count` elements.
    match check(unsafe { libc::poll(raw.as_mut_ptr(), count, millis) }) {
        Ok(_) => Ok(raw.map(|entry| entry.revents != 0)),
        Err(err) if err.kind() == io::ErrorKind::Interrupted => Ok([false; N]),
        Err(err) => Err(err),
    }
}

/// Connects to a UNIX socket without waiting: `WouldBlock` when whoever listens accepts nobody.
pub fn connect(path: &CStr) -> io::Result<UnixStream> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes numbers only.
    let fd = check(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?;
    // SAFETY: new and ours.
    let stream = unsafe { UnixStream::from_raw_fd(fd) };
    // SAFETY: all bytes zero is a valid `sockaddr_un`.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = 1;
    let bytes = path.to_bytes();
    demand(bytes.len() < address.sun_path.len(), libc::EINVAL)?;
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = from.cast_signed();
    }
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `address` is a whole `sockaddr_un` of `length` bytes.
    check(unsafe { libc::connect(fd, (&raw const address).cast(), length) })?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Returns the user at the other end of a connected UNIX socket, when it connected or began to listen.
pub fn peer_uid(stream: &UnixStream) -> io::Result<u32> {
    let mut peer = [0, u32::MAX, u32::MAX];
    let mut size = 12;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
    let (fd, to) = (stream.as_raw_fd(), peer.as_mut_ptr().cast());
    // SAFETY: `peer` has `size` bytes: a `struct ucred`, which is pid, uid and gid.
    check(unsafe { libc::getsockopt(fd, level, option, to, &raw mut size) })?;
    let [_, uid, _] = peer;
    Ok(uid)
}
