//! How does a child become the job's user, and prove that it is nobody else any more?

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::cgroup::Cgroup;
use crate::limits::Limits;
use crate::refusal::Refusal;
use crate::resolve::User;
use crate::sys::process::{self, Pid, Words};
use crate::sys::{cred, signal};

/// What the child is to be. All of it is ready before the fork.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The program, opened and looked at.
    pub program: &'a File,
    /// Its path, when it may be a script. Only root can have put another file there since.
    pub path: Option<&'a CStr>,
    /// Its words.
    pub arguments: &'a [CString],
    /// `NAME=VALUE`
    pub environment: &'a [CString],
    /// Whose rights it has.
    pub identity: Identity<'a>,
    /// Its limits.
    pub limits: &'a Limits,
    /// Its control group.
    pub cgroup: Option<&'a Cgroup>,
    /// A socket that must belong to this user or to root.
    pub socket: Option<(&'a Path, u32)>,
}

/// Whose rights a child has.
#[derive(Clone, Copy, Debug)]
pub enum Identity<'a> {
    /// A job's user, never root.
    User(&'a User),
    /// Root, for a script of the administrator's.
    Root,
}

/// The last step; only there can the program be to blame.
const EXECUTE: &str = "execute the program";
/// Room for an error number and the words of a step.
const REPORT_MAX: u64 = 64;

/// A child on its way to its program.
#[derive(Debug)]
pub struct Started {
    /// The child.
    pub pid: Pid,
    /// Readable when it has come to its program or failed.
    pub report: PipeReader,
}

impl Started {
    /// Reads how it went; call it when `report` is readable.
    ///
    /// # Errors
    /// What to log, and the exit code that says so: 126 when the program may not be executed, 127 when it is not there,
    /// else 1.
    pub fn outcome(&self) -> Result<(), Refusal> {
        let mut text = Vec::new();
        let read = (&self.report).take(REPORT_MAX).read_to_end(&mut text);
        let (Ok(_), Some((errno, step))) = (read, text.split_first_chunk()) else {
            // The end without a word: the program was executed.
            return Ok(());
        };
        let (step, errno) = (String::from_utf8_lossy(step), i32::from_ne_bytes(*errno));
        let code = match errno {
            _ if step != EXECUTE => 1,
            libc::EACCES | libc::EPERM => 126,
            _ => 127,
        };
        let err = io::Error::from_raw_os_error(errno);
        let text = format!("the child cannot {step}: {err}");
        Err(Refusal { text, code })
    }
}

/// Starts the child.
///
/// # Errors
/// What to log.
pub fn launch(plan: &Plan<'_>) -> Result<Started, String> {
    let failed = |what: &'static str| move |err: io::Error| format!("cannot {what}: {err}");
    let arguments = Words::new(plan.arguments.iter().map(CString::as_c_str));
    let environment = Words::new(plan.environment.iter().map(CString::as_c_str));
    let mut room = match plan.identity {
        Identity::User(user) => vec![0; user.groups.len() + 1],
        Identity::Root => Vec::new(),
    };
    let (report, mut to_parent) = io::pipe().map_err(failed("make a pipe"))?;
    let parent = std::process::id();
    let forked = match plan.cgroup {
        Some(cgroup) => process::fork_into_cgroup(&cgroup.leaf),
        None => process::fork(),
    };
    let Some(pid) = forked.map_err(failed("fork"))? else {
        let Err((step, err)) = become_child(plan, &arguments, &environment, &mut room, parent);
        drop(to_parent.write_all(&err.raw_os_error().unwrap_or(0).to_ne_bytes()));
        drop(to_parent.write_all(step.as_bytes()));
        process::exit(127);
    };
    Ok(Started { pid, report })
}

/// Between fork and exec: system calls only, no memory is taken. Returns the step that failed, and why.
fn become_child(
    plan: &Plan<'_>,
    arguments: &Words<'_>,
    environment: &Words<'_>,
    room: &mut [u32],
    parent: u32,
) -> Result<Infallible, (&'static str, io::Error)> {
    let at = |step: &'static str| move |err: io::Error| (step, err);
    process::new_session().map_err(at("begin a session"))?;
    process::set_umask(0o022);
    plan.limits.apply().map_err(at("set limits"))?;
    process::new_keyring().map_err(at("join a new keyring"))?;
    match plan.identity {
        Identity::User(user) => {
            cred::set_groups(&user.groups).map_err(at("set groups"))?;
            cred::become_user(user.uid, user.gid).map_err(at("become the user"))?;
            cred::groups_are(&user.groups, room).map_err(at("prove its groups"))?;
        }
        Identity::Root => cred::become_root().map_err(at("become root"))?,
    }
    process::die_with(parent).map_err(at("ask to die with its parent"))?;
    std::env::set_current_dir("/").map_err(at("change to /"))?;
    if let Some((path, owner)) = plan.socket {
        // The path is short, so it is copied to the stack.
        let found = std::fs::metadata(path).map_err(at("find the broker's socket"))?;
        if !found.file_type().is_socket() || (found.uid() != owner && found.uid() != 0) {
            let denied = io::Error::from_raw_os_error(libc::EPERM);
            return Err(("trust the broker's socket", denied));
        }
    }
    signal::default_all();
    signal::unblock_all().map_err(at("unblock signals"))?;
    let err = process::exec(plan.program, plan.path, arguments, environment);
    Err((EXECUTE, err))
}
