//! Files and descriptors.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::check;

/// What `fstat(2)` says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Device number of a device file.
    pub rdev: u64,
}

impl Stat {
    fn of(raw: &libc::stat) -> Self {
        Stat {
            mode: raw.st_mode,
            uid: raw.st_uid,
            gid: raw.st_gid,
            size: u64::try_from(raw.st_size).unwrap_or(0),
            rdev: raw.st_rdev,
        }
    }

    /// Returns true for a file of the type, one of `libc::S_IF*`.
    pub fn is(&self, kind: libc::mode_t) -> bool {
        self.mode & libc::S_IFMT == kind
    }
}

/// Opens `name` below `directory` with `O_CLOEXEC`; `None` stands for the working directory.
pub fn openat(directory: Option<BorrowedFd<'_>>, name: &CStr, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    let at = directory.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd());
    // SAFETY: `name` ends with NUL, and `at` is open for as long as it is borrowed.
    let fd = check(unsafe { libc::openat(at, name.as_ptr(), flags | libc::O_CLOEXEC, mode) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a directory.
pub fn mkdirat(directory: BorrowedFd<'_>, name: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: `name` ends with NUL.
    check(unsafe { libc::mkdirat(directory.as_raw_fd(), name.as_ptr(), mode) }).map(drop)
}

/// Removes an empty directory.
pub fn rmdirat(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    // SAFETY: `name` ends with NUL.
    check(unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), libc::AT_REMOVEDIR) }).map(drop)
}

/// Removes a file.
pub fn unlinkat(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    // SAFETY: `name` ends with NUL.
    check(unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), 0) }).map(drop)
}

/// Returns owner, mode and size of an open file.
pub fn fstat(fd: BorrowedFd<'_>) -> io::Result<Stat> {
    // SAFETY: all bytes zero is a valid `struct stat`.
    let mut raw: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `raw` is writable and of the size that the kernel fills.
    check(unsafe { libc::fstat(fd.as_raw_fd(), &raw mut raw) })?;
    Ok(Stat::of(&raw))
}

/// Returns owner, mode and size of the file that a path leads to. Allocates nothing.
pub fn stat(path: &CStr) -> io::Result<Stat> {
    // SAFETY: all bytes zero is a valid `struct stat`.
    let mut raw: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends with NUL, `raw` is writable.
    check(unsafe { libc::stat(path.as_ptr(), &raw mut raw) })?;
    Ok(Stat::of(&raw))
}

/// Returns the magic number of the file system that a file is in.
pub fn filesystem(fd: BorrowedFd<'_>) -> io::Result<i64> {
    // SAFETY: all bytes zero is a valid `struct statfs`.
    let mut raw: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `raw` is writable and of the size that the kernel fills.
    check(unsafe { libc::fstatfs(fd.as_raw_fd(), &raw mut raw) })?;
    Ok(raw.f_type)
}

/// Makes a pipe: what is written to the second can be read from the first.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: new and ours.
    Ok(fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).into())
}

/// Writes bytes that fit into a pipe; whether anybody reads them does not matter. Allocates nothing.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) {
    // SAFETY: the kernel reads `len` bytes from the slice.
    unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
}

/// Makes `target` a copy of `fd`, kept over `exec`. Allocates nothing.
pub fn dup_to(fd: BorrowedFd<'_>, target: i32) -> io::Result<()> {
    // SAFETY: replacing 0, 1 or 2 takes nothing from an owner: no `OwnedFd` of this crate holds those numbers.
    check(unsafe { libc::dup2(fd.as_raw_fd(), target) }).map(drop)
}

/// Returns whether a standard descriptor (0, 1, 2) is open.
pub fn is_open(number: i32) -> bool {
    // SAFETY: asks about a number only.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

/// Borrows a standard descriptor (0, 1 or 2); the clean start has made sure that they are open.
pub fn standard(number: i32) -> BorrowedFd<'static> {
    // SAFETY: 0, 1 and 2 stay open from the clean start to the end of the process.
    unsafe { BorrowedFd::borrow_raw(number.clamp(0, 2)) }
}

/// Closes every descriptor from `first` on. Only the clean start calls it, before any descriptor is owned.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: at the clean start no value of this program owns a descriptor.
    super::check_long(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0u32) }).map(drop)
}

/// Moves a file's read position back to `offset` from its start; fails where a file cannot seek.
pub fn seek(fd: BorrowedFd<'_>, offset: u64) -> io::Result<()> {
    let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: takes numbers only.
    let at = unsafe { libc::lseek(fd.as_raw_fd(), offset, libc::SEEK_SET) };
    if at == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Returns a file's read position; fails where a file cannot seek.
pub fn position(fd: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: takes numbers only.
    let at = unsafe { libc::lseek(fd.as_raw_fd(), 0, libc::SEEK_CUR) };
    u64::try_from(at).map_err(|_| io::Error::last_os_error())
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

/// Connects to a UNIX socket. With a time, connecting and every later write end after it; without, they never wait.
///
/// `kind` is `SOCK_STREAM` or `SOCK_DGRAM`.
pub fn connect_unix(path: &CStr, kind: i32, time: Option<Duration>) -> io::Result<OwnedFd> {
    let wait = if time.is_some() { 0 } else { libc::SOCK_NONBLOCK };
    // SAFETY: takes numbers only.
    let fd = check(unsafe { libc::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC | wait, 0) })?;
    // SAFETY: new and ours.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let size = |bytes: usize| libc::socklen_t::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput);
    if let Some(time) = time {
        let limit = libc::timeval {
            tv_sec: i64::try_from(time.as_secs()).map_err(|_| io::ErrorKind::InvalidInput)?,
            tv_usec: i64::from(time.subsec_micros()),
        };
        let (level, option, bytes) = (libc::SOL_SOCKET, libc::SO_SNDTIMEO, size(size_of_val(&limit))?);
        // SAFETY: `limit` has `bytes` bytes.
        check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const limit).cast(), bytes) })?;
    }
    // SAFETY: all bytes zero is a valid `sockaddr_un`.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = 1;
    let bytes = path.to_bytes();
    if bytes.len() >= address.sun_path.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = from.cast_signed();
    }
    let length = size(size_of_val(&address))?;
    // SAFETY: `address` is a whole `sockaddr_un` of `length` bytes.
    check(unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(fd)
}

/// Returns the user at the other end of a connected UNIX socket, when it connected or began to listen.
pub fn peer_uid(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut size =
        libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `peer` has `size` bytes.
    check(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut size,
        )
    })?;
    Ok(peer.uid)
}
