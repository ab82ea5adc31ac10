//! With what does a setuid program begin? With nothing that its caller chose, but for what is kept as data in [`Caller`].

use std::ffi::OsString;
use std::io;

use crate::limits::{self, Limits};
use crate::refusal::demand;
use crate::sys::cred::{self, Ids};
use crate::sys::{fd, process, signal};

/// What takes privilege.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// `exec`: a job's shell as the job's user.
    Exec,
    /// `run`: a script of the administrator's as root.
    Run,
}

/// Who called, and what they gave: nothing here has an effect by itself.
#[derive(Debug)]
pub struct Caller {
    /// User ids as they were.
    pub users: Ids,
    /// Group ids as they were.
    pub groups: Ids,
    /// What is to be done with privilege: nothing when there is none, or when root itself called.
    pub task: Option<Task>,
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
    let failed = |what: &'static str| move |err: io::Error| format!("cannot {what}: {err}");
    // Nothing interrupts from here on; what is pending stays pending.
    signal::block_all().map_err(failed("block signals"))?;
    signal::stop_timers().map_err(failed("stop timers"))?;
    signal::default_all();
    // The standard library has opened /dev/null where one of these was closed.
    if let Some(number) = (0..=2).find(|number| !fd::is_open(*number)) {
        return Err(format!("descriptor {number} is not open"));
    }
    fd::close_from(3).map_err(failed("close descriptors"))?;
    process::set_umask(0o077);
    process::set_undumpable().map_err(failed("forbid core files"))?;
    std::env::set_current_dir("/").map_err(failed("change to /"))?;
    let environment = std::env::vars_os().collect();
    process::clear_environment().map_err(failed("clear the environment"))?;
    let limits = Limits::current().map_err(failed("read limits"))?;
    limits::prepare()?;
    let bits = process::secure_bits().map_err(failed("read secure bits"))?;
    demand(
        bits == 0,
        "secure bits are set: a switch of users would not be one",
    )?;
    let users = cred::user_ids().map_err(failed("read user ids"))?;
    let task = match std::env::args_os().nth(1) {
        _ if users.effective != 0 || users.real == 0 => None,
        Some(word) if word == "exec" => Some(Task::Exec),
        Some(word) if word == "run" => Some(Task::Run),
        _ => None,
    };
    Ok(Caller {
        users,
        groups: cred::group_ids().map_err(failed("read group ids"))?,
        task,
        environment,
        limits,
    })
}

/// Becomes the caller for good, unless this process is nobody else anyway.
///
/// # Errors
/// What a system call returned; the process must end then.
pub fn become_caller() -> io::Result<()> {
    let (users, groups) = (cred::user_ids()?, cred::group_ids()?);
    if users.real == 0 || users.effective != 0 {
        return Ok(());
    }
    cred::become_user(users.real, groups.real)?;
    process::set_undumpable()
}
