//! `flux why`: what keeps a job from running?

use std::io::Write;

use clap::{ArgMatches, Command};
use flux_client::NODEID_ANY;
use flux_formats::resource_set::{ResourceKind, ResourceSet};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::common::args::{flag, operand, required};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult};
use crate::common::jobid::parse;
use crate::common::resources::SchedStatus;
use crate::common::time::now;

pub(super) fn args(command: Command) -> Command {
    command
        .arg(flag("json", None, "Write everything that is known as JSON"))
        .arg(operand("jobid", "Job to ask about"))
}

/// The answer of `job-manager.why`.
#[derive(Deserialize)]
struct Why {
    state: String,
    #[serde(default)]
    priority: Option<u64>,
    #[serde(default)]
    queue: Option<String>,
    #[serde(default)]
    ahead: Option<u64>,
    reasons: Vec<Reason>,
    #[serde(default)]
    annotations: Value,
    #[serde(default)]
    jobspec: Value,
}

#[derive(Deserialize)]
struct Reason {
    kind: String,
    text: String,
}

/// Numbers of nodes (0: any), cores and GPUs.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    nodes: u64,
    cores: u64,
    gpus: u64,
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let id = parse(required(matches, "jobid"))?;
    let mut handle = ctx.open()?;
    let mut answer: Value = handle.call("job-manager.why", NODEID_ANY, &json!({"id": id.0}))?;
    let why: Why = serde_json::from_value(answer.clone()).map_err(CmdError::json("job-manager.why"))?;
    let wants = requested(&why.jobspec);
    let waits = why.reasons.iter().any(|reason| reason.kind == "resources");
    let free = if waits {
        let rpc = SchedStatus::start(&mut handle)?;
        SchedStatus::finish(&mut handle, &rpc)
            .ok()
            .map(|status| counts(&status.free()))
    } else {
        None
    };
    let mut out = stdout();
    if matches.get_flag("json") {
        if let Value::Object(answer) = &mut answer {
            answer.shift_remove("jobspec");
            answer.insert(
                "requested".into(),
                json!({"nnodes": wants.nodes, "ncores": wants.cores, "ngpus": wants.gpus}),
            );
            if let Some(free) = &free {
                answer.insert(
                    "free".into(),
                    json!({"nnodes": free.nodes, "ncores": free.cores, "ngpus": free.gpus}),
                );
            }
        }
        writeln!(out, "{answer}").map_err(CmdError::file("stdout"))?;
    } else {
        for line in lines(&why, &wants, free.as_ref(), now()) {
            writeln!(out, "{line}").map_err(CmdError::file("stdout"))?;
        }
    }
    out.flush().map_err(CmdError::file("stdout"))?;
    Ok(0)
}

fn lines(why: &Why, wants: &Counts, free: Option<&Counts>, now: f64) -> Vec<String> {
    let mut lines = Vec::new();
    let place = match (&why.queue, why.priority) {
        (Some(queue), Some(priority)) => format!(" in queue {queue}, priority {priority}"),
        (Some(queue), None) => format!(" in queue {queue}"),
        (None, Some(priority)) => format!(", priority {priority}"),
        (None, None) => String::new(),
    };
    lines.push(format!("state {}{place}", why.state));
    for reason in &why.reasons {
        lines.push(format!("{}: {}", reason.kind, reason.text));
    }
    if let Some(free) = free {
        lines.push(format!("asks for {}; free now: {}", text(wants), text(free)));
        let missing = Counts {
            nodes: wants.nodes.saturating_sub(free.nodes),
            cores: wants.cores.saturating_sub(free.cores),
            gpus: wants.gpus.saturating_sub(free.gpus),
        };
        lines.push(if missing == Counts::default() {
            "enough is free in all: it waits for its turn, or for other nodes than those that are free"
                .to_owned()
        } else {
            format!("missing: {}", text(&missing))
        });
    }
    if let Some(ahead) = why.ahead {
        lines.push(match ahead {
            0 => "place: first of those that wait".to_owned(),
            1 => "place: 1 job is before it".to_owned(),
            more => format!("place: {more} jobs are before it"),
        });
    }
    let estimate = why
        .annotations
        .pointer("/sched/t_estimate")
        .and_then(Value::as_f64);
    if let Some(at) = estimate.filter(|_| why.state == "SCHED") {
        let left = (at - now).max(0.0);
        lines.push(format!(
            "estimate: it starts in {}",
            crate::common::time::fsd(left)
        ));
    }
    if lines.len() == 1 {
        lines.push(match why.state.as_str() {
            "RUN" => "it runs".to_owned(),
            "CLEANUP" => "it has ended and gives its resources back".to_owned(),
            _ => "nothing holds it: it is on its way".to_owned(),
        });
    }
    lines
}

fn text(counts: &Counts) -> String {
    let mut parts = Vec::new();
    let mut add = |count: u64, name: &str| {
        if count > 0 {
            let plural = if count == 1 { "" } else { "s" };
            parts.push(format!("{count} {name}{plural}"));
        }
    };
    add(counts.nodes, "node");
    add(counts.cores, "core");
    add(counts.gpus, "GPU");
    if parts.is_empty() {
        "nothing".to_owned()
    } else {
        parts.join(", ")
    }
}

/// Returns what a set of resources has.
fn counts(set: &ResourceSet) -> Counts {
    Counts {
        nodes: set.count(ResourceKind::Node),
        cores: set.count(ResourceKind::Core),
        gpus: set.count(ResourceKind::Gpu),
    }
}

/// Returns what a jobspec asks for.
fn requested(jobspec: &Value) -> Counts {
    let mut counts = Counts::default();
    let resources = jobspec.get("resources").and_then(Value::as_array);
    for vertex in resources.map(Vec::as_slice).unwrap_or_default() {
        add_up(vertex, 1, &mut counts);
    }
    counts
}

fn add_up(vertex: &Value, factor: u64, counts: &mut Counts) {
    let count = vertex.get("count").and_then(Value::as_u64).unwrap_or(1);
    let all = factor.saturating_mul(count);
    match vertex.get("type").and_then(Value::as_str) {
        Some("node") => counts.nodes += all,
        Some("core") => counts.cores += all,
        Some("gpu") => counts.gpus += all,
        _ => {}
    }
    let below = vertex.get("with").and_then(Value::as_array);
    for vertex in below.map(Vec::as_slice).unwrap_or_default() {
        add_up(vertex, all, counts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_missing() {
        let jobspec = json!({"resources": [{"type": "node", "count": 2, "with": [
            {"type": "slot", "count": 3, "with": [{"type": "core", "count": 4}, {"type": "gpu", "count": 1}]}]}]});
        let wants = requested(&jobspec);
        assert_eq!(
            wants,
            Counts {
                nodes: 2,
                cores: 24,
                gpus: 6
            }
        );
        let why = Why {
            state: "SCHED".into(),
            priority: Some(16),
            queue: None,
            ahead: Some(2),
            reasons: vec![Reason {
                kind: "resources".into(),
                text: "it waits for resources".into(),
            }],
            annotations: json!({"sched": {"t_estimate": 160.0}}),
            jobspec,
        };
        let free = Counts {
            nodes: 1,
            cores: 30,
            gpus: 0,
        };
        assert_eq!(
            lines(&why, &wants, Some(&free), 100.0),
            [
                "state SCHED, priority 16",
                "resources: it waits for resources",
                "asks for 2 nodes, 24 cores, 6 GPUs; free now: 1 node, 30 cores",
                "missing: 1 node, 6 GPUs",
                "place: 2 jobs are before it",
                "estimate: it starts in 1m",
            ]
        );
    }
}
