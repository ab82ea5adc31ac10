//! `flux policy bench`: how much does a policy cost? (In the broker's own host, in this thread; the crossing to the policy thread is not in it.)

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command as Clap, value_parser};
use flux_formats::idset::IdSet;
use flux_policy::pool::Request;
use flux_policy::{
    Answer, Command, HostConfig, IngestJob, PluginSpec, PolicyHost, SchedAnswer, SchedCommand, Submit, World,
};
use serde_json::{Value, json};

use crate::dirs;
use crate::output::print;
use crate::plugins;
use crate::tap;

/// Jobs that end and come in one batch.
const BATCH: u64 = 64;
/// Fewer could not be measured for long enough.
const CORES_MIN: u64 = 600;

/// Returns the definition of the command.
pub(crate) fn command() -> Clap {
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("N")
            .value_parser(value_parser!(u32).range(1..=1_000_000))
            .default_value(default)
            .help(help)
    };
    Clap::new("bench")
        .about("Measure how much a policy costs")
        .arg(
            Arg::new("name")
                .value_name("NAME")
                .required(true)
                .help("Policy, for example sched-easy or validator-jobspec"),
        )
        .arg(dirs::argument())
        .arg(number(
            "calls",
            "5000",
            "Calls of a validator or frobnicator, jobs of a jobtap plugin, batches of a scheduler",
        ))
        .arg(number("nodes", "1000", "Nodes, for a scheduler"))
        .arg(number("cores", "48", "Cores of each node"))
        .arg(number(
            "pending",
            "1000",
            "Jobs that wait; a scheduler looks at all of them",
        ))
        .arg(
            Arg::new("jobspec")
                .long("jobspec")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Jobspec to submit [default: one of 1.9 KB]"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print JSON"),
        )
}

/// Runs it.
///
/// # Errors
/// When the policy cannot be loaded or fails.
pub(crate) fn main(args: &ArgMatches) -> Result<()> {
    let dir = dirs::policies(args.get_one::<PathBuf>("dir"));
    let name = args.get_one::<String>("name").context("a name")?;
    let manifest = plugins::manifest(&dir, name)?;
    let number = |name: &str| args.get_one::<u32>(name).copied().unwrap_or(1);
    let figures = match manifest.world {
        World::Scheduler => {
            let size = Size {
                nodes: number("nodes"),
                cores: number("cores"),
                pending: u64::from(number("pending")),
                batches: number("calls").min(2000),
            };
            scheduler(dir, name, size)?
        }
        World::Jobtap => figures(tap::bench::run(&dir, name, &jobspec(args)?, number("calls"))?),
        world @ (World::Validator | World::Frobnicator) => {
            ingest(dir, name, world, &jobspec(args)?, number("calls"))?
        }
    };
    if args.get_flag("json") {
        print(&Value::Object(figures).to_string());
    } else {
        for (key, value) in &figures {
            let number = value
                .as_f64()
                .map_or_else(|| value.to_string(), |number| format!("{number:.2}"));
            print(&format!("{:32}{number:>16}", key.replace('_', " ")));
        }
    }
    Ok(())
}

/// Returns the jobspec to submit.
fn jobspec(args: &ArgMatches) -> Result<String> {
    let Some(path) = args.get_one::<PathBuf>("jobspec") else {
        return Ok(sample());
    };
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

type Figures = serde_json::Map<String, Value>;

fn figures(of: Value) -> Figures {
    match of {
        Value::Object(map) => map,
        _ => Figures::new(),
    }
}

#[derive(Clone, Copy)]
struct Size {
    nodes: u32,
    cores: u32,
    pending: u64,
    batches: u32,
}

/// Keeps a machine full of jobs of one core. The first waiting job wants all nodes, so that a scheduler that plans has to look at all others.
fn scheduler(dir: PathBuf, name: &str, size: Size) -> Result<Figures> {
    let config = json!({"sched-simple": {"queue-depth": size.pending + BATCH}});
    let mut host = PolicyHost::inline(HostConfig {
        dir,
        scheduler: Some(PluginSpec::new(name, World::Scheduler)),
        config: config.to_string().into(),
        ..HostConfig::default()
    })?;
    let plans = name != "sched-fcfs";
    let all = u64::from(size.nodes) * u64::from(size.cores);
    let r = json!({"version": 1, "execution": {"starttime": 0.0, "expiration": 0.0, "nodelist": [format!("node[0-{}]", size.nodes.max(2) - 1)],
        "R_lite": [{"rank": IdSet::first_n(size.nodes.max(2)).to_string(), "children": {"core": IdSet::first_n(size.cores).to_string()}}]}});
    let mut answers = Vec::new();
    let mut send = |now: f64, commands: Vec<SchedCommand>| -> Result<usize> {
        host.send(now, commands.into_iter().map(Command::Sched).collect())
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        answers.clear();
        host.receive(&mut answers);
        for answer in &answers {
            if let Answer::Log(log) = answer {
                ensure!(log.level > 3, "{}: {}", log.plugin, log.message);
            }
        }
        Ok(answers
            .iter()
            .filter(|answer| matches!(answer, Answer::Sched(SchedAnswer::Alloc { .. })))
            .count())
    };
    let all = if size.nodes < 2 { all * 2 } else { all };
    ensure!(
        all >= CORES_MIN,
        "the machine must have {CORES_MIN} cores or more: give larger --nodes or --cores"
    );
    // as long as there are jobs of the beginning, the first waiting one has a late start
    let batches =
        u32::try_from((all - CORES_MIN / 2) / BATCH).map_or(size.batches, |most| most.min(size.batches));
    let mut first: Vec<_> = vec![SchedCommand::Define {
        r: r.to_string().into(),
    }];
    first.extend((1..=all).map(|id| job(id, 17, 1, 10_000.0 + secs(id * 37 % 5000))));
    ensure!(
        u64::try_from(send(0.0, first)?)? == all,
        "the machine was not filled"
    );
    if plans {
        let head = Request {
            nnodes: size.nodes.max(2),
            nslots: size.nodes.max(2),
            cores_per_slot: size.cores,
            duration_secs: 60.0,
            ..Request::default()
        };
        send(0.0, vec![submit(all + 1, 18, head)])?;
    }
    let mut next = all + 2;
    let waiting: Vec<_> = (0..size.pending).map(|at| job(next + at, 16, 1, 300.0)).collect();
    next += size.pending;
    send(0.0, waiting)?;
    let mut running: std::collections::VecDeque<u64> = (1..=all).collect();
    let mut times = Vec::new();
    let mut starts = 0;
    for batch in 0..batches {
        let mut commands: Vec<_> = (0..BATCH).map(|at| job(next + at, 16, 1, 300.0)).collect();
        for _ in 0..BATCH {
            let id = running.pop_front().context("a job that runs")?;
            commands.push(SchedCommand::Free { id, ranks: None });
        }
        // the oldest of those that wait start
        running.extend(next - size.pending..next - size.pending + BATCH);
        next += BATCH;
        let begun = Instant::now();
        let count = send(1.0 + f64::from(batch), commands)?;
        times.push(begun.elapsed().as_secs_f64());
        ensure!(
            u64::try_from(count)? == BATCH,
            "{count} jobs started instead of {BATCH}"
        );
        starts += BATCH;
    }
    let one = one_allocation(&mut send, &mut running, &mut next)?;
    let total: f64 = times.iter().sum();
    let looked_at = if plans { BATCH + size.pending } else { BATCH };
    #[expect(clippy::cast_precision_loss, reason = "counts")]
    let rate = |count: u64| count as f64 / total;
    Ok(figures(json!({
        "decisions_per_second": rate(looked_at * u64::from(batches)),
        "starts_per_second": rate(starts),
        "batch_p50_us": quantile(&mut times, 50) * 1e6,
        "batch_p99_us": quantile(&mut times, 99) * 1e6,
        "one_allocation_us": one * 1e6,
    })))
}

/// Returns the median time of one release and the allocation that follows.
fn one_allocation(
    send: &mut impl FnMut(f64, Vec<SchedCommand>) -> Result<usize>,
    running: &mut std::collections::VecDeque<u64>,
    next: &mut u64,
) -> Result<f64> {
    let mut times = Vec::new();
    for at in 0..201 {
        let id = running.pop_front().context("a job that runs")?;
        send(5000.0 + f64::from(at), vec![job(*next, 16, 1, 300.0)])?;
        *next += 1;
        let begun = Instant::now();
        let count = send(
            5000.5 + f64::from(at),
            vec![SchedCommand::Free { id, ranks: None }],
        )?;
        times.push(begun.elapsed().as_secs_f64());
        ensure!(count == 1, "{count} jobs started instead of 1");
    }
    Ok(quantile(&mut times, 50))
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand seconds")]
fn secs(value: u64) -> f64 {
    value as f64
}

fn job(id: u64, priority: u64, nslots: u32, duration_secs: f64) -> SchedCommand {
    submit(
        id,
        priority,
        Request {
            nslots,
            cores_per_slot: 1,
            duration_secs,
            ..Request::default()
        },
    )
}

fn submit(id: u64, priority: u64, request: Request) -> SchedCommand {
    SchedCommand::Submit(Box::new(Submit {
        id,
        priority,
        userid: 1,
        t_submit: 0.0,
        queue: "".into(),
        request,
    }))
}

/// Submits one job again and again.
fn ingest(dir: PathBuf, name: &str, world: World, jobspec: &str, calls: u32) -> Result<Figures> {
    let spec = PluginSpec::new(name, world);
    let mut config = HostConfig {
        dir,
        ..HostConfig::default()
    };
    match world {
        World::Validator => config.validators = vec![spec],
        _ => config.frobnicators = vec![spec],
    }
    let loading = Instant::now();
    let mut host = PolicyHost::inline(config)?;
    let load = loading.elapsed().as_secs_f64();
    let jobspec: std::sync::Arc<str> = jobspec.into();
    let (mut times, mut refused) = (Vec::new(), 0_u32);
    let mut answers = Vec::new();
    for _ in 0..calls {
        let job = Box::new(IngestJob {
            userid: 1000,
            rolemask: 2,
            urgency: 16,
            flags: 0,
            novalidate: false,
            jobspec: jobspec.clone(),
        });
        let begun = Instant::now();
        host.send(1.0, vec![Command::Ingest { token: 0, job }])
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        times.push(begun.elapsed().as_secs_f64());
        answers.clear();
        host.receive(&mut answers);
        let is_refusal = |answer: &Answer| matches!(answer, Answer::Ingest { result: Err(_), .. });
        refused += u32::from(answers.iter().any(is_refusal));
    }
    Ok(figures(json!({
        "load_us": load * 1e6,
        "call_p50_us": quantile(&mut times, 50) * 1e6,
        "call_p99_us": quantile(&mut times, 99) * 1e6,
        "calls": calls,
        "refused": refused,
        "jobspec_bytes": jobspec.len(),
    })))
}

/// Returns the time that so many of a hundred do not exceed.
pub(crate) fn quantile(times: &mut [f64], part: usize) -> f64 {
    times.sort_by(f64::total_cmp);
    times
        .get(times.len().saturating_sub(1) * part / 100)
        .copied()
        .unwrap_or(0.0)
}

fn sample() -> String {
    let environment: Figures = (0..25)
        .map(|number| {
            (
                format!("VARIABLE_{number}"),
                json!("/usr/local/bin:/usr/bin:/bin:/some/longer/path"),
            )
        })
        .collect();
    json!({"resources": [{"type": "slot", "count": 1, "with": [{"type": "core", "count": 1}], "label": "task"}],
        "tasks": [{"command": ["true"], "slot": "task", "count": {"per_slot": 1}}],
        "attributes": {"system": {"duration": 0, "environment": environment, "cwd": "/home/user"}}, "version": 1})
    .to_string()
}
