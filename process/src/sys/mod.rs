//! Which system calls does this crate make, and why is each of them sound?
//!
//! The only place of the crate where `unsafe` is allowed. Every function takes and returns owned or borrowed
//! descriptors and plain values, so that no caller can break memory safety or close a foreign descriptor.

pub(crate) mod affinity;
pub(crate) mod fd;
pub(crate) mod localtime;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod pty;
pub(crate) mod rlimit;
pub(crate) mod signal;
pub(crate) mod spawn;

use std::io;

/// Turns the result of a call that gives -1 on failure into a `Result`.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
