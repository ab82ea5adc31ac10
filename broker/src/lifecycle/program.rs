//! How is the initial program (rc2) run, and how are scripts?

use super::modules::recovers;
use super::service::Lifecycle;
use crate::children;
use crate::service::Cx;
use flux_process::signal::kill_group;
use flux_process::{Command, PidFd, ProcessGroup, Signal, SpawnError, WaitStatus};
use std::ffi::OsString;
use std::future::Future;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

/// Variables of an enclosing job or launcher that the initial program must not see.
const REMOVED: &[&str] = &[
    "FLUX_JOB_ID",
    "FLUX_JOB_ID_PATH",
    "FLUX_JOB_SIZE",
    "FLUX_JOB_NNODES",
    "FLUX_JOB_TMPDIR",
    "FLUX_TASK_RANK",
    "FLUX_TASK_LOCAL_ID",
    "FLUX_KVS_NAMESPACE",
    "FLUX_PROXY_REMOTE",
    "FLUX_PMI_LIBRARY_PATH",
    "I_MPI_PMI_LIBRARY",
    // the broker's own dealings with systemd
    "NOTIFY_SOCKET",
    "INVOCATION_ID",
];
const REMOVED_PREFIXES: &[&str] = &["PMI_", "SLURM_", "PMIX_", "PALS_"];

/// Returns the environment for programs that the broker starts: its own without launcher variables, with
/// `FLUX_URI` of this broker and the directory of the `flux` command at the end of PATH.
pub(crate) fn environment(cx: &Cx<'_>) -> Vec<(OsString, OsString)> {
    let removed = |name: &OsString| {
        REMOVED.iter().any(|r| name == r)
            || REMOVED_PREFIXES
                .iter()
                .any(|prefix| name.as_bytes().starts_with(prefix.as_bytes()))
    };
    let mut env: Vec<(OsString, OsString)> = std::env::vars_os()
        .filter(|(name, _)| !removed(name) && name != "FLUX_URI" && name != "PATH")
        .collect();
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(dir) = std::env::current_exe()
        .ok()
        .as_deref()
        .and_then(std::path::Path::parent)
    {
        let known = std::env::split_paths(&path).any(|entry| entry == dir);
        if !known && dir.join("flux").exists() {
            if !path.is_empty() {
                path.push(":");
            }
            path.push(dir);
        }
    }
    env.push(("PATH".into(), path));
    if let Some(uri) = cx.attrs.get("local-uri") {
        env.push(("FLUX_URI".into(), uri.into()));
    }
    env
}

/// Starts a command with the broker's stdio and waits for it; resolves to its exit code.
pub(super) fn run(
    cx: &Cx<'_>,
    argv: Vec<String>,
) -> impl Future<Output = Result<i32, std::io::Error>> + use<> {
    let mut command = Command::new(argv.first().cloned().unwrap_or_default());
    command
        .args(argv.into_iter().skip(1))
        .env(environment(cx))
        .null(0);
    let child = command.spawn();
    async move {
        let child = child.map_err(|err| std::io::Error::from_raw_os_error(err.errnum()))?;
        children::wait(child).await.map(WaitStatus::exit_code)
    }
}

/// Logs the end of command number `index` of a stage as flux-core does: `rc1.0: COMMAND Exited (rc=0) 0.1s`.
pub(super) fn log_end(
    cx: &mut Cx<'_>,
    stage: &str,
    index: usize,
    command: &str,
    result: &Result<i32, std::io::Error>,
    begin: Instant,
) {
    let secs = begin.elapsed().as_secs_f64();
    let (level, how) = match result {
        Ok(0) => (6, "Exited (rc=0)".to_owned()),
        Ok(code) => (3, format!("Exited (rc={code})")),
        Err(err) => (3, format!("{err} (rc=1)")),
    };
    cx.log(
        level,
        "broker",
        &format!("{stage}.{index}: {command} {how} {secs:.1}s"),
    );
}

/// Returns the argument vector of the initial program: an interactive shell, `sh -c TEXT`, or the words.
fn program_argv(words: &[String]) -> Vec<String> {
    let shell = || {
        std::env::var("SHELL")
            .ok()
            .filter(|s| !s.is_empty())
            .unwrap_or_else(|| "/bin/sh".to_owned())
    };
    match words {
        [] => vec![shell()],
        [text] => vec![shell(), "-c".to_owned(), text.clone()],
        words => words.to_vec(),
    }
}

/// Tells who gets a shell in recovery mode what to expect of it.
fn recovery_banner(cx: &Cx<'_>) {
    let attr = |name: &str| cx.attrs.get(name).unwrap_or("-").to_owned();
    let rule = "-".repeat(60);
    let text = format!(
        "{rule}\nThis Flux instance is in recovery mode.\nIt runs no jobs: its resources stay offline. What failed in rc1 is reported \
         above\nand may be missing.\n\n  broker.rc1_path  {}\n  broker.rc3_path  {}\n  config.path      {}\n  statedir         {}\n\n\
         Leave this shell when you are done.\n{rule}\n",
        attr("broker.rc1_path"),
        attr("broker.rc3_path"),
        attr("config.path"),
        cx.attrs
            .get("statedir")
            .unwrap_or("none: changes will not be kept"),
    );
    // whoever closed standard error does not want to know
    let _gone = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
}

/// The running initial program.
#[derive(Debug)]
pub(super) struct InitialProgram {
    pidfd: PidFd,
    /// The group that it leads; none at a terminal, whose shell makes groups of its own.
    group: Option<u32>,
}

impl InitialProgram {
    /// Tells the program, and everything it started, that the instance ends: SIGHUP, as flux-core does.
    pub(super) fn hang_up(&self) {
        // it may have ended a moment ago
        drop(match self.group {
            Some(group) => kill_group(group, Signal::SIGHUP),
            None => self.pidfd.send_signal(Signal::SIGHUP),
        });
    }
}

impl Lifecycle {
    /// Starts the initial program; its end posts rc2-success or rc2-fail and decides the exit code.
    pub(super) fn start_program(&mut self, cx: &mut Cx<'_>) {
        if recovers(cx) && self.options.initial_program.is_empty() {
            recovery_banner(cx);
        }
        let argv = program_argv(&self.options.initial_program);
        let name = argv.first().cloned().unwrap_or_default();
        let shown = if self.options.initial_program.is_empty() {
            name.clone()
        } else {
            self.options.initial_program.join(" ")
        };
        let begin = Instant::now();
        let mut command = Command::new(name);
        command.args(argv.into_iter().skip(1)).env(environment(cx));
        let own_group = !std::io::stdin().is_terminal();
        if own_group {
            command.group(ProcessGroup::Own);
        }
        let started = command.spawn().and_then(|child| {
            let pidfd = PidFd::open(child.pid()).map_err(SpawnError::Resources)?;
            let group = own_group.then(|| child.pid());
            Ok((child, InitialProgram { pidfd, group }))
        });
        match started {
            Ok((child, program)) => {
                self.rc2 = Some(program);
                cx.spawn(children::wait(child), move |me: &mut Lifecycle, cx, result| {
                    me.rc2 = None;
                    let result = result.map(WaitStatus::exit_code);
                    log_end(cx, "rc2", 0, &shown, &result, begin);
                    let code = result.unwrap_or(1);
                    if me.exit_code == 0 {
                        me.exit_code = code;
                    }
                    me.post(cx, if code == 0 { "rc2-success" } else { "rc2-fail" });
                });
            }
            Err(err) => {
                let cause = std::error::Error::source(&err)
                    .map(ToString::to_string)
                    .unwrap_or_default();
                cx.log(3, "broker", &format!("initial program {err}: {cause}"));
                self.exit_code = err.exit_code();
                self.post(cx, "rc2-fail");
            }
        }
    }

    /// Runs the script of an attribute whose value differs from the built-in step, then goes on.
    pub(super) fn run_site_script(&mut self, cx: &mut Cx<'_>, attr: &str, stage: &'static str) {
        let script = cx.attrs.get(attr).unwrap_or("").to_owned();
        if script.is_empty() || script == format!("flux modprobe {stage}") {
            let ok = !self.rc1_failed || stage != "rc1";
            log_end(cx, stage, 0, &script, &Ok(i32::from(!ok)), self.since);
            self.site_script_done(cx, stage, true);
            return;
        }
        let begin = Instant::now();
        let run = run(cx, vec!["/bin/sh".to_owned(), "-c".to_owned(), script.clone()]);
        cx.spawn(run, move |me: &mut Lifecycle, cx, result| {
            log_end(cx, stage, 0, &script, &result, begin);
            me.site_script_done(cx, stage, matches!(result, Ok(0)));
        });
    }

    fn site_script_done(&mut self, cx: &mut Cx<'_>, stage: &str, ok: bool) {
        if !ok && self.exit_code == 0 && !recovers(cx) {
            self.exit_code = 1;
        }
        match (stage, ok && !self.rc1_failed) {
            ("rc1", true) => self.post(cx, "rc1-success"),
            ("rc1", false) if recovers(cx) => self.post(cx, "rc1-ignorefail"),
            ("rc1", false) => self.post(cx, "rc1-fail"),
            _ => self.log_run(cx, "finish", |me, cx| me.unload_next(cx)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::program_argv;

    #[test]
    fn one_word_is_a_shell_line() {
        let words = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(program_argv(&words(&["a", "b"])), ["a", "b"]);
        assert_eq!(program_argv(&words(&["echo hi"]))[1..], ["-c", "echo hi"]);
        assert_eq!(program_argv(&[]).len(), 1);
    }
}
