//! With what does a setuid program begin? With nothing that its caller chose, but for what is kept as data in [`Caller`].

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use crate::limits::{self, Limits};
use crate::sys::{cred, fd, process, signal};
use crate::wire::TEXT_MAX;

/// Most arguments; `flux-imp exec SHELL JOBID --reconnect` has four.
const ARGUMENTS_MAX: usize = 16;

/// Who called, and what they gave: nothing here has an effect by itself.
#[derive(Debug)]
pub struct Caller {
    /// Real user.
    pub uid: u32,
    /// Real group.
    pub gid: u32,
    /// Whether the program is setuid root.
    pub privileged: bool,
    /// Arguments without the program's name.
    pub arguments: Vec<String>,
    /// Environment as it was.
    pub environment: Vec<(OsString, OsString)>,
    /// Limits as they were; they become the job's unless PAM says otherwise.
    pub limits: Limits,
}

/// Cleans everything that a caller can leave to a program it executes, before anything else is done.
///
/// # Errors
/// What to log.
pub fn clean() -> Result<Caller, String> {
    let failed = |what: &'static str| move |err: std::io::Error| format!("cannot {what}: {err}");
    // Nothing interrupts from here on; what is pending stays pending.
    signal::block_all().map_err(failed("block signals"))?;
    signal::stop_timers().map_err(failed("stop timers"))?;
    signal::default_all();
    // The standard library has opened /dev/null where one of these was closed.
    for number in 0..=2 {
        if !fd::is_open(number) {
            return Err(format!("descriptor {number} is not open"));
        }
    }
    fd::close_from(3).map_err(failed("close descriptors"))?;
    process::set_umask(0o077);
    process::set_undumpable().map_err(failed("forbid core files"))?;
    process::chdir(c"/").map_err(failed("change to /"))?;
    let environment = std::env::vars_os().collect();
    process::clear_environment().map_err(failed("clear the environment"))?;
    let limits = Limits::current().map_err(failed("read limits"))?;
    limits::prepare()?;
    if process::secure_bits().map_err(failed("read secure bits"))? != 0 {
        return Err("secure bits are set: a switch of users would not be one".to_owned());
    }
    let users = cred::user_ids().map_err(failed("read user ids"))?;
    let groups = cred::group_ids().map_err(failed("read group ids"))?;
    Ok(Caller {
        uid: users.real,
        gid: groups.real,
        privileged: users.effective == 0,
        arguments: arguments()?,
        environment,
        limits,
    })
}

fn arguments() -> Result<Vec<String>, String> {
    let given = std::env::args_os().skip(1).take(ARGUMENTS_MAX + 1);
    let arguments: Option<Vec<String>> = given
        .map(|word| {
            let short = word.as_bytes().len() <= TEXT_MAX;
            word.into_string().ok().filter(|_| short)
        })
        .collect();
    match arguments {
        Some(list) if list.len() <= ARGUMENTS_MAX => Ok(list),
        _ => Err(format!(
            "arguments must be at most {ARGUMENTS_MAX}, UTF-8, and shorter than {TEXT_MAX} bytes"
        )),
    }
}
