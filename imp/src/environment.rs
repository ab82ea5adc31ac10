//! What environment does a shell get? A few variables whose values have been looked at, and nothing else.

use std::ffi::CString;
use std::path::PathBuf;

use crate::config::Config;
use crate::resolve::User;
use crate::sys::matches;
use crate::wire::{self, VARIABLES};

/// Where a guest's shell looks for programs.
const PATH_EXEC: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";
/// Where an administrator's script looks for programs.
const PATH_RUN: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Longest path of a UNIX socket.
const SOCKET_MAX: usize = 107;
/// Beginnings of names that make a loader or an interpreter run code.
const LOADERS: &str = "LD_ BASH GLIBC_ MALLOC_ PYTHON PERL RUBY";
/// Names that make a shell or the C library do so.
const SHELLS: &str = "ENV SHELLOPTS IFS PS4 GCONV_PATH NLSPATH LOCPATH";
/// Longest name of a variable.
const NAME_MAX: usize = 128;

/// Returns `NAME=VALUE` of a job's shell, and the path of the broker's socket, if the caller named one.
///
/// # Errors
/// What to log.
pub fn of_shell(user: &User, given: &[Option<String>; 4]) -> Result<(Vec<CString>, Option<PathBuf>), String> {
    let mut list = vec![
        ("PATH", PATH_EXEC),
        ("HOME", &user.home),
        ("USER", &user.name),
        ("LOGNAME", &user.name),
        ("SHELL", &user.shell),
    ];
    let mut socket = None;
    for (name, value) in VARIABLES.iter().zip(given) {
        let Some(value) = value else { continue };
        match *name {
            "FLUX_URI" => {
                let path = value.strip_prefix("local://").filter(|path| is_socket_path(path));
                let path = path.ok_or("FLUX_URI must be local:// and an absolute path")?;
                socket = Some(PathBuf::from(path));
            }
            "FLUX_KVS_NAMESPACE" if !is_word(value, "-_.") => {
                return Err("FLUX_KVS_NAMESPACE must be a word".to_owned());
            }
            // A file name could lead anywhere (CVE-2014-9680), so these are words or not there.
            "TZ" if !is_word(value, "-_+/,.") || value.starts_with('/') || value.contains("..") => continue,
            "LANG" if !is_word(value, "-_.@") => continue,
            _ => {}
        }
        list.push((name, value));
    }
    Ok((strings(list)?, socket))
}

fn strings(list: Vec<(&str, &str)>) -> Result<Vec<CString>, String> {
    let list = list.into_iter();
    let list = list.map(|(name, value)| CString::new(format!("{name}={value}")));
    list.collect::<Result<_, _>>()
        .map_err(|_| "a variable with NUL".to_owned())
}

/// Returns the environment of the script `[run.NAME]`; variables that are not allowed are left out.
///
/// # Errors
/// What to log.
pub fn of_run(config: &Config, run: &wire::Run, owner: u32) -> Result<Vec<CString>, String> {
    let list = format!("run.{}.environment", run.name);
    let patterns: Vec<&str> = config.list(&list).chain(ALWAYS).collect();
    let allowed = |name: &str| {
        let fixed = ["FLUX_OWNER_USERID", "HOME", "USER", "PATH"].contains(&name);
        is_name(name) && !fixed && patterns.iter().any(|pattern| matches(pattern, name))
    };
    let owner = owner.to_string();
    let given = run.variables.iter();
    let given = given.map(|(name, value)| (name.as_str(), value.as_str()));
    let mut list: Vec<_> = given.filter(|(name, _)| allowed(name)).collect();
    list.extend([
        ("FLUX_OWNER_USERID", owner.as_str()),
        ("HOME", "/root"),
        ("USER", "root"),
        ("PATH", PATH_RUN),
    ]);
    strings(list)
}

/// Variables that every script gets when the caller has them.
pub const ALWAYS: [&str; 2] = ["FLUX_JOB_ID", "FLUX_JOB_USERID"];

/// Returns true for a name that a variable may have here. Those that make the loader or a shell run code never pass,
/// whatever the configuration's patterns say.
pub fn is_name(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && (1..=NAME_MAX).contains(&name.len())
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !LOADERS.split(' ').any(|prefix| name.starts_with(prefix))
        && !SHELLS.split(' ').any(|word| name == word)
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
