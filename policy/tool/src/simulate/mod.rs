//! `flux policy simulate`: what would these policies have done with this trace?

mod check;
mod figures;
mod page;
mod run;
mod trace;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::json;

use crate::dirs;
use crate::output::print;
use run::Machine;

/// Returns the definition of the command.
pub(crate) fn command() -> Command {
    let number = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("N")
            .value_parser(value_parser!(u32).range(1..))
            .help(help)
    };
    Command::new("simulate")
        .about("Run schedulers over a trace and compare them")
        .arg(Arg::new("trace").value_name("TRACE").value_parser(value_parser!(PathBuf))
            .help("Trace in the Standard Workload Format, or the output of 'flux jobs -a --json'"))
        .arg(Arg::new("generate").long("generate").value_name("JOBS").value_parser(value_parser!(u32).range(1..))
            .conflicts_with("trace").help("Make up a trace of JOBS jobs instead"))
        .arg(Arg::new("seed").long("seed").value_name("N").value_parser(value_parser!(u64)).default_value("1").help("Seed of a made-up trace"))
        .arg(Arg::new("load").long("load").value_name("PART").value_parser(value_parser!(f64)).default_value("0.9")
            .help("Load of a made-up trace; 1.0 is all that the machine can do"))
        .arg(Arg::new("policy").short('p').long("policy").value_name("NAME").action(ArgAction::Append)
            .help("Scheduler to run: fcfs, easy, conservative, hybrid, or the name of your own; several are compared [default: fcfs and easy]"))
        .arg(dirs::argument())
        .arg(number("nodes", "Nodes of the machine [default: what the trace says]"))
        .arg(number("cores", "Cores of each node [default: 1, or 48 for a made-up trace]"))
        .arg(number("jobs", "Take only the first N jobs of the trace"))
        .arg(Arg::new("whole-nodes").long("whole-nodes").action(ArgAction::SetTrue).help("Give jobs whole nodes"))
        .arg(Arg::new("config").long("config").value_name("FILE").value_parser(value_parser!(PathBuf))
            .help("Configuration of the broker as JSON ('flux config get'), for the policies to read"))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON"))
        .arg(Arg::new("html").long("html").value_name("FILE").value_parser(value_parser!(PathBuf)).help("Write a page with charts"))
}

/// Runs it.
///
/// # Errors
/// What cannot be read, loaded or written.
pub(crate) fn main(args: &ArgMatches) -> Result<()> {
    let count = |name: &str| args.get_one::<u32>(name).copied();
    let (trace, machine) = input(args)?;
    let policies: Vec<String> = match args.get_many::<String>("policy") {
        Some(names) => names.cloned().collect(),
        None => vec!["fcfs".to_owned(), "easy".to_owned()],
    };
    let config = match args.get_one::<PathBuf>("config") {
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        None => "{}".to_owned(),
    };
    let dir = dirs::policies(args.get_one::<PathBuf>("dir"));
    let mut trace = trace;
    if let Some(jobs) = count("jobs").and_then(|jobs| usize::try_from(jobs).ok()) {
        trace.jobs.truncate(jobs);
    }
    let mut runs = Vec::new();
    for policy in &policies {
        runs.push(run::run(&dir, policy, &config, machine, &trace)?);
    }
    let all: Vec<_> = runs
        .iter()
        .map(|run| figures::figures(run, &trace, machine))
        .collect();
    if let Some(path) = args.get_one::<PathBuf>("html") {
        let page = page::page(&trace, machine, &runs, &all);
        std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.get_flag("json") {
        let value = json!({"trace": trace.name, "skipped": trace.skipped, "nodes": machine.nodes, "cores_per_node": machine.cores,
            "whole_nodes": machine.whole_nodes, "policies": all});
        print(&value.to_string());
    } else {
        print_table(&trace, machine, &runs, &all);
    }
    if let Some(bad) = all.iter().find(|figures| figures.checks.head_delays > 0) {
        let first = bad.checks.first_delay.as_deref().unwrap_or("");
        bail!(
            "{} delayed the first job {} times: {first}",
            bad.policy,
            bad.checks.head_delays
        );
    }
    Ok(())
}

fn input(args: &ArgMatches) -> Result<(trace::Trace, Machine)> {
    let count = |name: &str| args.get_one::<u32>(name).copied();
    let (nodes, cores) = (count("nodes"), count("cores"));
    let whole_nodes = args.get_flag("whole-nodes");
    if let Some(jobs) = count("generate") {
        let machine = Machine {
            nodes: nodes.unwrap_or(100),
            cores: cores.unwrap_or(48),
            whole_nodes,
        };
        let all = u32::try_from(machine.cores_all()).context("the machine is too large")?;
        let load = args.get_one::<f64>("load").copied().unwrap_or(0.9);
        ensure!(
            load > 0.0 && load.is_finite(),
            "--load must be above 0, for example 0.9"
        );
        let seed = args.get_one::<u64>("seed").copied().unwrap_or(1);
        let jobs = usize::try_from(jobs).unwrap_or(usize::MAX);
        return Ok((trace::generate(jobs, all, load, seed), machine));
    }
    let path = args
        .get_one::<PathBuf>("trace")
        .context("name a trace, or make one up with --generate=JOBS")?;
    let trace = trace::read(path)?;
    let cores = cores.unwrap_or(1);
    let nodes = match nodes.or_else(|| trace.cores.map(|all| (all / cores).max(1))) {
        Some(nodes) => nodes,
        None => bail!("the trace does not say how large the machine was: give --nodes and --cores"),
    };
    Ok((
        trace,
        Machine {
            nodes,
            cores,
            whole_nodes,
        },
    ))
}

fn print_table(trace: &trace::Trace, machine: Machine, runs: &[run::Run], all: &[figures::Figures]) {
    let skipped = match trace.skipped {
        0 => String::new(),
        count => format!(" ({count} that never ran left out)"),
    };
    print(&format!(
        "{}{skipped} on {} nodes of {} cores",
        trace.name, machine.nodes, machine.cores
    ));
    let names: String = all
        .iter()
        .map(|figures| format!("{:>14}", figures.policy))
        .collect();
    print(&format!("{:36}{names}", ""));
    for (name, values) in figures::rows(all) {
        let values: String = values.iter().map(|value| format!("{value:>14}")).collect();
        print(&format!("{name:36}{values}"));
    }
    for said in runs.iter().flat_map(|run| &run.said) {
        print(said);
    }
}
