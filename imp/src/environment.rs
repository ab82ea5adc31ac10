//! What environment does a shell get? A few variables whose values have been looked at, and nothing else.

use std::ffi::CString;

use crate::config;
use crate::resolve::User;
use crate::wire::{self, VARIABLES};

/// Where a guest's shell looks for programs.
const PATH_EXEC: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";
/// Where an administrator's script looks for programs.
const PATH_RUN: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Longest path of a UNIX socket.
const SOCKET_MAX: usize = 107;
/// Longest name of a variable.
const NAME_MAX: usize = 128;

/// A shell's environment, and the socket that it is to use.
#[derive(Debug)]
pub struct Environment {
    /// `NAME=VALUE`
    pub variables: Vec<CString>,
    /// Path of the broker's socket, if the caller named one.
    pub socket: Option<CString>,
}

/// Returns the environment of a job's shell.
///
/// # Errors
/// What to log.
pub fn of_shell(user: &User, given: &[Option<String>; 4]) -> Result<Environment, String> {
    let mut list = vec![("PATH", PATH_EXEC)];
    list.extend([
        ("HOME", user.home.as_str()),
        ("USER", &user.name),
        ("LOGNAME", &user.name),
        ("SHELL", &user.shell),
    ]);
    let mut socket = None;
    for (name, value) in VARIABLES.iter().zip(given) {
        let Some(value) = value else { continue };
        match *name {
            "FLUX_URI" => {
                let path = value.strip_prefix("local://").filter(|path| is_socket_path(path));
                let path = path.ok_or("exec: FLUX_URI must be local:// and an absolute path")?;
                socket = Some(CString::new(path).map_err(|_| "exec: FLUX_URI has a NUL in it".to_owned())?);
            }
            "FLUX_KVS_NAMESPACE" if !is_word(value, "-_.") => {
                return Err("exec: FLUX_KVS_NAMESPACE must be a word".to_owned());
            }
            // A file name could lead anywhere (CVE-2014-9680), so these are words or not there.
            "TZ" if !is_word(value, "-_+/,.") || value.starts_with('/') || value.contains("..") => continue,
            "LANG" if !is_word(value, "-_.@") => continue,
            _ => {}
        }
        list.push((name, value));
    }
    let variables = list
        .into_iter()
        .map(|(name, value)| CString::new(format!("{name}={value}")));
    let variables = variables
        .collect::<Result<_, _>>()
        .map_err(|_| "exec: a variable with NUL".to_owned())?;
    Ok(Environment { variables, socket })
}

/// Returns the environment of a script; variables that are not allowed are left out.
///
/// # Errors
/// What to log.
pub fn of_run(run: &config::Run, given: &[(String, String)], owner: u32) -> Result<Vec<CString>, String> {
    let allowed = |name: &str| {
        let patterns = run.allowed_environment.iter().map(String::as_str);
        let fixed = ["FLUX_OWNER_USERID", "HOME", "USER", "PATH"].contains(&name);
        is_name(name)
            && !fixed
            && patterns
                .chain(ALWAYS)
                .any(|pattern| config::matches(pattern, name))
    };
    let mut list: Vec<String> = given
        .iter()
        .filter(|(name, _)| allowed(name))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    list.push(format!("FLUX_OWNER_USERID={owner}"));
    list.extend([
        "HOME=/root".to_owned(),
        "USER=root".to_owned(),
        format!("PATH={PATH_RUN}"),
    ]);
    let list = list.into_iter().map(CString::new);
    list.collect::<Result<_, _>>()
        .map_err(|_| "run: a variable with NUL".to_owned())
}

/// Variables that every script gets when the caller has them.
pub const ALWAYS: [&str; 2] = ["FLUX_JOB_ID", "FLUX_JOB_USERID"];

/// Returns true for a name that a variable may have here. Those that make the loader or a shell run code never pass,
/// whatever the configuration's patterns say.
pub fn is_name(name: &str) -> bool {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let dangerous = ["LD_", "BASH", "GLIBC_", "MALLOC_", "PYTHON", "PERL", "RUBY"];
    plain
        && (1..=NAME_MAX).contains(&name.len())
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !dangerous.iter().any(|prefix| name.starts_with(prefix))
        && ![
            "ENV",
            "SHELLOPTS",
            "IFS",
            "PS4",
            "GCONV_PATH",
            "NLSPATH",
            "LOCPATH",
        ]
        .contains(&name)
}

fn is_word(text: &str, more: &str) -> bool {
    (1..=wire::TEXT_MAX).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

fn is_socket_path(path: &str) -> bool {
    path.starts_with('/')
        && path.len() <= SOCKET_MAX
        && path.chars().all(|c| c.is_ascii_graphic())
        && !path.split('/').any(|name| name == "..")
}

#[cfg(test)]
#[path = "environment_tests.rs"]
mod tests;
