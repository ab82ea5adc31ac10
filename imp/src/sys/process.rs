//! Making, watching and ending processes.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::parent_id;

use super::{check, demand};

/// A child process, named by its number until [`reap`] has taken its status: the number is not given away before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pid(i32);

impl Pid {
    /// Returns the number.
    pub fn number(self) -> i32 {
        self.0
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// By itself, with an exit code.
    Exited(i32),
    /// By a signal.
    Killed(i32),
}

/// Returns twice; `None` in the child.
pub fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the process has one thread, so the child may go on as its parent would.
    let pid = check(unsafe { libc::fork() })?;
    Ok((pid != 0).then_some(Pid(pid)))
}

/// Like [`fork`], but the child is born in a control group. It must only use calls that allocate nothing.
pub fn fork_into_cgroup(cgroup: &File) -> io::Result<Option<Pid>> {
    /// `CLONE_INTO_CGROUP`
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    // SAFETY: all bytes zero is a valid `clone_args`: no flags, no stack of its own.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = INTO_CGROUP;
    args.exit_signal = u64::try_from(libc::SIGCHLD).unwrap_or(0);
    args.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or(u64::MAX);
    // SAFETY: without CLONE_VM and with no stack given this is a fork; `args` is whole and outlives the call.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) })?;
    let pid = i32::try_from(pid).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok((pid != 0).then_some(Pid(pid)))
}

/// Ends the process at once.
pub fn exit(code: i32) -> ! {
    // SAFETY: never returns; nothing of the program runs afterwards.
    unsafe { libc::_exit(code) }
}

/// Takes the status of any child that has ended; `None` when none has, an error (`ECHILD`) when there are no children.
pub fn reap() -> io::Result<Option<(Pid, Status)>> {
    let mut raw = 0;
    // SAFETY: `raw` is writable.
    let pid = check(unsafe { libc::waitpid(-1, &raw mut raw, libc::WNOHANG) })?;
    Ok((pid != 0).then(|| (Pid(pid), status(raw))))
}

/// Waits for a child to end. No signal interrupts, as all are blocked.
pub fn wait(pid: Pid) -> io::Result<Status> {
    let mut raw = 0;
    // SAFETY: `raw` is writable.
    check(unsafe { libc::waitpid(pid.0, &raw mut raw, 0) })?;
    Ok(status(raw))
}

fn status(raw: i32) -> Status {
    if libc::WIFSIGNALED(raw) {
        Status::Killed(libc::WTERMSIG(raw))
    } else {
        Status::Exited(libc::WEXITSTATUS(raw))
    }
}

/// Sends a signal to a child that has not been reaped.
pub fn kill(pid: Pid, signal: i32) {
    // SAFETY: takes numbers only. The child may be a zombie, which is harmless.
    unsafe { libc::kill(pid.0, signal) };
}

/// Sends a signal to the process group that a child leads.
pub fn kill_group(pid: Pid, signal: i32) {
    // SAFETY: takes numbers only; `pid` is a positive number, so this never means "all".
    unsafe { libc::kill(-pid.0, signal) };
}

/// Names a process found by number; the caller knows that it is a child.
pub fn child(number: i32) -> Option<Pid> {
    (number > 1).then_some(Pid(number))
}

/// Begins a session and a process group of its own. Allocates nothing.
pub fn new_session() -> io::Result<()> {
    // SAFETY: takes nothing.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Forbids core files, `ptrace` and reading of `/proc/PID` to the same user.
pub fn set_undumpable() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0).map(drop)
}

/// Takes over processes whose parent, below this one, has ended.
pub fn become_reaper() -> io::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map(drop)
}

/// Asks for SIGKILL when the parent ends; fails when it is `parent` no longer. Allocates nothing.
pub fn die_with(parent: u32) -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, 9)?;
    demand(parent_id() == parent, libc::ESRCH)
}

/// Returns the secure bits (0 unless somebody changed what a switch of users means).
pub fn secure_bits() -> io::Result<i32> {
    prctl(libc::PR_GET_SECUREBITS, 0)
}

/// Calls `prctl` with an option that takes a number.
pub(super) fn prctl(option: i32, value: libc::c_ulong) -> io::Result<i32> {
    let none: libc::c_ulong = 0;
    // SAFETY: the options of this crate take numbers only.
    check(unsafe { libc::prctl(option, value, none, none, none) })
}

/// Joins a new session keyring without a name; a kernel without keyrings is fine. Allocates nothing.
pub fn new_keyring() -> io::Result<()> {
    /// `KEYCTL_JOIN_SESSION_KEYRING`
    const JOIN: libc::c_long = 1;
    let none: libc::c_long = 0;
    // SAFETY: a null name asks for an anonymous keyring.
    match check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN, none, none, none, none) }) {
        Err(err) if err.raw_os_error() != Some(libc::ENOSYS) => Err(err),
        _ => Ok(()),
    }
}

/// Sets the file creation mask. Allocates nothing.
pub fn set_umask(mask: u32) {
    // SAFETY: cannot fail.
    unsafe { libc::umask(mask) };
}

/// Pointers to strings, ended by a null pointer, as `execve` wants them.
#[derive(Debug)]
pub struct Words<'a>(Vec<*const libc::c_char>, std::marker::PhantomData<&'a CStr>);

impl<'a> Words<'a> {
    /// Borrows the strings.
    pub fn new(strings: impl Iterator<Item = &'a CStr>) -> Self {
        let mut pointers: Vec<_> = strings.map(CStr::as_ptr).collect();
        pointers.push(std::ptr::null());
        Words(pointers, std::marker::PhantomData)
    }
}

/// Runs a program in place of this one; returns only to say why not. Allocates nothing.
///
/// The program is the open file itself, or, for one that is named, whatever is at its path: an interpreter of scripts must
/// be able to open it again.
pub fn exec(file: &File, path: Option<&CStr>, arguments: &Words<'_>, environment: &Words<'_>) -> io::Error {
    let (file, path) = (file.as_raw_fd(), path.unwrap_or(c"").as_ptr());
    let (words, variables) = (arguments.0.as_ptr(), environment.0.as_ptr());
    let flags = libc::AT_EMPTY_PATH;
    // SAFETY: the path ends with NUL, both lists end with a null pointer and outlive the call, as do their strings.
    unsafe { libc::syscall(libc::SYS_execveat, file, path, words, variables, flags) };
    io::Error::last_os_error()
}

/// Removes every environment variable of this process.
pub fn clear_environment() -> io::Result<()> {
    // SAFETY: the process has one thread, and no pointer into the environment is kept.
    check(unsafe { libc::clearenv() }).map(drop)
}
