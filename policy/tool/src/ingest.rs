//! `flux job-validator` and `flux job-frobnicator`: the policies of ingest over standard input, one job a line.
//!
//! A line is `{"jobspec": {...}, "userid": N, "rolemask": N, "urgency": N, "flags": N}`, or a jobspec alone with `--jobspec-only`; the answer is
//! `{"errnum": 0}`, with `errstr` for a refusal and `data` for the jobspec of a frobnicator. As flux-core's programs of these names, which its broker
//! runs; ours loads the policies itself.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Arg, ArgAction, ArgMatches, Command};
use flux_policy::{Answer, Command as ToHost, HostConfig, IngestJob, PluginSpec, PolicyHost, World};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::dirs;
use crate::output::print;

/// Policies that come with Flux, as the list shows them.
const KNOWN: &[(&str, &str)] = &[
    (
        "validator-feasibility",
        "Use the scheduler's feasibility.check to validate job",
    ),
    ("validator-jobspec", "Require a jobspec of version 1"),
    (
        "validator-require-instance",
        "Require that all jobs are new instances of Flux",
    ),
    ("validator-schema", "Validate jobspec using a JSON schema"),
    (
        "frobnicator-defaults",
        "Add the defaults of the configuration and the queue",
    ),
    (
        "frobnicator-constraints",
        "Add the constraints that the queue requires",
    ),
];

/// Returns the definition of `job-validator` or `job-frobnicator`.
pub(crate) fn command(name: &'static str) -> Command {
    let about = if name == "job-validator" {
        "Validate jobspecs at ingest"
    } else {
        "Modify jobspecs at ingest"
    };
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    Command::new(name)
        .about(about)
        .hide(true)
        .arg(flag("list-plugins", "List the available plugins and exit"))
        .arg(flag("jobspec-only", "Read a jobspec alone from each line"))
        .arg(
            Arg::new("plugins")
                .long("plugins")
                .value_name("LIST")
                .value_delimiter(',')
                .help("Plugins to load, in order"),
        )
        .arg(dirs::argument())
}

/// A line of the input.
#[derive(Deserialize)]
struct Job {
    jobspec: Value,
    #[serde(default)]
    userid: u32,
    #[serde(default)]
    rolemask: u32,
    #[serde(default = "sixteen")]
    urgency: u32,
    #[serde(default)]
    flags: u32,
}

fn sixteen() -> u32 {
    16
}

/// Runs one of the two.
///
/// # Errors
/// When a policy cannot be loaded, or the input is malformed.
pub(crate) fn main(world: World, args: &ArgMatches) -> Result<()> {
    let dir = dirs::policies(args.get_one::<PathBuf>("dir"));
    let prefix = format!("{world}-");
    if args.get_flag("list-plugins") {
        return list(&dir, &prefix);
    }
    let default: &[&str] = if world == World::Validator {
        &["jobspec"]
    } else {
        &["defaults", "constraints"]
    };
    let named: Vec<String> = match args.get_many::<String>("plugins") {
        Some(names) => names.cloned().collect(),
        None => default.iter().map(|name| (*name).to_owned()).collect(),
    };
    let specs = named
        .iter()
        .map(|name| PluginSpec::new(format!("{prefix}{name}"), world))
        .collect();
    // outside of an instance there is no configuration
    let config = if std::env::var_os("FLUX_URI").is_some() {
        crate::replay::flux(&["config", "get"])?
    } else {
        "{}".to_owned()
    };
    let mut to = HostConfig {
        dir,
        config: config.into(),
        ..HostConfig::default()
    };
    if world == World::Validator {
        to.validators = specs;
    } else {
        to.frobnicators = specs;
    }
    let mut host = PolicyHost::inline(to)?;
    let mut answers = Vec::new();
    host.receive(&mut answers);
    for (number, line) in BufReader::new(std::io::stdin()).lines().enumerate() {
        let line = line.context("cannot read the standard input")?;
        if line.trim().is_empty() {
            continue;
        }
        let job =
            read(&line, args.get_flag("jobspec-only")).with_context(|| format!("line {}", number + 1))?;
        print(&check(&mut host, job, world)?.to_string());
    }
    Ok(())
}

fn read(line: &str, jobspec_only: bool) -> Result<Job> {
    if jobspec_only {
        let jobspec = serde_json::from_str(line).context("a jobspec must be JSON")?;
        return Ok(Job {
            jobspec,
            userid: 0,
            rolemask: 1,
            urgency: 16,
            flags: 0,
        });
    }
    serde_json::from_str(line)
        .context("a job must be an object with a jobspec (a jobspec alone is read with --jobspec-only)")
}

/// Lets the policies look at one job.
fn check(host: &mut PolicyHost, job: Job, world: World) -> Result<Value> {
    let job = Box::new(IngestJob {
        userid: job.userid,
        rolemask: job.rolemask,
        urgency: job.urgency,
        flags: job.flags,
        novalidate: false,
        jobspec: job.jobspec.to_string().into(),
    });
    host.send(1.0, vec![ToHost::Ingest { token: 1, job }])
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut answers = Vec::new();
    host.receive(&mut answers);
    let result = answers.into_iter().find_map(|answer| match answer {
        Answer::Ingest { result, .. } => Some(result),
        _ => None,
    });
    Ok(match result.context("the policies did not answer")? {
        Ok(accepted) if world == World::Frobnicator => {
            json!({"errnum": 0, "data": serde_json::from_str::<Value>(&accepted.jobspec)?})
        }
        Ok(_) => json!({"errnum": 0}),
        Err(refusal) => json!({"errnum": refusal.errnum, "errstr": refusal.text}),
    })
}

fn list(dir: &Path, prefix: &str) -> Result<()> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .filter(|name| name.starts_with(prefix))
        .collect();
    // a question to the scheduler, not a component
    names.extend(
        KNOWN
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .filter(|name| name == "validator-feasibility" && name.starts_with(prefix)),
    );
    names.sort_unstable();
    print("Available plugins:");
    for name in names {
        let about = KNOWN
            .iter()
            .find(|(known, _)| *known == name)
            .map_or("", |(_, about)| about);
        let short = name.strip_prefix(prefix).unwrap_or(&name);
        print(format!("{short:22}{about}").trim_end());
    }
    Ok(())
}
