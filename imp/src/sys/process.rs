//! Making, watching and ending processes.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{check, check_long};

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
    match check(unsafe { libc::fork() })? {
        0 => Ok(None),
        pid => Ok(Some(Pid(pid))),
    }
}

/// Like [`fork`], but the child is born in a control group. It must only use calls that allocate nothing.
pub fn fork_into_cgroup(cgroup: BorrowedFd<'_>) -> io::Result<Option<Pid>> {
    /// `CLONE_INTO_CGROUP`
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    // SAFETY: all bytes zero is a valid `clone_args`: no flags, no stack of its own.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = INTO_CGROUP;
    args.exit_signal = u64::try_from(libc::SIGCHLD).unwrap_or(0);
    args.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or(u64::MAX);
    // SAFETY: without CLONE_VM and with no stack given this is a fork; `args` is whole and outlives the call.
    let pid = check_long(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) })?;
    match i32::try_from(pid) {
        Ok(0) => Ok(None),
        Ok(pid) => Ok(Some(Pid(pid))),
        Err(_) => Err(io::ErrorKind::InvalidData.into()),
    }
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

/// Waits for a child to end.
pub fn wait(pid: Pid) -> io::Result<Status> {
    loop {
        let mut raw = 0;
        // SAFETY: `raw` is writable.
        match check(unsafe { libc::waitpid(pid.0, &raw mut raw, 0) }) {
            Ok(_) => return Ok(status(raw)),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
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

/// Raises a signal in this process.
pub fn raise(signal: i32) {
    // SAFETY: takes numbers only.
    unsafe { libc::raise(signal) };
}

/// Returns this process's number.
pub fn own_pid() -> i32 {
    // SAFETY: cannot fail.
    unsafe { libc::getpid() }
}

/// Returns the parent's number.
pub fn own_parent() -> i32 {
    // SAFETY: cannot fail.
    unsafe { libc::getppid() }
}

/// Begins a session and a process group of its own. Allocates nothing.
pub fn new_session() -> io::Result<()> {
    // SAFETY: takes nothing.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Forbids core files, `ptrace` and reading of `/proc/PID` to the same user.
pub fn set_undumpable() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0)
}

/// Takes over processes whose parent, below this one, has ended.
pub fn become_reaper() -> io::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// Asks for SIGKILL when the parent ends; fails when it is `parent` no longer. Allocates nothing.
pub fn die_with(parent: i32) -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, 9)?;
    if own_parent() == parent {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }
}

/// Forbids privilege through setuid programs from here on.
pub fn set_no_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

fn prctl(option: i32, value: libc::c_ulong) -> io::Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: the options above take numbers only.
    check(unsafe { libc::prctl(option, value, none, none, none) }).map(drop)
}

/// Returns the secure bits (0 unless somebody changed what a switch of users means).
pub fn secure_bits() -> io::Result<i32> {
    let none: libc::c_ulong = 0;
    // SAFETY: takes numbers only.
    check(unsafe { libc::prctl(libc::PR_GET_SECUREBITS, none, none, none, none) })
}

/// Joins a new session keyring without a name; a kernel without keyrings is fine. Allocates nothing.
pub fn new_keyring() -> io::Result<()> {
    /// `KEYCTL_JOIN_SESSION_KEYRING`
    const JOIN: libc::c_long = 1;
    let none: libc::c_long = 0;
    // SAFETY: a null name asks for an anonymous keyring.
    match check_long(unsafe { libc::syscall(libc::SYS_keyctl, JOIN, none, none, none, none) }) {
        Err(err) if err.raw_os_error() != Some(libc::ENOSYS) => Err(err),
        _ => Ok(()),
    }
}

/// Sets the file creation mask. Allocates nothing.
pub fn set_umask(mask: u32) {
    // SAFETY: cannot fail.
    unsafe { libc::umask(mask) };
}

/// Changes the working directory. Allocates nothing.
pub fn chdir(path: &CStr) -> io::Result<()> {
    // SAFETY: `path` ends with NUL.
    check(unsafe { libc::chdir(path.as_ptr()) }).map(drop)
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
pub fn exec(
    file: BorrowedFd<'_>,
    path: Option<&CStr>,
    arguments: &Words<'_>,
    environment: &Words<'_>,
) -> io::Error {
    // SAFETY: the path ends with NUL, both lists end with a null pointer and outlive the call, as do their strings.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            path.unwrap_or(c"").as_ptr(),
            arguments.0.as_ptr(),
            environment.0.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Removes every environment variable of this process.
pub fn clear_environment() -> io::Result<()> {
    // SAFETY: the process has one thread, and no pointer into the environment is kept.
    check(unsafe { libc::clearenv() }).map(drop)
}
