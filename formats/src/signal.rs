//! Which number has a signal of this name? (Linux numbers; names as `flux cancel`, `flux job kill` and configuration use them.)

/// Names without `SIG`; the first entry of a number is its preferred name.
const NAMES: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];
/// Highest signal number.
const SIGNAL_MAX: i32 = 64;

/// Returns the number of a signal given as `SIGTERM`, `TERM` (any case) or `15`; `None` when there is none.
pub fn number(text: &str) -> Option<i32> {
    if text.bytes().all(|c| c.is_ascii_digit()) {
        return text
            .parse()
            .ok()
            .filter(|signal| (1..=SIGNAL_MAX).contains(signal));
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES
        .iter()
        .find(|(name, _)| *name == bare)
        .map(|&(_, signal)| signal)
}

/// Returns `SIGTERM` for 15, or `Signal 40` for numbers without a name.
pub fn name(signal: i32) -> String {
    match NAMES.iter().find(|&&(_, known)| known == signal) {
        Some((name, _)) => format!("SIG{name}"),
        None => format!("Signal {signal}"),
    }
}

/// Returns the C library's words for a signal; `None` for numbers without any.
pub fn text(signal: i32) -> Option<&'static str> {
    const TEXTS: [&str; 31] = [
        "Hangup",
        "Interrupt",
        "Quit",
        "Illegal instruction",
        "Trace/breakpoint trap",
        "Aborted",
        "Bus error",
        "Floating point exception",
        "Killed",
        "User defined signal 1",
        "Segmentation fault",
        "User defined signal 2",
        "Broken pipe",
        "Alarm clock",
        "Terminated",
        "Stack fault",
        "Child exited",
        "Continued",
        "Stopped (signal)",
        "Stopped",
        "Stopped (tty input)",
        "Stopped (tty output)",
        "Urgent I/O condition",
        "CPU time limit exceeded",
        "File size limit exceeded",
        "Virtual timer expired",
        "Profiling timer expired",
        "Window changed",
        "I/O possible",
        "Power failure",
        "Bad system call",
    ];
    TEXTS.get(usize::try_from(signal - 1).ok()?).copied()
}

/// Returns the words for a signal, or `Unknown signal 40`, as strsignal(3).
pub fn text_or_number(signal: i32) -> String {
    text(signal).map_or_else(|| format!("Unknown signal {signal}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(number("SIGTERM"), Some(15));
        assert_eq!(number("usr1"), Some(10));
        assert_eq!(number("9"), Some(9));
        for bad in ["", "0", "65", "SIG", "NOPE", "-9", "99999999999"] {
            assert_eq!(number(bad), None, "{bad}");
        }
        assert_eq!(name(15), "SIGTERM");
        assert_eq!(name(6), "SIGABRT");
        assert_eq!(name(40), "Signal 40");
        assert_eq!(
            (text(15), text(1), text(31)),
            (Some("Terminated"), Some("Hangup"), Some("Bad system call"))
        );
        assert_eq!((text(0), text(32), text(-1)), (None, None, None));
        for signal in 1..=31 {
            assert_eq!(number(&name(signal)), Some(signal));
        }
    }
}
