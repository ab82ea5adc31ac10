//! How are processes referred to, waited for and signalled without races on process ids?
#![expect(unsafe_code, reason = "pidfd, waitid and kill")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;
use crate::status::WaitStatus;

pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers, returns a new close-on-exec descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0_i64) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    check(fd)?;
    // SAFETY: the kernel has just returned this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn pidfd_send_signal(fd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and means "as kill(2) would"; the rest are integers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            libc::c_long::from(fd.as_raw_fd()),
            libc::c_long::from(signal),
            no_info,
            0_i64,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Waits for the end of a child; `None` when `block` is false and it still runs.
pub(crate) fn waitid_pidfd(fd: BorrowedFd<'_>, block: bool) -> io::Result<Option<WaitStatus>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let id = libc::id_t::try_from(fd.as_raw_fd()).map_err(io::Error::other)?;
    let flags = libc::WEXITED | if block { 0 } else { libc::WNOHANG };
    // SAFETY: `info` is writable memory of the right size.
    check(unsafe { libc::waitid(libc::P_PIDFD, id, info.as_mut_ptr(), flags) })?;
    // SAFETY: zeroed at first and filled by the kernel; every bit pattern is a valid siginfo_t.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid fills the SIGCHLD variant, or leaves the zeroes that mean "still running".
    let pid = unsafe { info.si_pid() };
    if pid == 0 {
        return Ok(None);
    }
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    Ok(Some(match info.si_code {
        libc::CLD_EXITED => WaitStatus::exited(status),
        code => WaitStatus::signaled(status, code == libc::CLD_DUMPED),
    }))
}

pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: takes two integers.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

pub(crate) fn getuid() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::getuid() }
}
