//! What the tests of schedulers share.

use flux_formats::idset::IdSet;
use flux_policy::pool::Request;
use flux_policy::{Answer, Command, LogRecord, PolicyHost, SchedAnswer, SchedCommand, Submit};
use serde_json::json;

pub(crate) fn send(
    host: &mut PolicyHost,
    now: f64,
    commands: Vec<SchedCommand>,
) -> (Vec<SchedAnswer>, Vec<LogRecord>) {
    host.send(now, commands.into_iter().map(Command::Sched).collect())
        .unwrap();
    let mut answers = Vec::new();
    host.receive(&mut answers);
    let mut logs = Vec::new();
    let mut sched = Vec::new();
    for answer in answers {
        match answer {
            Answer::Sched(answer) => sched.push(answer),
            Answer::Log(log) => logs.push(log),
            _ => {}
        }
    }
    (sched, logs)
}

pub(crate) fn define(ranks: u32, cores: u32) -> SchedCommand {
    let r = json!({"version": 1, "execution": {"R_lite": [
        {"rank": IdSet::first_n(ranks).to_string(), "children": {"core": IdSet::first_n(cores).to_string()}}],
        "starttime": 0.0, "expiration": 0.0, "nodelist": [format!("n[0-{}]", ranks - 1)]}});
    SchedCommand::Define {
        r: r.to_string().into(),
    }
}

/// Slots of one core on any nodes.
pub(crate) fn request(nslots: u32) -> Request {
    Request {
        nslots,
        cores_per_slot: 1,
        ..Request::default()
    }
}

pub(crate) fn submit_request(id: u64, priority: u64, queue: &str, request: Request) -> SchedCommand {
    SchedCommand::Submit(Box::new(Submit {
        id,
        priority,
        userid: 1,
        t_submit: 0.0,
        queue: queue.into(),
        request,
    }))
}

pub(crate) fn submit(id: u64, priority: u64, nslots: u32) -> SchedCommand {
    submit_request(id, priority, "", request(nslots))
}

pub(crate) fn free(id: u64) -> SchedCommand {
    SchedCommand::Free { id, ranks: None }
}

/// Names answers shortly: `+id` allocated, `!id` denied, `-id` cancelled, `id@t` a start estimate.
pub(crate) fn short(answers: &[SchedAnswer]) -> String {
    let short = |answer: &SchedAnswer| match answer {
        SchedAnswer::Alloc { id, .. } => format!("+{id}"),
        SchedAnswer::Deny { id, .. } => format!("!{id}"),
        SchedAnswer::Cancelled { id } => format!("-{id}"),
        SchedAnswer::Annotate { id, annotations } => {
            let annotations: serde_json::Value = serde_json::from_str(annotations).unwrap();
            format!(
                "{id}@{}",
                annotations["sched"]["t_estimate"].as_f64().unwrap_or(f64::NAN)
            )
        }
        SchedAnswer::Defined(Ok(())) => "R".to_owned(),
        other => format!("{other:?}"),
    };
    answers.iter().map(short).collect::<Vec<_>>().join(" ")
}
