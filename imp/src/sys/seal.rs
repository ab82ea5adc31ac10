//! Shutting a process off: all the memory that it may ever use, and a filter that leaves it nothing but writing and ending.

use std::io;

use super::check;
use super::process::prctl;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// Offsets in `struct seccomp_data`.
const DATA_NUMBER: u32 = 0;
const DATA_ARCHITECTURE: u32 = 4;

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

fn statement(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

/// Leaves this process `size` bytes of memory, `write`, `exit` and `exit_group`; anything else kills it.
pub fn seal(size: usize) -> io::Result<()> {
    reserve(size)?;
    allow_writing_only()
}

/// Takes the memory in one piece and gives it back to the C library's allocator, which is told to keep it: until all of it is
/// used it makes no system call, and then the filter ends the process.
fn reserve(size: usize) -> io::Result<()> {
    for (option, value) in [(libc::M_MMAP_MAX, 0), (libc::M_TRIM_THRESHOLD, -1)] {
        // SAFETY: takes numbers only.
        if unsafe { libc::mallopt(option, value) } == 0 {
            return Err(io::ErrorKind::Unsupported.into());
        }
    }
    // SAFETY: takes a number only.
    let block = unsafe { libc::malloc(size) };
    if block.is_null() {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    // SAFETY: the block has just been allocated and nobody has it.
    unsafe { libc::free(block) };
    Ok(())
}

/// Lets the rest of the process call `write`, `exit` and `exit_group`; anything else kills it.
fn allow_writing_only() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
    let equal = |k, jt, jf| libc::sock_filter {
        code: JUMP_EQUAL,
        jt,
        jf,
        k,
    };
    let mut program = [
        statement(LOAD, DATA_ARCHITECTURE),
        equal(ARCHITECTURE, 0, 4),
        statement(LOAD, DATA_NUMBER),
        equal(number(libc::SYS_write), 3, 0),
        equal(number(libc::SYS_exit_group), 2, 0),
        equal(number(libc::SYS_exit), 1, 0),
        statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
    ];
    let length = libc::c_ushort::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let filter = libc::sock_fprog {
        len: length,
        filter: program.as_mut_ptr(),
    };
    let none: libc::c_ulong = 0;
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: the kernel copies `len` instructions during the call.
    check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter, none, none) }).map(drop)
}
