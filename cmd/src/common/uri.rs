//! Which broker does a word on the command line mean? A URI, a job id or a path of them, a process, a Slurm job.
//!
//! A scheme that is not built in is resolved by a program `flux-uri-SCHEME` of the exec path: it gets the rest of the
//! word and prints a URI.

use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use flux_client::job::{self, WatchEvent};
use flux_client::{Handle, NODEID_ANY, attr};
use flux_formats::errno;
use flux_formats::hostlist::Hostlist;
use flux_formats::jobstate::JobState;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ctx::Ctx;
use super::error::{CmdError, fail};
use super::eventlog::parse as parse_event;
use super::jobid;

/// Environment variable that makes every resolved URI a local one.
const RESOLVE_LOCAL: &str = "FLUX_URI_RESOLVE_LOCAL";

/// How a word is resolved.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish {
    /// Waits until a job has a URI.
    pub(crate) wait: bool,
    /// Changes a remote URI into a local one.
    pub(crate) local: bool,
    /// Changes a local URI into a remote one.
    pub(crate) remote: bool,
}

/// Resolves a word and opens a connection to what it means.
///
/// # Errors
/// When it means nothing, or nothing answers there.
pub(crate) fn open(ctx: &Ctx, target: &str) -> Result<Handle, CmdError> {
    let uri = resolve(ctx, target, Wish::default())?;
    Handle::open(Some(&uri)).map_err(CmdError::Open)
}

/// Resolves a word to a native URI.
///
/// # Errors
/// What it does not mean, and why.
pub(crate) fn resolve(ctx: &Ctx, target: &str, wish: Wish) -> Result<String, CmdError> {
    let (target, wish) = queries(target, wish)?;
    let (scheme, rest) = match target.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
        _ => ("jobid", target),
    };
    let uri = match scheme {
        "local" | "ssh" => plain(target),
        "jobid" => jobs(ctx, rest, wish)?,
        "pid" => process(rest)?,
        "slurm" => slurm(ctx, rest)?,
        other => external(ctx, other, rest)?,
    };
    if wish.local || std::env::var_os(RESOLVE_LOCAL).is_some() {
        local_form(&uri)
    } else if wish.remote {
        remote_form(&uri)
    } else {
        Ok(uri)
    }
}

fn is_scheme(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
        && word
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
}

/// Takes `?local`, `?remote` and `?wait` off a word.
fn queries(target: &str, mut wish: Wish) -> Result<(&str, Wish), CmdError> {
    let Some((target, query)) = target.split_once('?') else {
        return Ok((target, wish));
    };
    for word in query.split('&') {
        match word {
            "local" => wish.local = true,
            "remote" => wish.remote = true,
            "wait" => wish.wait = true,
            other => {
                return fail(format!(
                    "{target}?{other}: unknown query (use local, remote or wait)"
                ));
            }
        }
    }
    if wish.local && wish.remote {
        return fail("only one of 'local' or 'remote' is allowed");
    }
    Ok((target, wish))
}

/// Makes single slashes of repeated ones in the path.
fn plain(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return uri.to_owned();
    };
    let mut path = String::with_capacity(rest.len());
    for c in rest.chars() {
        if c != '/' || !path.ends_with('/') {
            path.push(c);
        }
    }
    format!("{scheme}://{path}")
}

/// Returns the form of a URI that works on the broker's own host.
///
/// # Errors
/// For a scheme that has no such form.
pub(crate) fn local_form(uri: &str) -> Result<String, CmdError> {
    if uri.starts_with("local://") {
        return Ok(uri.to_owned());
    }
    match uri
        .strip_prefix("ssh://")
        .and_then(|rest| rest.split_at_checked(rest.find('/')?))
    {
        Some((_, path)) => Ok(format!("local://{path}")),
        None => fail(format!("cannot convert {uri} to a local URI")),
    }
}

fn remote_form(uri: &str) -> Result<String, CmdError> {
    if uri.starts_with("ssh://") {
        return Ok(uri.to_owned());
    }
    match uri.strip_prefix("local://") {
        Some(path) => Ok(format!("ssh://{}{path}", own_host()?)),
        None => fail(format!("cannot convert {uri} to a remote URI")),
    }
}

fn own_host() -> Result<String, CmdError> {
    let name =
        nix::unistd::gethostname().map_err(|errno| CmdError::file("name of this host")(errno.into()))?;
    Ok(name.to_string_lossy().into_owned())
}

/// Resolves a path of job ids; `/` is the root instance, `..` the parent, `.` or nothing this one.
fn jobs(ctx: &Ctx, path: &str, wish: Wish) -> Result<String, CmdError> {
    let mut handle = ctx.open()?;
    let mut uri = attr::get(&mut handle, "local-uri")?;
    let mut host: Option<String> = None;
    if path.starts_with('/') {
        uri = root(&mut handle)?;
        handle = Handle::open(Some(&uri)).map_err(CmdError::Open)?;
    }
    let mut words = path
        .split('/')
        .filter(|word| !word.is_empty() && *word != ".")
        .peekable();
    while let Some(word) = words.next() {
        if word == ".." {
            uri = parent(&mut handle)?;
            if let Some(host) = &host {
                uri = uri.replacen("local://", &format!("ssh://{host}"), 1);
            }
        } else {
            uri = of_job(&mut handle, word, wish.wait)?;
            host = uri
                .strip_prefix("ssh://")
                .and_then(|rest| rest.split('/').next())
                .map(str::to_owned);
        }
        if words.peek().is_some() {
            if wish.local {
                uri = local_form(&uri)?;
            }
            handle = Handle::open(Some(&uri)).map_err(CmdError::Open)?;
        }
    }
    Ok(uri)
}

fn parent(handle: &mut Handle) -> Result<String, CmdError> {
    let level = attr::get(handle, "instance-level")?;
    let name = if level == "0" { "local-uri" } else { "parent-uri" };
    Ok(attr::get(handle, name)?)
}

fn root(handle: &mut Handle) -> Result<String, CmdError> {
    let mut uri = parent(handle)?;
    let mut level = attr::get(handle, "instance-level")?;
    while level != "0" {
        let mut above = Handle::open(Some(&uri)).map_err(CmdError::Open)?;
        uri = parent(&mut above)?;
        level = attr::get(&mut above, "instance-level")?;
    }
    Ok(uri)
}

/// Returns the URI of the instance that a job runs.
///
/// # Errors
/// When there is no such job, or it is not an instance.
pub(crate) fn of_job(handle: &mut Handle, word: &str, wait: bool) -> Result<String, CmdError> {
    let Ok(id) = jobid::parse(word) else {
        return fail(format!("{word} is not a valid jobid"));
    };
    let uri = if wait {
        wait_for(handle, id.0, word)?
    } else {
        let request = json!({ "id": id.0, "attrs": ["state", "annotations"] });
        let response: Value = match handle.call("job-list.list-id", NODEID_ANY, &request) {
            Err(err) if err.is_rpc(errno::ENOENT) => return fail(format!("jobid {word} not found")),
            other => other?,
        };
        let job = response.get("job").unwrap_or(&Value::Null);
        if job.get("state").and_then(Value::as_u64) != Some(u64::from(JobState::Run.bit())) {
            return fail(format!("jobid {word} is not running"));
        }
        job.pointer("/annotations/user/uri")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    match uri.filter(|uri| !uri.is_empty()) {
        Some(uri) => Ok(plain(&uri)),
        None => fail(format!("URI not found for job {word}")),
    }
}

/// Follows the job's eventlog until its instance has told its URI; `None` when the job has ended without.
fn wait_for(handle: &mut Handle, id: u64, word: &str) -> Result<Option<String>, CmdError> {
    #[derive(Deserialize)]
    struct Memo {
        uri: Option<String>,
    }
    let rpc = job::eventlog_watch(handle, id, "eventlog", 0)?;
    loop {
        let event = match job::watch_next(handle, &rpc) {
            Err(err) if err.is_rpc(errno::ENOENT) => return fail(format!("jobid {word} not found")),
            other => other?,
        };
        let Some(event) = event else { return Ok(None) };
        let WatchEvent::Event(line) = event else { continue };
        let event = parse_event(&line)?;
        match &*event.name {
            "memo" => {
                let memo: Memo = event.context_as().map_err(CmdError::json("memo event"))?;
                if memo.uri.is_some() {
                    job::watch_cancel(handle, &rpc)?;
                    return Ok(memo.uri);
                }
            }
            "finish" => {
                job::watch_cancel(handle, &rpc)?;
                return Ok(None);
            }
            _ => {}
        }
    }
}

/// Returns FLUX_URI of a process; of a broker, that of its first child.
fn process(word: &str) -> Result<String, CmdError> {
    let Ok(pid) = word.trim_matches('/').parse::<u32>() else {
        return fail(format!("pid:{word}: not a process id"));
    };
    let comm =
        std::fs::read_to_string(format!("/proc/{pid}/comm")).map_err(CmdError::file(format!("pid:{pid}")))?;
    let pid = if comm.trim_end().starts_with("flux-broker") {
        child_of(pid)?
    } else {
        pid
    };
    let environ =
        std::fs::read(format!("/proc/{pid}/environ")).map_err(CmdError::file(format!("pid:{pid}")))?;
    let uri = environ
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(b"FLUX_URI="));
    match uri {
        Some(uri) => Ok(String::from_utf8_lossy(uri).into_owned()),
        None => fail(format!("PID {pid} doesn't seem to have a FLUX_URI")),
    }
}

fn child_of(pid: u32) -> Result<u32, CmdError> {
    let tasks =
        std::fs::read_dir(format!("/proc/{pid}/task")).map_err(CmdError::file(format!("pid:{pid}")))?;
    let children = tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
        .find_map(|children| children.split_whitespace().next()?.parse().ok());
    children.map_or_else(
        || fail(format!("PID {pid} is a flux-broker and no child found")),
        Ok,
    )
}

/// Finds the instance that a Slurm job runs: among its processes here, else on its first node through `srun`.
fn slurm(ctx: &Ctx, id: &str) -> Result<String, CmdError> {
    if id.is_empty()
        || !id
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b'_')
    {
        return fail(format!("slurm:{id}: not a Slurm job id"));
    }
    if let Some(listing) = output_of(ctx, "scontrol", &["listpids", id]) {
        for line in listing.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // the broker was started by slurmstepd itself, as the step's first local task
            if fields.get(3) == Some(&"0")
                && let Some(uri) = fields.first().and_then(|pid| process(pid).ok())
            {
                return remote_form(&uri);
            }
        }
        return fail(format!("no process of Slurm job {id} has a FLUX_URI"));
    }
    let Some(nodes) = output_of(ctx, "squeue", &["-h", "-o", "%N", "-j", id]) else {
        return fail(format!("unable to query nodelist for Slurm job {id}"));
    };
    let first = nodes
        .trim()
        .parse::<Hostlist>()
        .ok()
        .and_then(|hosts| hosts.nth(0));
    let Some(first) = first else {
        return fail(format!("empty nodelist returned for Slurm job {id}"));
    };
    let (job, target) = (format!("--jobid={id}"), format!("slurm:{id}"));
    let words = [
        "--overlap",
        &job,
        "-w",
        &first,
        "-n1",
        "-N1",
        "flux",
        "uri",
        &target,
    ];
    match output_of(ctx, "srun", &words) {
        Some(uri) => Ok(uri.trim().to_owned()),
        None => fail(format!("Unable to resolve Flux URI for Slurm job {id}")),
    }
}

/// Returns the standard output of a program that succeeds; it does not see the instance of this command.
fn output_of(ctx: &Ctx, program: &str, words: &[&str]) -> Option<String> {
    let env = ctx.env.iter().filter(|(name, _)| name != "FLUX_URI");
    let output = Process::new(program)
        .args(words)
        .env_clear()
        .envs(env.map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn external(ctx: &Ctx, scheme: &str, rest: &str) -> Result<String, CmdError> {
    let name = format!("flux-uri-{scheme}");
    let Some(program) = find(ctx, &name) else {
        return fail(format!(
            "no resolver for URI scheme {scheme}: known are jobid, pid, slurm, ssh, local, and programs {name} in \
             FLUX_EXEC_PATH"
        ));
    };
    let output = Process::new(&program)
        .arg(rest)
        .env_clear()
        .envs(ctx.env.iter().map(|(name, value)| (name, value)))
        .stderr(Stdio::inherit())
        .output()
        .map_err(CmdError::file(program.display().to_string()))?;
    let uri = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || uri.is_empty() {
        return fail(format!("{name} does not know {scheme}:{rest}"));
    }
    Ok(plain(&uri))
}

fn find(ctx: &Ctx, name: &str) -> Option<PathBuf> {
    ["FLUX_EXEC_PATH_PREPEND", "FLUX_EXEC_PATH"]
        .iter()
        .filter_map(|variable| ctx.env_str(variable))
        .flat_map(|list| list.split(':'))
        .filter(|dir| !dir.is_empty())
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(local_form("ssh://u@h:22/run/x").unwrap(), "local:///run/x");
        assert_eq!(local_form("local:///x").unwrap(), "local:///x");
        assert!(local_form("ssh://h").is_err() && local_form("foo:x").is_err());
        assert!(remote_form("local:///x").unwrap().ends_with("/x"));
        assert_eq!(plain("ssh://h//a///b"), "ssh://h/a/b");
        assert!(is_scheme("jobid") && !is_scheme("ƒ1") && !is_scheme(""));
        let (word, wish) = queries("jobid:1?local&wait", Wish::default()).unwrap();
        assert!(word == "jobid:1" && wish.local && wish.wait && !wish.remote);
        assert!(queries("x?local&remote", Wish::default()).is_err());
        assert!(queries("x?nope", Wish::default()).is_err());
    }

    #[test]
    fn processes() {
        assert!(process("x").is_err());
        assert!(process("4194305").is_err());
    }
}
