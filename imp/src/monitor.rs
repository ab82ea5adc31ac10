//! What does the process do that keeps its privilege? One thing after the other, in the order of docs/imp/order.md.

use std::ffi::CString;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use flux_sign::Signer;

use crate::cgroup::Cgroup;
use crate::config::{Config, UseCgroup};
use crate::launch::{Identity, Plan, launch};
use crate::limits::Limits;
use crate::log::{Level, Log};
use crate::pam::Session;
use crate::refusal::{Refusal, demand};
use crate::resolve::{Resolver, User};
use crate::start::{Caller, Task};
use crate::supervise::Job;
use crate::sys::process::{self, Status};
use crate::sys::{cred, fd};
use crate::wire::{self, Request};
use crate::{device, environment, load, munged, path, replay};

/// How long the relay may take to say what is wanted.
const REQUEST_TIME: Duration = Duration::from_secs(60);
/// Longest job id in any of its forms.
const JOBID_MAX: usize = 64;

/// Runs the monitor to its end; returns its own exit code.
pub fn run(caller: &Caller, task: Task, relay: UnixStream) -> i32 {
    let mut log = Log::new(relay);
    let status = serve(caller, task, &mut log).unwrap_or_else(|refusal| {
        log.line(Level::Fatal, &refusal.text);
        Status::Exited(refusal.code)
    });
    i32::from(wire::send(&mut log.relay, &wire::ended(status)).is_err())
}

fn serve(caller: &Caller, task: Task, log: &mut Log) -> Result<Status, Refusal> {
    leave_caller().map_err(|err| format!("cannot leave the caller's session: {err}"))?;
    let mut resolver = Resolver::start()?;
    // It looks the caller up while the configuration is parsed.
    resolver.ask(caller.users.real, false)?;
    let config = load::load()?;
    log.level_max = config.number("log-level")?;
    match task {
        Task::Exec => exec(caller, &config, resolver, log).map_err(|refusal| refusal.of("exec")),
        Task::Run => script(caller, &config, resolver, log).map_err(|refusal| refusal.of("run")),
    }
}

/// Leaves the reach of the caller: session, real user, groups, keyring.
fn leave_caller() -> io::Result<()> {
    process::new_session()?;
    cred::become_root()?;
    process::set_undumpable()?;
    process::new_keyring()?;
    process::become_reaper()
}

/// Waits for what the relay asks for.
fn receive(log: &mut Log) -> Result<Request, String> {
    match wire::receive(&mut log.relay, REQUEST_TIME) {
        Ok(Some(kv)) => Request::decode(&kv).ok_or("the request is malformed".to_owned()),
        Ok(None) => Err("the caller has gone before it asked for anything".to_owned()),
        Err(err) => Err(format!("no request: {err}")),
    }
}

/// `flux-imp exec SHELL JOBID`: a job's shell, as the job's user.
fn exec(caller: &Caller, config: &Config, mut resolver: Resolver, log: &mut Log) -> Result<Status, Refusal> {
    demand(config.flag("exec")?, "no configuration found")?;
    let owner = resolver.answer(caller.users.real)?;
    let stranger = format!("user {} not in allowed-users list", owner.name);
    demand(config.has("exec.user", &owner.name), stranger)?;
    let Request::Exec(asked) = receive(log)? else {
        return Err("the request is for another command".into());
    };
    let unknown = format!("shell {} not in allowed-shells list", asked.shell);
    demand(config.has("exec.shell", &asked.shell), unknown)?;
    demand(is_jobid(&asked.jobid), format!("{} is no job id", asked.jobid))?;
    let sign = flux_sign::Config::from_kv(&config.0)?;
    let signed = Signer::with_connect(sign.clone(), munged::connect).unwrap(&asked.token, owner.uid)?;
    let user = target(signed.userid, config.number("exec.min-uid")?, &mut resolver)?;
    drop(resolver);
    let shell = path::open_file(&asked.shell).map_err(|why| format!("shell {why}"))?;
    let (variables, socket) = environment::of_shell(&user, &asked.variables)?;
    if config.flag("exec.refuse-replay")? {
        replay::record(&asked.token, &signed, &sign)?;
    }
    let mut session = match config.flag("exec.pam")? {
        true => Some(Session::open(&user.name, &owner.name)?),
        false => None,
    };
    // After PAM, whose modules may do anything: whatever they end, no empty group stays.
    let cgroup = group(config.cgroup()?, &asked, log)?;
    let plan = Plan {
        program: &shell,
        path: None,
        arguments: &words(&asked),
        environment: &variables,
        identity: Identity::User(&user),
        limits: session.as_ref().map_or(&caller.limits, |session| &session.limits),
        cgroup: cgroup.as_ref(),
        socket: socket.as_deref().map(|socket| (socket, owner.uid)),
    };
    let who = format!("{}({}) for {}({})", user.name, user.uid, owner.name, owner.uid);
    let ended = start(&plan, &format!("job {} of {who}", asked.jobid), log);
    for failure in session.iter_mut().flat_map(Session::close) {
        log.line(Level::Warning, &format!("exec: {failure}"));
    }
    ended
}

fn is_jobid(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-' || c == '\u{192}';
    (1..=JOBID_MAX).contains(&text.len()) && !text.starts_with('-') && text.chars().all(plain)
}

/// Returns who signed the request: never root, and known on this node.
fn target(uid: u32, uid_min: i64, resolver: &mut Resolver) -> Result<User, String> {
    demand(uid != 0, "switching to user root not supported")?;
    let low = format!("userid {uid} is below exec.min-uid ({uid_min})");
    demand(i64::from(uid) >= uid_min, low)?;
    resolver.ask(uid, true)?;
    let user = resolver.answer(uid)?;
    let of_root = format!("the group of user {} is root's", user.name);
    demand(user.gid != 0, of_root).map(|()| user)
}

/// Makes the control group and contains devices, as configuration and request want it.
fn group(wanted: UseCgroup, asked: &wire::Exec, log: &mut Log) -> Result<Option<Cgroup>, String> {
    let made = match wanted {
        UseCgroup::Off => Err("exec.cgroup is off".to_owned()),
        UseCgroup::Auto | UseCgroup::Require => Cgroup::create(&asked.jobid),
    };
    match (made, &asked.devices) {
        (Ok(cgroup), None) => Ok(Some(cgroup)),
        (Ok(cgroup), Some(rules)) => match device::contain(&cgroup.leaf, rules) {
            Ok(()) => Ok(Some(cgroup)),
            Err(err) => Err(format!("devices cannot be contained: {err}")),
        },
        (Err(why), Some(_)) => Err(format!("devices cannot be contained: {why}")),
        (Err(why), None) if wanted == UseCgroup::Require => Err(why),
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
    let words = words.into_iter().flatten();
    words.filter_map(|word| CString::new(word).ok()).collect()
}

/// `flux-imp run NAME`: a script of the administrator's, as root.
fn script(
    caller: &Caller,
    config: &Config,
    mut resolver: Resolver,
    log: &mut Log,
) -> Result<Status, Refusal> {
    let owner = resolver.answer(caller.users.real)?;
    drop(resolver);
    let Request::Run(asked) = receive(log)? else {
        return Err("the request is for another command".into());
    };
    let path = config.run_path(&asked.name)?;
    let allowed = config.has(&format!("run.{}.user", asked.name), &owner.name);
    demand(allowed, "permission denied")?;
    let program = path::open_file(path)?;
    let path = CString::new(path)?;
    hide(&[0])?;
    let plan = Plan {
        program: &program,
        path: Some(&path),
        arguments: std::slice::from_ref(&path),
        environment: &environment::of_run(config, &asked, owner.uid)?,
        identity: Identity::Root,
        limits: &Limits::current()?,
        cgroup: None,
        socket: None,
    };
    let what = format!("{} for {}({})", asked.name, owner.name, owner.uid);
    start(&plan, &what, log)
}

/// Starts a program, waits for it, and removes all that is left of it, unless it is a script.
fn start(plan: &Plan<'_>, what: &str, log: &mut Log) -> Result<Status, Refusal> {
    let job = Job {
        started: launch(plan)?,
        cgroup: plan.cgroup,
        script: matches!(plan.identity, Identity::Root),
    };
    // The caller's standard files are the program's; the monitor keeps none of them.
    let hidden = hide(&[0, 1, 2]).map_err(Refusal::from);
    let ended = hidden.and_then(|()| job.wait(log, what));
    if !job.clear() {
        log.line(
            Level::Warning,
            &format!("exec: {what}: processes could not be ended"),
        );
    }
    ended.map_err(|refusal| refusal.of(what))
}

/// Puts `/dev/null` in the place of standard files.
fn hide(numbers: &[i32]) -> io::Result<()> {
    let null = fd::openat(None, c"/dev/null", libc::O_RDWR, 0)?;
    numbers.iter().try_for_each(|number| fd::dup_to(&null, *number))
}
