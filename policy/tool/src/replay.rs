//! `flux policy replay`: what would a policy have said to a job of the past?

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use anyhow::{Context, Result, bail, ensure};
use clap::{Arg, ArgMatches, Command};
use flux_policy::{PluginSpec, World};
use serde_json::{Value, json};

use crate::output::print;
use crate::tap::replay::Recorded;
use crate::test::submit;
use crate::{dirs, plugins, tap};

/// Returns the definition of `replay`.
pub(crate) fn command() -> Command {
    Command::new("replay")
        .about("Give a real job to a policy: its jobspec, or to a jobtap plugin all its events")
        .arg(
            Arg::new("name")
                .value_name("NAME")
                .required(true)
                .help("Policy, for example validator-jobspec"),
        )
        .arg(
            Arg::new("job")
                .value_name("JOB")
                .required(true)
                .help("Job id of the running instance, a file with a jobspec, or a directory with eventlog, jobspec and R"),
        )
        .arg(
            Arg::new("args")
                .long("args")
                .value_name("JSON")
                .help("Arguments of the plugin"),
        )
        .arg(dirs::argument())
}

/// Gives a job to a policy and says what it answers.
///
/// # Errors
/// When the job or the policy cannot be read, or it refuses.
pub(crate) fn main(args: &ArgMatches) -> Result<()> {
    let text = |name: &str| args.get_one::<String>(name).map_or("", String::as_str);
    let (name, job) = (text("name"), text("job"));
    let dir = dirs::policies(args.get_one::<PathBuf>("dir"));
    let manifest = plugins::manifest(&dir, name)?;
    let given: Value = match args.get_one::<String>("args") {
        Some(text) => serde_json::from_str(text).context("--args must be JSON")?,
        None => Value::Null,
    };
    let recorded = Path::new(job).exists();
    let config = if recorded { json!({}) } else { config()? };
    let mut spec = PluginSpec::new(manifest.name.as_str(), manifest.world);
    if !given.is_null() {
        spec.args = given;
    }
    match manifest.world {
        World::Jobtap => return tap::replay::run(&dir, spec, &config, &Recorded::read(job)?),
        World::Scheduler => bail!(
            "a scheduler is tried over many jobs: 'flux jobs -a --json >trace', then 'flux policy simulate trace -p {name}'"
        ),
        World::Validator | World::Frobnicator => {}
    }
    let jobspec = if Path::new(job).is_file() {
        fs::read_to_string(job)?
    } else if recorded {
        let path = Path::new(job).join("jobspec");
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?
    } else {
        flux(&["job", "info", job, "jobspec"])?
    };
    let jobspec: Value = serde_json::from_str(&jobspec).with_context(|| format!("the jobspec of {job}"))?;
    let (answer, logs) = submit(&dir, spec, config.to_string(), (&jobspec, 16, 0))?;
    for log in logs {
        print(&format!("log: {log}"));
    }
    match answer {
        Ok(accepted) if accepted.changed => print(&accepted.jobspec),
        Ok(_) => print("accepted"),
        Err(refusal) => bail!("refused with error number {}: {}", refusal.errnum, refusal.text),
    }
    Ok(())
}

/// Returns the configuration of the running instance.
fn config() -> Result<Value> {
    let text = flux(&["config", "get"])?;
    serde_json::from_str(&text).context("the configuration of the instance")
}

/// Returns what a sub-command of flux prints.
///
/// # Errors
/// What it complains of.
pub(crate) fn flux(words: &[&str]) -> Result<String> {
    let output = Process::new("flux")
        .args(words)
        .output()
        .context("cannot run flux")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
