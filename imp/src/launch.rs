//! How does a child become the job's user, and prove that it is nobody else any more?

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use crate::cgroup::Cgroup;
use crate::limits::Limits;
use crate::sys::fd::{pipe, stat, write};
use crate::sys::process::{self, Pid, Words};
use crate::sys::{cred, signal};

/// What the child is to be. All of it is ready before the fork.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The program, opened and looked at.
    pub program: &'a OwnedFd,
    /// Its path, when it may be a script. Only root can have put another file there since.
    pub path: Option<&'a CStr>,
    /// Its words.
    pub arguments: &'a [CString],
    /// `NAME=VALUE`
    pub environment: &'a [CString],
    /// Whose rights it has.
    pub identity: Identity<'a>,
    /// Its limits.
    pub limits: Limits,
    /// Its control group.
    pub cgroup: Option<&'a Cgroup>,
    /// A socket that must belong to this user or to root.
    pub socket: Option<(&'a CStr, u32)>,
}

/// User, group, and supplementary groups.
#[derive(Clone, Copy, Debug)]
pub enum Identity<'a> {
    /// A job's user, never root.
    User {
        /// User.
        uid: u32,
        /// Primary group.
        gid: u32,
        /// All groups.
        groups: &'a [u32],
    },
    /// Root, for a script of the administrator's.
    Root,
}

/// What the child was doing when it failed; its place in the list is what the child writes.
const STEPS: [&str; 14] = [
    "begin a session",
    "set limits",
    "join a new keyring",
    "set groups",
    "set the group id",
    "set the user id",
    "give up capabilities",
    "prove that privilege is gone",
    "ask to die with its parent",
    "change to /",
    "find the broker's socket",
    "trust the broker's socket",
    "unblock signals",
    "execute the program",
];

/// A child on its way to its program.
#[derive(Debug)]
pub struct Started {
    /// The child.
    pub pid: Pid,
    /// Readable when it has come to its program or failed.
    pub report: OwnedFd,
}

impl Started {
    /// Reads how it went; call it when `report` is readable.
    ///
    /// # Errors
    /// What to log, and the exit code that says so: 126 when the program may not be executed, 127 when it is not there,
    /// else 1.
    pub fn outcome(&self) -> Result<(), (String, i32)> {
        let mut text = [0; 5];
        let mut report = self.report.try_clone().map(File::from);
        let read = report.as_mut().map(|file| file.read_exact(&mut text));
        if !matches!(read, Ok(Ok(()))) {
            // The end without a word: the program was executed.
            return Ok(());
        }
        let [step, errno @ ..] = text;
        let (step, errno) = (usize::from(step), i32::from_ne_bytes(errno));
        let exit = match errno {
            _ if step + 1 != STEPS.len() => 1,
            libc::EACCES | libc::EPERM => 126,
            _ => 127,
        };
        let err = io::Error::from_raw_os_error(errno);
        let step = STEPS.get(step).unwrap_or(&"start");
        Err((format!("the child cannot {step}: {err}"), exit))
    }
}

/// Starts the child.
///
/// # Errors
/// What to log.
pub fn launch(plan: &Plan<'_>) -> Result<Started, String> {
    let failed = |what: &str, err: io::Error| format!("cannot {what}: {err}");
    let arguments = Words::new(plan.arguments.iter().map(CString::as_c_str));
    let environment = Words::new(plan.environment.iter().map(CString::as_c_str));
    let groups = match plan.identity {
        Identity::User { groups, .. } => groups.len(),
        Identity::Root => 0,
    };
    let mut room = vec![0; groups + 1];
    let (report, to_parent) = pipe().map_err(|err| failed("make a pipe", err))?;
    let parent = process::own_pid();
    let forked = match plan.cgroup {
        Some(cgroup) => process::fork_into_cgroup(cgroup.fd()),
        None => process::fork(),
    };
    let Some(pid) = forked.map_err(|err| failed("fork", err))? else {
        let (step, err) = become_child(plan, &arguments, &environment, &mut room, parent);
        let [a, b, c, d] = err.raw_os_error().unwrap_or(0).to_ne_bytes();
        write(to_parent.as_fd(), &[step, a, b, c, d]);
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
    parent: i32,
) -> (u8, io::Error) {
    let denied = || io::Error::from_raw_os_error(libc::EPERM);
    let mut steps = || -> Result<std::convert::Infallible, (u8, io::Error)> {
        let at = |step: u8| move |err: io::Error| (step, err);
        process::new_session().map_err(at(0))?;
        process::set_umask(0o022);
        plan.limits.apply().map_err(at(1))?;
        process::new_keyring().map_err(at(2))?;
        match plan.identity {
            Identity::User { uid, gid, groups } => {
                cred::set_groups(groups).map_err(at(3))?;
                cred::set_group(gid).map_err(at(4))?;
                cred::set_user(uid).map_err(at(5))?;
                cred::clear_capabilities().map_err(at(6))?;
                if !cred::no_way_back(uid, gid) || !cred::groups_are(groups, room) {
                    return Err((7, denied()));
                }
            }
            Identity::Root => {
                cred::set_groups(&[]).map_err(at(3))?;
                cred::set_group(0).map_err(at(4))?;
                cred::set_user(0).map_err(at(5))?;
            }
        }
        process::die_with(parent).map_err(at(8))?;
        process::chdir(c"/").map_err(at(9))?;
        if let Some((path, owner)) = plan.socket {
            let found = stat(path).map_err(at(10))?;
            if !found.is(libc::S_IFSOCK) || (found.uid != owner && found.uid != 0) {
                return Err((11, denied()));
            }
        }
        signal::default_all();
        signal::unblock_all().map_err(at(12))?;
        Err((
            13,
            process::exec(plan.program.as_fd(), plan.path, arguments, environment),
        ))
    };
    match steps() {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}
