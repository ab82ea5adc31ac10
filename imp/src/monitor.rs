//! What does the process do that keeps its privilege? One thing after the other, in the order of docs/imp/order.md.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use flux_sign::kv::Kv;

use crate::cgroup::Cgroup;
use crate::config::{Config, UseCgroup};
use crate::launch::{Identity, Plan, launch};
use crate::log::{Level, Log};
use crate::pam::Session;
use crate::resolve::{Resolver, User};
use crate::start::Caller;
use crate::supervise::{End, Job};
use crate::sys::process::{self, Status};
use crate::sys::{cred, fd};
use crate::wire::{self, Request};
use crate::{device, environment, load, path, replay, verify};

/// How long the relay may take to say what is wanted.
const REQUEST_TIME: Duration = Duration::from_secs(60);
/// Longest job id in any of its forms.
const JOBID_MAX: usize = 64;

/// Why nothing was started or how it ended badly: what to log, and the exit code.
type Refusal = (String, i32);

fn refuse(text: impl Into<String>) -> Refusal {
    (text.into(), 1)
}

/// Runs the monitor to its end; returns its own exit code.
pub fn run(caller: &Caller, command: &str, mut relay: UnixStream) -> i32 {
    let Ok(mut log) = Log::new(&relay) else {
        return 1;
    };
    let status = match serve(caller, command, &mut relay, &mut log) {
        Ok(status) => status,
        Err((text, code)) => {
            log.fatal(&text);
            Status::Exited(code)
        }
    };
    drop(wire::send(&mut relay, &wire::ended(status)));
    0
}

fn serve(caller: &Caller, command: &str, relay: &mut UnixStream, log: &mut Log) -> Result<Status, Refusal> {
    become_root().map_err(|err| refuse(format!("cannot leave the caller's session: {err}")))?;
    let mut resolver = Resolver::start().map_err(refuse)?;
    // It looks the caller up while the configuration is parsed.
    resolver.ask(caller.uid).map_err(refuse)?;
    let (config, sign) = load::load().map_err(refuse)?;
    log.level = config.log_level;
    let owner = resolver
        .answer(caller.uid)
        .map_err(|why| refuse(format!("{command}: {why}")))?;
    if command == "run" {
        drop(resolver);
        return script(&config, &owner, relay, log);
    }
    let exec = config
        .exec
        .ok_or_else(|| refuse("exec: no configuration found"))?;
    if !exec.allowed_users.contains(&owner.name) {
        return Err(refuse(format!(
            "exec: user {} not in allowed-users list",
            owner.name
        )));
    }
    let asked = match wire::receive(relay, REQUEST_TIME) {
        Ok(Some(kv)) => Request::decode(&kv),
        Ok(None) => return Err(refuse("exec: the caller has gone before it asked for anything")),
        Err(err) => return Err(refuse(format!("exec: no request: {err}"))),
    };
    let Some(Request::Exec(asked)) = asked else {
        return Err(refuse("exec: the request is malformed"));
    };
    if !exec.allowed_shells.contains(&asked.shell) {
        return Err(refuse(format!(
            "exec: shell {} not in allowed-shells list",
            asked.shell
        )));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-' || c == '\u{192}';
    let option = asked.jobid.starts_with('-');
    if asked.jobid.is_empty() || option || asked.jobid.len() > JOBID_MAX || !asked.jobid.chars().all(plain) {
        return Err(refuse(format!("exec: {} is no job id", asked.jobid)));
    }
    let (user, signed) = target(&sign, &asked.token, &owner, exec.uid_min, &mut resolver)?;
    drop(resolver);
    let shell = path::open_file(&asked.shell).map_err(|why| refuse(format!("exec: shell {why}")))?;
    let environment = environment::of_shell(&user, &asked.variables).map_err(refuse)?;
    if exec.refuse_replay {
        replay::record(&asked.token, &signed.0, &signed.1).map_err(refuse)?;
    }
    let session = exec
        .pam
        .then(|| Session::open(&user.name, &owner.name))
        .transpose();
    let mut session = session.map_err(|why| refuse(format!("exec: {why}")))?;
    // After PAM, whose modules may do anything: whatever they end, no empty group stays.
    let cgroup = group(exec.cgroup, &asked, log)?;
    let ends = start_shell(
        &Plan {
            program: &shell,
            path: None,
            arguments: &words(&asked),
            environment: &environment.variables,
            identity: Identity::User {
                uid: user.uid,
                gid: user.gid,
                groups: &user.groups,
            },
            limits: session.as_ref().map_or(caller.limits, |session| session.limits),
            cgroup: cgroup.as_ref(),
            socket: environment.socket.as_deref().map(|socket| (socket, owner.uid)),
        },
        &format!(
            "job {} of {}({}) for {}({})",
            asked.jobid, user.name, user.uid, owner.name, owner.uid
        ),
        relay,
        log,
    );
    for failure in session.iter_mut().flat_map(Session::close) {
        log.line(Level::Warning, &format!("exec: {failure}"));
    }
    ends
}

/// Leaves the reach of the caller: session, real user, groups, keyring.
fn become_root() -> std::io::Result<()> {
    process::new_session()?;
    cred::set_groups(&[])?;
    cred::set_group(0)?;
    cred::set_user(0)?;
    process::set_undumpable()?;
    process::new_keyring()?;
    process::become_reaper()
}

type Signed = (flux_sign::Unwrapped, flux_sign::Config);

/// Returns who signed the request: never root, and known on this node.
fn target(
    sign: &Kv,
    token: &str,
    owner: &User,
    uid_min: u32,
    resolver: &mut Resolver,
) -> Result<(User, Signed), Refusal> {
    let signed = verify::token(sign, token, owner.uid).map_err(refuse)?;
    let uid = signed.0.userid;
    if uid == 0 {
        return Err(refuse("exec: switching to user root not supported"));
    }
    if uid < uid_min {
        return Err(refuse(format!(
            "exec: userid {uid} is below exec.min-uid ({uid_min})"
        )));
    }
    let user = resolver.user(uid).map_err(|why| refuse(format!("exec: {why}")))?;
    if user.gid == 0 {
        return Err(refuse(format!("exec: the group of user {} is root's", user.name)));
    }
    Ok((user, signed))
}

/// Makes the control group and contains devices, as configuration and request want it.
fn group(wanted: UseCgroup, asked: &wire::Exec, log: &mut Log) -> Result<Option<Cgroup>, Refusal> {
    let made = match wanted {
        UseCgroup::Off => Err("exec.cgroup is off".to_owned()),
        UseCgroup::Auto | UseCgroup::Require => Cgroup::create(&asked.jobid),
    };
    let rules = asked
        .devices
        .as_ref()
        .map(|rules| rules.iter().map(|rule| device::Rule::parse(rule)));
    let rules: Option<Option<Vec<_>>> = rules.map(Iterator::collect);
    match (made, rules) {
        (_, Some(None)) => Err(refuse("exec: a device rule is malformed")),
        (Ok(cgroup), None) => Ok(Some(cgroup)),
        (Ok(cgroup), Some(Some(rules))) => match device::contain(cgroup.fd(), &rules) {
            Ok(()) => Ok(Some(cgroup)),
            Err(err) => {
                cgroup.remove();
                Err(refuse(format!("exec: devices cannot be contained: {err}")))
            }
        },
        (Err(why), Some(_)) => Err(refuse(format!("exec: devices cannot be contained: {why}"))),
        (Err(why), None) if wanted == UseCgroup::Require => Err(refuse(format!("exec: {why}"))),
        (Err(why), None) => {
            let lost = "if the monitor itself is killed, processes that left the shell's session stay";
            log.line(Level::Warning, &format!("exec: no control group: {why}; {lost}"));
            Ok(None)
        }
    }
}

/// The shell's words: its path, the job's id, and at most one known option.
fn words(asked: &wire::Exec) -> Vec<CString> {
    let option = asked.reconnect.then_some("--reconnect");
    let words = [Some(asked.shell.as_str()), option, Some(asked.jobid.as_str())];
    words
        .into_iter()
        .flatten()
        .filter_map(|word| CString::new(word).ok())
        .collect()
}

/// Starts a shell, waits for it, and removes all that is left of it.
fn start_shell(
    plan: &Plan<'_>,
    what: &str,
    relay: &mut UnixStream,
    log: &mut Log,
) -> Result<Status, Refusal> {
    let started = launch(plan);
    // The caller's standard files are the shell's; the monitor keeps none of them.
    let hidden = hide_standard_files();
    let started = match (started, hidden) {
        (Ok(started), Ok(())) => started,
        (Ok(started), Err(err)) => {
            process::kill(started.pid, libc::SIGKILL);
            drop(process::wait(started.pid));
            plan.cgroup.map(Cgroup::remove);
            return Err(refuse(format!("exec: cannot open /dev/null: {err}")));
        }
        (Err(why), _) => {
            plan.cgroup.map(Cgroup::remove);
            return Err(refuse(format!("exec: {why}")));
        }
    };
    let job = Job {
        started: &started,
        cgroup: plan.cgroup,
        script: false,
    };
    let pid = started.pid.number();
    let end = job.wait(relay, || {
        log.line(Level::Info, &format!("exec: started {what}, pid {pid}"))
    });
    if !job.clear() {
        log.line(
            Level::Warning,
            &format!("exec: {what}: processes could not be ended"),
        );
    }
    match end {
        Ok(End::Ended(status)) => Ok(status),
        Ok(End::NotStarted(why, code)) => Err((format!("exec: {what}: {why}"), code)),
        Err(err) => Err(refuse(format!("exec: {what}: cannot wait: {err}"))),
    }
}

fn hide_standard_files() -> std::io::Result<()> {
    let null = fd::openat(None, c"/dev/null", libc::O_RDWR, 0)?;
    (0..=2).try_for_each(|number| fd::dup_to(null.as_fd(), number))
}

/// `flux-imp run NAME`: a script of the administrator's, as root.
fn script(config: &Config, owner: &User, relay: &mut UnixStream, log: &mut Log) -> Result<Status, Refusal> {
    let Ok(Some(Ok(Some(Request::Run(asked))))) =
        wire::receive(relay, REQUEST_TIME).map(|kv| kv.map(|kv| Ok::<_, ()>(Request::decode(&kv))))
    else {
        return Err(refuse("run: the request is malformed"));
    };
    let run = config.run(&asked.name).map_err(refuse)?;
    if !run.allowed_users.contains(&owner.name) {
        return Err(refuse("run: permission denied"));
    }
    let program: OwnedFd = path::open_file(&run.path).map_err(|why| refuse(format!("run: {why}")))?;
    let environment = environment::of_run(&run, &asked.variables, owner.uid).map_err(refuse)?;
    let path = CString::new(run.path.as_str()).map_err(|_| refuse("run: path has a NUL in it"))?;
    let null = fd::openat(None, c"/dev/null", libc::O_RDWR, 0);
    let hidden = null.and_then(|null| fd::dup_to(null.as_fd(), 0));
    hidden.map_err(|err| refuse(format!("run: cannot open /dev/null: {err}")))?;
    let limits = crate::limits::Limits::current().map_err(|err| refuse(format!("run: {err}")))?;
    let started = launch(&Plan {
        program: &program,
        path: Some(&path),
        arguments: std::slice::from_ref(&path),
        environment: &environment,
        identity: Identity::Root,
        limits,
        cgroup: None,
        socket: None,
    })
    .map_err(|why| refuse(format!("run: {why}")))?;
    hide_standard_files().map_err(|err| refuse(format!("run: cannot open /dev/null: {err}")))?;
    let job = Job {
        started: &started,
        cgroup: None,
        script: true,
    };
    let what = format!("run: started {} for {}({})", asked.name, owner.name, owner.uid);
    let end = job.wait(relay, || log.line(Level::Info, &what));
    match end {
        Ok(End::Ended(status)) => Ok(status),
        Ok(End::NotStarted(why, code)) => Err((format!("run: {}: {why}", run.path), code)),
        Err(err) => Err(refuse(format!("run: cannot wait: {err}"))),
    }
}
