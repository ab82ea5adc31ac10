//! What tests ask of the kernel that the standard library does not offer.

#![expect(unsafe_code, reason = "system calls of tests")]

use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

fn check(result: i32) -> io::Result<()> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Gives the calling thread, and what it starts, mounts of its own.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, "")
}

pub fn mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong, data: &str) -> io::Result<()> {
    let [source, target, kind, data] = [source, target, kind, data].map(|text| CString::new(text).unwrap());
    // SAFETY: all texts end with NUL.
    check(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    })
}

pub fn bind(source: &str, target: &str) {
    mount(source, target, "", libc::MS_BIND, "").unwrap();
}

pub fn tmpfs(target: &str) {
    mount("none", target, "tmpfs", 0, "mode=755").unwrap();
}

/// Runs `body` with the effective user of this thread changed.
pub fn as_user<T>(uid: u32, body: impl FnOnce() -> T) -> T {
    let set = |uid: u32| {
        // SAFETY: the system call itself changes the calling thread only.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, -1, uid, -1) };
        assert_eq!(result, 0);
    };
    set(uid);
    let result = body();
    set(0);
    result
}

pub fn kill(pid: i32, signal: i32) {
    // SAFETY: takes numbers only.
    unsafe { libc::kill(pid, signal) };
}

/// What a hostile caller does between fork and exec.
#[derive(Clone, Copy, Debug)]
pub enum Before {
    /// Close descriptors 0 to 2 whose bits are set.
    Close(u8),
    /// Open `/dev/null` this many times, to be inherited.
    OpenMany(u32),
    /// Set a soft and hard limit.
    Limit(u32, u64),
    /// Forbid privilege.
    NoNewPrivileges,
    /// Ignore SIGCHLD, block everything, start timers.
    Signals,
    /// The slowest class there is.
    Starve,
    /// Execute without any argument, not even a name.
    NoArguments,
}

fn apply(before: Before, program: &CString) -> io::Result<()> {
    match before {
        Before::Close(bits) => {
            for fd in (0..3).filter(|fd| bits & (1 << fd) != 0) {
                // SAFETY: takes numbers only.
                unsafe { libc::close(fd) };
            }
        }
        Before::OpenMany(count) => {
            for _ in 0..count {
                // SAFETY: a constant text.
                check(unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY) })?;
            }
        }
        Before::Limit(resource, value) => {
            let limit = libc::rlimit {
                rlim_cur: value,
                rlim_max: value,
            };
            // SAFETY: `limit` is whole.
            check(unsafe { libc::setrlimit(resource, &raw const limit) })?;
        }
        // SAFETY: takes numbers only.
        Before::NoNewPrivileges => check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?,
        Before::Signals => signals()?,
        Before::Starve => {
            // SAFETY: takes numbers only.
            unsafe { libc::nice(19) };
            let parameter = libc::sched_param { sched_priority: 0 };
            // SAFETY: `parameter` is whole.
            check(unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameter) })?;
        }
        Before::NoArguments => {
            let none = [std::ptr::null()];
            // SAFETY: two empty lists.
            unsafe { libc::execve(program.as_ptr(), none.as_ptr(), none.as_ptr()) };
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn signals() -> io::Result<()> {
    // SAFETY: SIG_IGN is a valid handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    // SAFETY: all bytes zero is a valid set.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is writable.
    unsafe { libc::sigfillset(&raw mut set) };
    // SAFETY: `set` is whole.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) })?;
    let soon = libc::timeval {
        tv_sec: 0,
        tv_usec: 3000,
    };
    let timer = libc::itimerval {
        it_interval: soon,
        it_value: soon,
    };
    // SAFETY: `timer` is whole.
    check(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) })
}

/// Has the command do this when it has its user already.
pub fn before_exec(command: &mut Command, before: Before) {
    let program = CString::new(command.get_program().to_str().unwrap()).unwrap();
    // SAFETY: `apply` makes system calls only.
    unsafe { command.pre_exec(move || apply(before, &program)) };
}

/// Has the command do this while it is root still: `pre_exec` comes after the change of user, so the user is changed there.
pub fn as_root_then(command: &mut Command, uid: u32, secure_bits: bool) {
    let none: libc::c_ulong = 0;
    let begin = move || {
        if secure_bits {
            // SAFETY: takes numbers only.
            check(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, 1 << 2, none, none, none) })?;
        }
        // SAFETY: an empty list.
        check(unsafe { libc::setgroups(0, std::ptr::null()) })?;
        // SAFETY: takes numbers only.
        check(unsafe { libc::setgid(uid) })?;
        // SAFETY: takes numbers only.
        check(unsafe { libc::setuid(uid) })
    };
    // SAFETY: `begin` makes system calls only.
    unsafe { command.pre_exec(begin) };
}

/// Connects to a listener that does not accept until no more can wait.
pub fn fill(socket: &str) -> Vec<std::os::unix::net::UnixStream> {
    let path = CString::new(socket).unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = flux_imp::sys::fd::connect(&path) {
        waiting.push(stream);
    }
    waiting
}
