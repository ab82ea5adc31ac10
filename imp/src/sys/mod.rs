//! How is the kernel asked? The only place of this crate with `unsafe` beside `pam::sys`; what it offers is safe.

#![expect(unsafe_code, reason = "system calls; every block says why it is sound")]

pub mod arena;
pub mod bpf;
pub mod cred;
pub mod fd;
pub mod process;
pub mod seccomp;
pub mod signal;
pub mod users;

use std::io;

/// Turns the -1 of a system call into the error it stands for.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The same for results of `syscall(2)`.
fn check_long(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
