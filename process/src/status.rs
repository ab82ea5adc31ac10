//! How does a wait status decode into "exited with" and "killed by", and which exit code follows from it?

/// The status word of `wait(2)`, as RFC 32 carries it in `status` and `wait_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct WaitStatus(pub i32);

impl WaitStatus {
    /// Exit with code 0.
    pub const SUCCESS: WaitStatus = WaitStatus(0);

    /// Returns the status of a process that exited with `code` (its low octet counts).
    pub const fn exited(code: i32) -> Self {
        WaitStatus((code & 0xff) << 8)
    }

    /// Returns the status of a process that signal `signal` killed.
    pub const fn signaled(signal: i32, core_dumped: bool) -> Self {
        WaitStatus((signal & 0x7f) | if core_dumped { 0x80 } else { 0 })
    }

    /// Returns the exit code when the process exited.
    pub const fn code(self) -> Option<i32> {
        if self.0 & 0x7f == 0 {
            Some((self.0 >> 8) & 0xff)
        } else {
            None
        }
    }

    /// Returns the signal when one killed the process.
    pub const fn signal(self) -> Option<i32> {
        let signal = self.0 & 0x7f;
        if signal != 0 && signal != 0x7f {
            Some(signal)
        } else {
            None
        }
    }

    /// Returns true when the process dumped core.
    pub const fn core_dumped(self) -> bool {
        self.signal().is_some() && self.0 & 0x80 != 0
    }

    /// Returns true for exit code 0.
    pub const fn success(self) -> bool {
        self.0 == 0
    }

    /// Returns the exit code as a POSIX shell shows it: the code, or 128 + signal.
    pub const fn exit_code(self) -> i32 {
        match (self.code(), self.signal()) {
            (Some(code), _) => code,
            (None, Some(signal)) => 128 + signal,
            (None, None) => 1,
        }
    }

    /// Returns the word that flux-core's exec eventlog uses for `state`: "Exited" (also after a signal).
    pub const fn state_name(self) -> &'static str {
        if self.0 & 0xff == 0x7f {
            "Stopped"
        } else {
            "Exited"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_exit_and_signal() {
        assert_eq!(WaitStatus(768).code(), Some(3));
        assert_eq!(WaitStatus(768).exit_code(), 3);
        assert_eq!(WaitStatus(15).signal(), Some(15));
        assert_eq!(WaitStatus(15).exit_code(), 143);
        assert_eq!(WaitStatus::exited(127), WaitStatus(32512));
        assert!(WaitStatus::signaled(11, true).core_dumped());
        assert_eq!(WaitStatus::signaled(11, true).signal(), Some(11));
        assert!(WaitStatus::SUCCESS.success());
        assert_eq!(WaitStatus(0x137f).code(), None);
        assert_eq!(WaitStatus(0x137f).signal(), None);
    }
}
