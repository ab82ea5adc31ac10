//! A program in the kernel that decides which devices a control group may open.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check_long;

/// `BPF_PROG_LOAD`, `BPF_PROG_ATTACH`
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
/// `BPF_PROG_TYPE_CGROUP_DEVICE`, `BPF_CGROUP_DEVICE`
const TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;

/// One instruction.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u8,
    /// Destination register, and source register times 16.
    pub registers: u8,
    /// Where to jump, or an offset in memory.
    pub offset: i16,
    /// Operand.
    pub value: i32,
}

#[repr(C)]
struct LoadArguments {
    kind: u32,
    count: u32,
    program: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
struct AttachArguments {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX)
}

/// Loads a program and attaches it to a control group; it stays there until the group is removed.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let load = LoadArguments {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        program: program.as_ptr() as u64,
        license: c"Dual BSD/GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: `load` names `count` instructions and a text that outlive the call; the kernel copies and verifies them.
    let fd =
        check_long(unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of_val(&load)) })?;
    let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: new and ours.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let attach = AttachArguments {
        target: number(cgroup),
        program: number(std::os::fd::AsFd::as_fd(&fd)),
        kind: CGROUP_DEVICE,
        flags: 0,
    };
    // SAFETY: `attach` is whole; both descriptors are open.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_ATTACH,
            &raw const attach,
            size_of_val(&attach),
        )
    })
    .map(drop)
}
