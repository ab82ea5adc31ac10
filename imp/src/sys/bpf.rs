//! A program in the kernel that decides which devices a control group may open.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::check;

/// `BPF_PROG_LOAD`, `BPF_PROG_ATTACH`
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
/// `BPF_PROG_TYPE_CGROUP_DEVICE`, `BPF_CGROUP_DEVICE`
const TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;

/// One instruction, `struct bpf_insn`: what to do; destination register, and source register times 16; where to jump, or an offset
/// in memory; operand.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction(pub u8, pub u8, pub i16, pub i32);

/// What the kernel reads of `union bpf_attr`; what follows counts as zero.
#[repr(C)]
struct LoadArguments {
    kind: u32,
    count: u32,
    program: u64,
    license: u64,
}

#[repr(C)]
struct AttachArguments {
    target: i32,
    program: i32,
    kind: u32,
}

/// Loads a program and attaches it to a control group; it stays there until the group is removed.
pub fn attach_device_program(cgroup: &File, program: &[Instruction]) -> io::Result<()> {
    let load = LoadArguments {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        program: program.as_ptr() as u64,
        license: c"Dual BSD/GPL".as_ptr() as u64,
    };
    let size = size_of_val(&load);
    // SAFETY: `load` names `count` instructions and a text that outlive the call; the kernel copies and verifies them.
    let fd = check(unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size) })?;
    let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: new and ours.
    let loaded = unsafe { OwnedFd::from_raw_fd(fd) };
    let attach = AttachArguments {
        target: cgroup.as_raw_fd(),
        program: loaded.as_raw_fd(),
        kind: CGROUP_DEVICE,
    };
    let size = size_of_val(&attach);
    // SAFETY: `attach` is whole; both descriptors are open.
    check(unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attach, size) }).map(drop)
}
