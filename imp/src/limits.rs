//! Which resource limits apply, to the IMP itself and to the job?

use std::io;

use crate::sys::cred::{LIMIT_COUNT, Limit, UNLIMITED, limit, set_limit};

/// Limits that could end the IMP in the middle of its work, with the least that it needs and their names.
const NEEDED: [(u32, u64, &str); 6] = [
    (libc::RLIMIT_NOFILE, 32, "NOFILE"),
    (libc::RLIMIT_FSIZE, 1 << 20, "FSIZE"),
    (libc::RLIMIT_AS, 256 << 20, "AS"),
    (libc::RLIMIT_DATA, 64 << 20, "DATA"),
    (libc::RLIMIT_STACK, 1 << 20, "STACK"),
    (libc::RLIMIT_CPU, UNLIMITED, "CPU"),
];

/// All limits of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits(Vec<Limit>);

impl Limits {
    /// Returns this process's.
    ///
    /// # Errors
    /// What `getrlimit(2)` returns.
    pub fn current() -> io::Result<Self> {
        (0..LIMIT_COUNT).map(limit).collect::<Result<_, _>>().map(Limits)
    }

    /// Goes back to these as far as this process may; used where less is no danger.
    pub fn restore(&self) {
        for (number, wanted) in (0..).zip(&self.0) {
            drop(set_limit(number, *wanted));
        }
    }

    /// Gives them to this process. Allocates nothing.
    ///
    /// # Errors
    /// What `setrlimit(2)` returns for a limit that the process does not have already.
    pub fn apply(&self) -> io::Result<()> {
        for (number, wanted) in (0..).zip(&self.0) {
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
    let mut core = limit(libc::RLIMIT_CORE).map_err(|err| failed("CORE", err))?;
    core.rlim_cur = 0;
    set_limit(libc::RLIMIT_CORE, core).map_err(|err| failed("CORE", err))?;
    for (number, least, name) in NEEDED {
        let mut limit = limit(number).map_err(|err| failed(name, err))?;
        let hard = limit.rlim_max;
        if limit.rlim_cur < least {
            limit.rlim_cur = least;
            limit.rlim_max = hard.max(least);
            set_limit(number, limit).map_err(|err| format!("RLIMIT_{name} ({hard}) is too low: {err}"))?;
        }
    }
    Ok(())
}
