//! What do the caller's words ask for? Read by a process that has become its caller.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use super::serve::{self, Monitor, Wanted};
use crate::start::Caller;
use crate::sys::cred::{self, Ids};
use crate::wire::TEXT_MAX;

/// Most arguments; `flux-imp exec SHELL JOBID --reconnect` has four.
const ARGUMENTS_MAX: usize = 16;

/// Does what the words say, the monitor's part by asking it; returns the exit code.
///
/// # Errors
/// What to log.
pub fn run(caller: &Caller, monitor: Option<Monitor>) -> Result<i32, String> {
    let words = arguments()?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let wanted = match words.as_slice() {
        [] => return Err("command required".to_owned()),
        ["version"] => return print(&format!("flux-imp {}\n", env!("CARGO_PKG_VERSION"))),
        ["whoami"] => return whoami(caller),
        ["run", name] => Wanted::Run((*name).to_owned()),
        ["run", ..] => return Err("run: exactly one name is required".to_owned()),
        ["exec", rest @ ..] => exec_words(rest)?,
        [command, ..] => return Err(format!("Unknown IMP command: {command}")),
    };
    match monitor {
        Some(monitor) => Ok(serve::run(caller, wanted, monitor)),
        None if caller.users.effective == 0 => Err("Refusing to run as root".to_owned()),
        None => {
            let command = words.first().unwrap_or(&"");
            Err(format!(
                "{command}: IMP not installed setuid, operation disabled."
            ))
        }
    }
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

fn exec_words(words: &[&str]) -> Result<Wanted, String> {
    let reconnect = words.contains(&"--reconnect");
    let rest: Vec<&str> = words
        .iter()
        .copied()
        .filter(|word| *word != "--reconnect")
        .collect();
    match rest.as_slice() {
        [shell, jobid] => Ok(Wanted::Exec {
            shell: (*shell).to_owned(),
            jobid: (*jobid).to_owned(),
            reconnect,
        }),
        [] | [_] => Err("exec: missing arguments to exec subcommand".to_owned()),
        _ => Err("exec: too many arguments to exec subcommand".to_owned()),
    }
}

fn whoami(caller: &Caller) -> Result<i32, String> {
    let line = |who: &str, users: Ids, groups: Ids| {
        format!(
            "flux-imp: {who}: uid={} euid={} gid={} egid={}\n",
            users.real, users.effective, groups.real, groups.effective
        )
    };
    let now = cred::user_ids().and_then(|users| Ok((users, cred::group_ids()?)));
    let (users, groups) = now.map_err(|err| format!("cannot read ids: {err}"))?;
    let mut text = String::new();
    if users != caller.users {
        text += &line("privileged", caller.users, caller.groups);
    }
    print(&(text + &line("unprivileged", users, groups)))
}

fn print(text: &str) -> Result<i32, String> {
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map(|()| 0).map_err(|err| format!("cannot write: {err}"))
}
