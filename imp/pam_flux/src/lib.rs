//! Who may log in to this node? With `account sufficient pam_flux.so`: whoever has a job that runs here.
//!
//! A job runs here when a process of the user is the child of a monitor of flux-imp: a process of root's whose program is
//! `PREFIX/libexec/flux/flux-imp` (or the path that the option `imp=PATH` names). Only the monitor starts processes as somebody
//! else, and only after it has verified that user's request, so no user can pretend to have a job. No broker is asked: a node
//! whose broker is being restarted keeps its users.
//!
//! Answers: `PAM_SUCCESS`; `PAM_PERM_DENIED` without a job; `PAM_USER_UNKNOWN`; `PAM_SYSTEM_ERR` when `/proc` cannot be read, or
//! after a panic. The calling program must be root, as programs that log users in are.

pub mod sys;

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// The module's answer, in libpam's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The user may log in.
    Success,
    /// Something does not work.
    SystemError,
    /// The user has no job here.
    Denied,
    /// There is no such user.
    UserUnknown,
}

impl Answer {
    /// Returns the value of `pam_sm_acct_mgmt`.
    pub fn code(self) -> i32 {
        match self {
            Answer::Success => 0,
            Answer::SystemError => 4,
            Answer::Denied => 6,
            Answer::UserUnknown => 10,
        }
    }
}

/// Where flux-imp is installed.
const IMP: &str = match option_env!("FLUX_PREFIX") {
    Some(prefix) => prefix,
    None => "/usr/local",
};

/// Runs a body that must not unwind into C.
fn guard(body: impl FnOnce() -> Answer) -> i32 {
    catch_unwind(AssertUnwindSafe(body))
        .unwrap_or(Answer::SystemError)
        .code()
}

/// Decides for a user id (none for an unknown user), with the module's words.
fn decide(uid: Option<u32>, words: &[String]) -> Answer {
    let Some(uid) = uid else {
        return Answer::UserUnknown;
    };
    let named = words.iter().find_map(|word| word.strip_prefix("imp="));
    let imp = named.map_or_else(|| Path::new(IMP).join("libexec/flux/flux-imp"), PathBuf::from);
    match has_job(Path::new("/proc"), uid, &imp) {
        Ok(true) => Answer::Success,
        Ok(false) => Answer::Denied,
        Err(_) => Answer::SystemError,
    }
}

/// Tells whether a process of `uid` is a child of a monitor.
fn has_job(proc: &Path, uid: u32, imp: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(proc)? {
        let path = entry?.path();
        // Processes come and go: one that cannot be read is none.
        let Some((ids, parent)) = status(&path) else {
            continue;
        };
        if ids.iter().all(|id| *id == uid) && is_monitor(&proc.join(parent.to_string()), imp) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_monitor(process: &Path, imp: &Path) -> bool {
    let root = status(process).is_some_and(|(ids, _)| ids.iter().all(|id| *id == 0));
    root && fs::read_link(process.join("exe")).is_ok_and(|program| program == imp)
}

/// Returns the four user ids of a process and its parent.
fn status(process: &Path) -> Option<([u32; 4], u32)> {
    let text = fs::read(process.join("status")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let ids: Vec<u32> = field("Uid:")?
        .split_whitespace()
        .filter_map(|id| id.parse().ok())
        .collect();
    Some((ids.try_into().ok()?, field("PPid:")?.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_system_error() {
        assert_eq!(guard(|| panic!("on purpose")), 4);
        assert_eq!(guard(|| Answer::Success), 0);
    }

    #[test]
    fn unknown_users_and_users_without_a_job() {
        assert_eq!(decide(None, &[]), Answer::UserUnknown);
        assert_eq!(decide(Some(2_000_000_000), &[]), Answer::Denied);
        assert_eq!(has_job(Path::new("/nothing"), 1, Path::new("/x")).ok(), None);
    }
}
