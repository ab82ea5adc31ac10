//! Which resource limits apply, to the IMP itself and to the job?

use std::io;

use crate::sys::cred::{LIMIT_COUNT, Limit, UNLIMITED, limit, set_limit};

const CPU: u32 = libc::RLIMIT_CPU;
/// Limits that could end the IMP in the middle of its work, with the least that it needs and their names.
const NEEDED: [(u32, u64, &str); 6] = [
    (libc::RLIMIT_NOFILE, 32, "NOFILE"),
    (libc::RLIMIT_FSIZE, 1 << 20, "FSIZE"),
    (libc::RLIMIT_AS, 256 << 20, "AS"),
    (libc::RLIMIT_DATA, 64 << 20, "DATA"),
    (libc::RLIMIT_STACK, 1 << 20, "STACK"),
    (CPU, UNLIMITED, "CPU"),
];

/// All limits of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits([Limit; LIMIT_COUNT]);

/// The limits in the kernel's numbering, with their places in [`Limits`].
fn numbers() -> impl Iterator<Item = u32> {
    0..u32::try_from(LIMIT_COUNT).unwrap_or(0)
}

impl Limits {
    /// Returns this process's.
    ///
    /// # Errors
    /// What `getrlimit(2)` returns.
    pub fn current() -> io::Result<Self> {
        let nothing = Limit { soft: 0, hard: 0 };
        let mut limits = Limits([nothing; LIMIT_COUNT]);
        for (number, place) in numbers().zip(&mut limits.0) {
            *place = limit(number)?;
        }
        Ok(limits)
    }

    /// Goes back to these as far as this process may; used where less is no danger.
    pub fn restore(&self) {
        for (number, wanted) in numbers().zip(&self.0) {
            drop(set_limit(number, *wanted));
        }
    }

    /// Gives them to this process. Allocates nothing.
    ///
    /// # Errors
    /// What `setrlimit(2)` returns for a limit that the process does not have already.
    pub fn apply(&self) -> io::Result<()> {
        for (number, wanted) in numbers().zip(&self.0) {
            if limit(number)? != *wanted {
                set_limit(number, *wanted)?;
            }
        }
        Ok(())
    }
}

/// Makes room for the IMP's own work and forbids core files. Soft limits are raised to the hard ones, which every user may
/// do; hard ones are left alone, but for the CPU time of a monitor, which a caller could use up.
///
/// # Errors
/// What to log: the limit that is too low.
pub fn prepare() -> Result<(), String> {
    let failed = |name: &str, err: io::Error| format!("cannot set RLIMIT_{name}: {err}");
    let core = limit(libc::RLIMIT_CORE).map_err(|err| failed("CORE", err))?;
    let no_core = Limit { soft: 0, ..core };
    set_limit(libc::RLIMIT_CORE, no_core).map_err(|err| failed("CORE", err))?;
    for (number, least, name) in NEEDED {
        let now = limit(number).map_err(|err| failed(name, err))?;
        if now.hard < least {
            let wider = Limit {
                soft: least,
                hard: least,
            };
            set_limit(number, wider).map_err(|_| format!("RLIMIT_{name} ({}) is too low", now.hard))?;
        } else if now.soft < least {
            let wider = Limit {
                soft: least,
                hard: now.hard,
            };
            set_limit(number, wider).map_err(|err| failed(name, err))?;
        }
    }
    Ok(())
}
