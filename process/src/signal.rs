//! Which signals are there, by number and name, and how are they received as a descriptor?

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::str::FromStr;

use crate::sys;

/// A signal number from 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(i32);

macro_rules! signals {
    ($($name:ident = $text:literal;)*) => {
        impl Signal {
            $(#[doc = $text] pub const $name: Signal = Signal(libc::$name);)*
        }

        const NAMES: &[(&str, i32)] = &[$((stringify!($name), libc::$name),)*];
    };
}

signals! {
    SIGHUP = "Hangup."; SIGINT = "Interrupt."; SIGQUIT = "Quit."; SIGILL = "Illegal instruction.";
    SIGTRAP = "Trap."; SIGABRT = "Abort."; SIGBUS = "Bus error."; SIGFPE = "Arithmetic error.";
    SIGKILL = "Kill."; SIGUSR1 = "User signal 1."; SIGSEGV = "Segmentation fault.";
    SIGUSR2 = "User signal 2."; SIGPIPE = "Broken pipe."; SIGALRM = "Alarm clock.";
    SIGTERM = "Terminate."; SIGSTKFLT = "Stack fault."; SIGCHLD = "Child ended."; SIGCONT = "Continue.";
    SIGSTOP = "Stop."; SIGTSTP = "Stop from the terminal."; SIGTTIN = "Background read.";
    SIGTTOU = "Background write."; SIGURG = "Urgent data."; SIGXCPU = "CPU limit."; SIGXFSZ = "File size limit.";
    SIGVTALRM = "Virtual timer."; SIGPROF = "Profiling timer."; SIGWINCH = "Window size."; SIGIO = "I/O possible.";
    SIGPWR = "Power failure."; SIGSYS = "Bad system call.";
}

impl Signal {
    /// Returns the signal with this number, or `None` outside 1..=64.
    pub const fn new(number: i32) -> Option<Self> {
        if number >= 1 && number <= 64 {
            Some(Signal(number))
        } else {
            None
        }
    }

    /// Returns the number.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Returns the name, such as "SIGTERM", or `None` for a real-time signal.
    pub fn name(self) -> Option<&'static str> {
        NAMES
            .iter()
            .find(|(_, number)| *number == self.0)
            .map(|(name, _)| *name)
    }
}

/// The text is neither a signal's name (with or without "SIG") nor a number from 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid signal")]
pub struct ParseSignalError;

impl FromStr for Signal {
    type Err = ParseSignalError;

    /// Parses "15", "TERM", "SIGTERM" (any case).
    fn from_str(text: &str) -> Result<Self, ParseSignalError> {
        if let Ok(number) = text.parse() {
            return Signal::new(number).ok_or(ParseSignalError);
        }
        let upper = text.to_ascii_uppercase();
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        NAMES
            .iter()
            .find(|(name, _)| name.strip_prefix("SIG") == Some(bare))
            .map(|(_, number)| Signal(*number))
            .ok_or(ParseSignalError)
    }
}

/// Sends a signal to every process of the group `pgid`.
///
/// # Errors
/// ESRCH when the group is empty, EPERM.
pub fn kill_group(pgid: u32, signal: Signal) -> io::Result<()> {
    let pgid = i32::try_from(pgid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // 0 and 1 would mean "my own group" and "everybody".
    if pgid <= 1 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    sys::process::kill(-pgid, signal.number())
}

/// Signals blocked in this thread and delivered through a pollable descriptor instead.
///
/// Children of [`crate::Command`] start with an empty mask, so nothing of this is inherited.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks `signals` in the calling thread and opens the descriptor.
    ///
    /// # Errors
    /// EMFILE, ENFILE.
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        let numbers: Vec<i32> = signals.iter().map(|signal| signal.0).collect();
        sys::signal::signalfd(&numbers).map(SignalFd)
    }

    /// Returns the next pending signal, or `None` when there is none.
    ///
    /// # Errors
    /// Whatever reading the descriptor gives but EAGAIN.
    pub fn next_signal(&self) -> io::Result<Option<Signal>> {
        Ok(sys::signal::read_signalfd(self.0.as_fd())?.and_then(Signal::new))
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_parse() {
        assert_eq!("SIGTERM".parse(), Ok(Signal::SIGTERM));
        assert_eq!("usr1".parse(), Ok(Signal::SIGUSR1));
        assert_eq!("9".parse(), Ok(Signal::SIGKILL));
        assert_eq!("0".parse::<Signal>(), Err(ParseSignalError));
        assert_eq!("65".parse::<Signal>(), Err(ParseSignalError));
        assert_eq!("SIGNOPE".parse::<Signal>(), Err(ParseSignalError));
        assert_eq!(Signal::SIGWINCH.name(), Some("SIGWINCH"));
        assert_eq!(Signal::new(40).and_then(Signal::name), None);
    }

    #[test]
    fn a_group_signal_never_reaches_everybody() {
        assert_eq!(
            kill_group(0, Signal::SIGTERM).unwrap_err().raw_os_error(),
            Some(libc::EINVAL)
        );
        assert_eq!(
            kill_group(1, Signal::SIGTERM).unwrap_err().raw_os_error(),
            Some(libc::EINVAL)
        );
    }
}
