//! `flux-imp exec SHELL JOBID | run NAME | whoami | version`

#![forbid(unsafe_code)]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use flux_imp::log::{Level, to_stderr};
use flux_imp::relay::{self, Wanted};
use flux_imp::start::{Caller, clean};
use flux_imp::sys::arena::Arena;
use flux_imp::sys::process;
use flux_imp::{monitor, sys};

#[global_allocator]
static ALLOCATOR: Arena = Arena;

fn main() -> ExitCode {
    let result = clean().and_then(|caller| dispatch(&caller));
    let code = result.unwrap_or_else(|why| {
        to_stderr(Level::Fatal, &why);
        1
    });
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1))
}

fn dispatch(caller: &Caller) -> Result<i32, String> {
    let words: Vec<&str> = caller.arguments.iter().map(String::as_str).collect();
    let wanted = match words.as_slice() {
        [] => return Err("command required".to_owned()),
        ["version"] => return print(caller, &format!("flux-imp {}\n", env!("CARGO_PKG_VERSION"))),
        ["whoami"] => return whoami(caller),
        ["run", name] => Wanted::Run((*name).to_owned()),
        ["run", ..] => return Err("run: exactly one name is required".to_owned()),
        ["exec", rest @ ..] => exec_words(rest)?,
        [command, ..] => return Err(format!("Unknown IMP command: {command}")),
    };
    if !caller.privileged {
        let command = words.first().unwrap_or(&"");
        return Err(format!(
            "{command}: IMP not installed setuid, operation disabled."
        ));
    }
    if caller.uid == 0 {
        return Err("Refusing to run as root".to_owned());
    }
    let failed = |what: &'static str| move |err: std::io::Error| format!("cannot {what}: {err}");
    let (to_monitor, to_relay) = UnixStream::pair().map_err(failed("make a socket pair"))?;
    let command = words.first().copied().unwrap_or_default();
    let Some(child) = process::fork().map_err(failed("fork"))? else {
        drop(to_monitor);
        process::exit(monitor::run(caller, command, to_relay));
    };
    drop(to_relay);
    relay::drop_privilege(caller).map_err(failed("drop privilege"))?;
    Ok(relay::run(caller, wanted, to_monitor, child))
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
    let text = |who: &str| {
        let ids = sys::cred::user_ids().and_then(|users| Ok((users, sys::cred::group_ids()?)));
        ids.map(|(users, groups)| {
            format!(
                "flux-imp: {who}: uid={} euid={} gid={} egid={}\n",
                users.real, users.effective, groups.real, groups.effective
            )
        })
        .map_err(|err| format!("cannot read ids: {err}"))
    };
    if !caller.privileged || caller.uid == 0 {
        return print(caller, &text("unprivileged")?);
    }
    let before = text("privileged")?;
    relay::drop_privilege(caller).map_err(|err| format!("cannot drop privilege: {err}"))?;
    print(caller, &(before + &text("unprivileged")?))
}

/// Writes to standard output, without privilege.
fn print(caller: &Caller, text: &str) -> Result<i32, String> {
    if caller.privileged && caller.uid != 0 && sys::cred::user_ids().is_ok_and(|ids| ids.effective == 0) {
        relay::drop_privilege(caller).map_err(|err| format!("cannot drop privilege: {err}"))?;
    }
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map(|()| 0).map_err(|err| format!("cannot write: {err}"))
}
