//! Signals and timers.

use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;

use super::check;

/// Highest signal number.
const SIGNAL_MAX: i32 = 64;

fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: all bytes zero is the empty set.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in signals {
        // SAFETY: `set` is writable; a bad number is refused.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    set
}

fn set_mask(set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: `set` is a whole set.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, set, std::ptr::null_mut()) }).map(drop)
}

/// Blocks all signals.
pub fn block_all() -> io::Result<()> {
    let mut set = set_of(&[]);
    // SAFETY: `set` is writable.
    unsafe { libc::sigfillset(&raw mut set) };
    set_mask(&set)
}

/// Blocks no signal. Allocates nothing.
pub fn unblock_all() -> io::Result<()> {
    set_mask(&set_of(&[]))
}

/// Gives every signal its default action. Allocates nothing.
pub fn default_all() {
    // The kernel's `struct sigaction`: handler, flags, restorer, mask; all zero is SIG_DFL. The C library's call would
    // pass over its own two signals, which a caller can leave ignored.
    let action = [0u64; 4];
    let (none, size): (*const u64, usize) = (std::ptr::null(), 8);
    for signal in 1..=SIGNAL_MAX {
        // SAFETY: `action` is whole; the mask has `size` bytes. SIGKILL and SIGSTOP refuse, which is right.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), none, size) };
    }
}

/// Stops the timers that survive `exec`, and forgets the signals that they have sent already.
pub fn stop_timers() -> io::Result<()> {
    // SAFETY: all bytes zero is a stopped timer.
    let off: libc::itimerval = unsafe { std::mem::zeroed() };
    for which in [libc::ITIMER_REAL, libc::ITIMER_VIRTUAL, libc::ITIMER_PROF] {
        // SAFETY: `off` is whole.
        check(unsafe { libc::setitimer(which, &raw const off, std::ptr::null_mut()) })?;
    }
    for signal in [libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF] {
        // SAFETY: SIG_IGN is a valid action. It discards what is pending.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    Ok(())
}

/// Size of what a signal file gives for one signal.
pub const SIGNAL_INFO_SIZE: usize = size_of::<libc::signalfd_siginfo>();

/// Returns a file from which these (blocked) signals can be read; reading never waits.
pub fn signal_file(signals: &[i32]) -> io::Result<File> {
    let set = set_of(signals);
    // SAFETY: `set` is a whole set.
    let fd = check(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
    // SAFETY: new and ours.
    Ok(unsafe { File::from_raw_fd(fd) })
}
