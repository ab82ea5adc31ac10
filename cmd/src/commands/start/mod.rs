//! `flux start`: start an instance, either as one process of a parallel launch or as N brokers on this machine.

mod recovery;
mod test_mode;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command as Process;

use clap::{ArgMatches, Command};
use flux_formats::hostlist::Hostlist;

use crate::common::args::{flag, list, optional, parsed, text, trailing, value, values, verbose, verbosity};
use crate::common::ctx::Ctx;
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::time::parse_fsd;
use crate::paths;

/// Environment variable that names the broker program.
const BROKER_PATH: &str = "FLUX_BROKER_PATH";
/// Options that only make sense with `--test-size`.
const TEST_ONLY: [&str; 7] = [
    "test-hosts",
    "test-exit-timeout",
    "test-exit-mode",
    "test-start-mode",
    "test-rundir",
    "test-pmi-clique",
    "killer-timeout",
];

pub(super) fn args(command: Command) -> Command {
    verbose(command)
        .arg(values("setattr", Some('S'), "ATTR=VAL", "Set broker attribute"))
        .arg(value(
            "config-path",
            Some('c'),
            "PATH",
            "Set broker config from PATH",
        ))
        .arg(values(
            "conf",
            None,
            "VALUE",
            "Set broker config from a KEY=VAL, file or string",
        ))
        .arg(optional(
            "recovery",
            Some('r'),
            "TARGET",
            "",
            "Start instance in recovery mode with dump file or statedir",
        ))
        .arg(flag("sysconfig", None, "Load system configuration"))
        .arg(flag(
            "noexec",
            Some('X'),
            "Don't execute (useful with -v, --verbose)",
        ))
        .arg(values(
            "broker-opts",
            Some('o'),
            "OPTS",
            "Add comma-separated broker options, e.g. \"-o,-v\"",
        ))
        .arg(value(
            "wrap",
            None,
            "ARGS,...",
            "Wrap broker execution in comma-separated arguments",
        ))
        .arg(value(
            "test-size",
            Some('s'),
            "N",
            "Start a test instance by launching N brokers locally",
        ))
        .arg(value(
            "test-hosts",
            None,
            "HOSTLIST",
            "Set a hostname for each broker",
        ))
        .arg(value(
            "test-exit-timeout",
            None,
            "FSD",
            "After a broker exits, kill other brokers after timeout (default 20s)",
        ))
        .arg(value(
            "test-exit-mode",
            None,
            "any|leader",
            "Trigger exit timer on leader/any broker exit (default any)",
        ))
        .arg(value(
            "test-start-mode",
            None,
            "all|leader",
            "Start all brokers or only the leader (default all)",
        ))
        .arg(value("test-rundir", None, "DIR", "Use DIR as broker run directory").alias("rundir"))
        .arg(flag(
            "test-rundir-cleanup",
            None,
            "Clean up --test-rundir DIR upon flux-start completion",
        ))
        .arg(value(
            "test-pmi-clique",
            None,
            "single|per-broker|none|TASKMAP",
            "Set PMI_process_mapping mode (default single)",
        ))
        .arg(value("killer-timeout", None, "FSD", "Time between SIGTERM and SIGKILL").hide(true))
        .arg(trailing(
            "command",
            false,
            "Initial program; an interactive shell if absent",
        ))
}

/// What every broker is started with.
#[derive(Debug, Default)]
struct Launch {
    wrap: Vec<String>,
    broker: OsString,
    options: Vec<String>,
    command: Vec<String>,
    verbose: u32,
    noexec: bool,
}

/// When to end the other brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExitMode {
    Any,
    Leader,
}

/// The settings of test mode.
#[derive(Debug)]
struct TestOptions {
    size: u32,
    hosts: Option<Vec<String>>,
    exit_timeout_secs: f64,
    exit_mode: ExitMode,
    leader_only: bool,
    rundir: Option<PathBuf>,
    rundir_cleanup: bool,
    clique: String,
    killer_timeout_secs: f64,
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut launch = Launch {
        wrap: comma_list(text(matches, "wrap")),
        broker: paths::find_program("flux-broker", BROKER_PATH).into_os_string(),
        options: Vec::new(),
        command: list(matches, "command").into_iter().map(str::to_owned).collect(),
        verbose: verbosity(matches)?,
        noexec: matches.get_flag("noexec"),
    };
    for opts in list(matches, "broker-opts") {
        launch.options.extend(comma_list(Some(opts)));
    }
    for setting in list(matches, "setattr") {
        if !setting.contains('=') {
            return usage(format!("--setattr: '{setting}' is not ATTR=VAL"));
        }
        launch.options.push(format!("-S{setting}"));
    }
    let mut system_config = matches.get_flag("sysconfig");
    if matches.contains_id("recovery") {
        if parsed::<u32>(matches, "test-size")?.is_some_and(|size| size > 1) {
            return usage("--recovery starts one broker only: use --test-size=1 with it, or no --test-size");
        }
        let target = text(matches, "recovery").filter(|target| !target.is_empty());
        let recovery = recovery::options(target)?;
        launch.options.extend(recovery.options);
        system_config |= recovery.system;
    }
    if system_config {
        launch
            .options
            .push(format!("--config-path={}", paths::system_config().display()));
    }
    if let Some(path) = text(matches, "config-path") {
        if system_config {
            ctx.warn(format!(
                "--config-path={path} overrides the configuration of the system instance"
            ));
        }
        launch.options.push(format!("--config-path={path}"));
    }
    launch.options.extend(
        list(matches, "conf")
            .into_iter()
            .map(|conf| format!("--conf={conf}")),
    );
    match parsed::<u32>(matches, "test-size")? {
        Some(0) => usage("--test-size argument must be > 0"),
        Some(size) => test_mode::run(ctx, &launch, test_options(matches, size)?),
        None => {
            if let Some(name) = TEST_ONLY.iter().find(|name| matches.contains_id(name)) {
                return usage(format!("--{name} only works with --test-size=N"));
            }
            if matches.get_flag("test-rundir-cleanup") {
                return usage("--test-rundir-cleanup only works with --test-size=N");
            }
            exec_broker(ctx, &launch)
        }
    }
}

/// Splits at commas, dropping empty words (`-o,-v`).
fn comma_list(text: Option<&str>) -> Vec<String> {
    text.unwrap_or("")
        .split(',')
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

fn test_options(matches: &ArgMatches, size: u32) -> Result<TestOptions, CmdError> {
    let seconds = |id: &str, default: f64| text(matches, id).map_or(Ok(default), parse_fsd);
    let exit_mode = match text(matches, "test-exit-mode") {
        None | Some("any") => ExitMode::Any,
        Some("leader") => ExitMode::Leader,
        Some(_) => return usage("--test-exit-mode only accepts \"any\" and \"leader\""),
    };
    let leader_only = match text(matches, "test-start-mode") {
        None | Some("all") => false,
        Some("leader") => true,
        Some(_) => return usage("--test-start-mode only accepts \"all\" and \"leader\""),
    };
    let hosts = match text(matches, "test-hosts") {
        None => None,
        Some(text) => {
            let Ok(hosts) = text.parse::<Hostlist>() else {
                return usage("could not parse --test-hosts hostlist");
            };
            let names: Vec<String> = hosts.iter().collect();
            if u32::try_from(names.len()) != Ok(size) {
                return usage(format!(
                    "--test-hosts hostlist has incorrect size ({} hosts for {size} brokers)",
                    names.len()
                ));
            }
            Some(names)
        }
    };
    let rundir = text(matches, "test-rundir").map(PathBuf::from);
    let rundir_cleanup = matches.get_flag("test-rundir-cleanup");
    if let Some(dir) = &rundir {
        let about = std::fs::metadata(dir).map_err(CmdError::file(dir.display().to_string()))?;
        if !about.is_dir() {
            return fail(format!("{}: not a directory", dir.display()));
        }
    } else if rundir_cleanup {
        return usage("--test-rundir-cleanup can only be used with --test-rundir");
    }
    Ok(TestOptions {
        size,
        hosts,
        exit_timeout_secs: seconds("test-exit-timeout", 20.0)?,
        exit_mode,
        leader_only,
        rundir,
        rundir_cleanup,
        clique: text(matches, "test-pmi-clique").unwrap_or("single").to_owned(),
        killer_timeout_secs: seconds("killer-timeout", 2.0)?,
    })
}

impl Launch {
    /// Returns the whole command line of a broker; `extra` are its own options, only the leader gets the program.
    fn argv(&self, extra: &[String], leader: bool) -> Vec<OsString> {
        let mut argv: Vec<OsString> = self.wrap.iter().map(OsString::from).collect();
        argv.push(self.broker.clone());
        argv.extend(extra.iter().chain(&self.options).map(OsString::from));
        if leader {
            if self.command.first().is_some_and(|word| word.starts_with('-')) {
                argv.push(OsString::from("--"));
            }
            argv.extend(self.command.iter().map(OsString::from));
        }
        argv
    }

    /// Prints a command line when `-v` asks for it.
    fn show(&self, ctx: &Ctx, prefix: &str, argv: &[OsString]) {
        if self.verbose > 0 {
            let words: Vec<_> = argv.iter().map(|word| word.to_string_lossy()).collect();
            ctx.warn(format!("{prefix}{}", words.join(" ")));
        }
    }
}

fn exec_broker(ctx: &Ctx, launch: &Launch) -> CmdResult {
    let argv = launch.argv(&[], true);
    launch.show(ctx, "", &argv);
    if launch.noexec {
        return Ok(0);
    }
    let Some((program, rest)) = argv.split_first() else {
        return Ok(1);
    };
    let err = Process::new(program)
        .args(rest)
        .env_clear()
        .envs(ctx.env.iter().map(|(k, v)| (k, v)))
        .exec();
    Err(CmdError::file(program.to_string_lossy())(err))
}
