//! Does a scheduler component give the right jobs the right resources, and does a bad one do no harm?
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail the test"
)]

mod common;

use std::collections::BTreeMap;

use common::sched::{define, free, send, short, submit};
use common::{hostile_config, policies};
use flux_formats::idset::IdSet;
use flux_policy::pool::{Constraint, Request, ranks_of};
use flux_policy::{
    HostConfig, PluginSpec, PolicyHost, SchedAnswer, SchedCommand, SchedEngine, Submit, World,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn fcfs() -> PolicyHost {
    let scheduler = Some(PluginSpec::new("sched-fcfs", World::Scheduler));
    PolicyHost::inline(HostConfig {
        dir: policies(false),
        scheduler,
        ..HostConfig::default()
    })
    .unwrap()
}

fn hostile(mode: &str) -> PolicyHost {
    let mut config = hostile_config(PluginSpec {
        limits: flux_policy::Limits {
            deadline: std::time::Duration::from_millis(30),
            ..Default::default()
        },
        ..PluginSpec::new("sched-hostile", World::Scheduler)
    });
    config.config = json!({"hostile": {"sched": mode}}).to_string().into();
    PolicyHost::inline(config).unwrap()
}

#[test]
fn first_come_first_served() {
    let mut host = fcfs();
    let (answers, _) = send(
        &mut host,
        5.5,
        vec![define(4, 2), submit(1, 16, 4), submit(2, 16, 3), submit(3, 16, 4)],
    );
    assert_eq!(short(&answers), "R +1 +2");
    assert_eq!(
        answers[1],
        SchedAnswer::Alloc {
            id: 1,
            r: r#"{"version":1,"execution":{"R_lite":[{"rank":"0-1","children":{"core":"0-1"}}],"starttime":5.5,"expiration":0.0,"nslots":4,"nodelist":["n[0-1]"]}}"#.into(),
            annotations: r#"{"sched":{"resource_summary":"rank[0-1]/core[0-1]"}}"#.into(),
        }
    );
    // the head waits and nobody passes it, until it is cancelled or someone goes before it
    assert_eq!(short(&send(&mut host, 6.0, vec![submit(4, 16, 1)]).0), "");
    assert_eq!(short(&send(&mut host, 6.0, vec![submit(5, 17, 1)]).0), "+5");
    assert_eq!(short(&send(&mut host, 7.0, vec![free(5)]).0), "");
    assert_eq!(
        short(
            &send(
                &mut host,
                7.0,
                vec![SchedCommand::Prioritize(vec![(4, 20), (77, 1)])]
            )
            .0
        ),
        "+4"
    );
    assert_eq!(short(&send(&mut host, 7.0, vec![free(1)]).0), "+3");
    assert_eq!(
        short(
            &send(
                &mut host,
                8.0,
                vec![submit(6, 16, 8), SchedCommand::Cancel { id: 6 }]
            )
            .0
        ),
        "-6"
    );
    assert_eq!(
        short(
            &send(
                &mut host,
                8.0,
                vec![SchedCommand::Cancel { id: 6 }, SchedCommand::Cancel { id: 3 }]
            )
            .0
        ),
        ""
    );
    assert_eq!(
        short(&send(&mut host, 9.0, vec![submit(7, 16, 9), submit(3, 16, 1)]).0),
        "!7 !3"
    );
}

#[test]
fn a_job_may_come_back_in_the_same_batch() {
    let mut host = fcfs();
    send(
        &mut host,
        1.0,
        vec![define(1, 2), submit(1, 16, 2), submit(2, 16, 1)],
    );
    let again = vec![SchedCommand::Cancel { id: 2 }, submit(2, 16, 2), free(1)];
    assert_eq!(short(&send(&mut host, 2.0, again).0), "-2 +2");
}

#[test]
fn resources_come_and_go() {
    let mut host = fcfs();
    let ranks = |text: &str| text.parse::<IdSet>().unwrap();
    assert_eq!(
        short(&send(&mut host, 1.0, vec![submit(1, 16, 1), submit(2, 16, 99)]).0),
        "",
        "nothing is known yet"
    );
    let start = vec![define(2, 2), SchedCommand::Down(ranks("0-1"))];
    assert_eq!(short(&send(&mut host, 1.0, start).0), "!2 R");
    assert_eq!(
        short(&send(&mut host, 2.0, vec![SchedCommand::Up(ranks("1"))]).0),
        "+1"
    );
    send(&mut host, 2.0, vec![submit(3, 16, 3)]);
    assert_eq!(
        short(&send(&mut host, 3.0, vec![SchedCommand::Shrink(ranks("0"))]).0),
        "!3"
    );
    let running = json!({"version": 1, "execution": {"R_lite": [{"rank": "1", "children": {"core": "1"}}]}});
    let adopt = |id| SchedCommand::Adopt {
        id,
        r: running.to_string().into(),
    };
    let (answers, _) = send(
        &mut host,
        4.0,
        vec![adopt(8), adopt(9), SchedCommand::Status { token: 5 }],
    );
    match &answers[..] {
        [
            SchedAnswer::AdoptFailed { id: 9, note },
            SchedAnswer::Status {
                token: 5,
                all,
                down,
                allocated,
            },
        ] => {
            assert_eq!(note, "rank 1 of R has a core or GPU that another job holds");
            let ranks_in = |r: &str| ranks_of(&serde_json::from_str(r).unwrap()).unwrap().to_string();
            assert_eq!(
                (ranks_in(all), ranks_in(down), ranks_in(allocated)),
                ("1".into(), String::new(), "1".into())
            );
            assert!(allocated.contains(r#""core":"0-1""#));
        }
        other => panic!("{other:?}"),
    }
    let constraint = Some(Constraint::from_json(&json!({"ranks": ["0"]})).unwrap());
    let request = Request {
        nslots: 1,
        cores_per_slot: 1,
        constraint,
        ..Request::default()
    };
    let (answers, _) = send(
        &mut host,
        4.0,
        vec![SchedCommand::CheckFeasible {
            token: 6,
            request: Box::new(request),
        }],
    );
    assert!(
        matches!(&answers[..], [SchedAnswer::Feasible { token: 6, result: Err(text) }] if text.starts_with("unsatisfiable request"))
    );
}

#[test]
fn a_queue_longer_than_the_budget_of_a_call_is_worked_off() {
    let mut host = fcfs();
    let mut batch = vec![define(10, 50)];
    batch.extend((0..600).map(|id| submit(id, 16, 1)));
    let (answers, _) = send(&mut host, 1.0, batch);
    assert_eq!(answers.len(), 501);
}

#[test]
fn a_liar_gets_nothing_twice() {
    let mut host = hostile("lie");
    let (answers, logs) = send(
        &mut host,
        1.0,
        vec![define(1, 4), submit(1, 16, 2), submit(2, 16, 2), submit(3, 16, 2)],
    );
    assert_eq!(short(&answers), "R +1 +2");
    assert!(logs.iter().all(|log| log.level > 3), "{logs:?}");
    assert_eq!(short(&send(&mut host, 2.0, vec![free(1)]).0), "+3");
}

#[test]
fn what_was_decided_before_a_trap_stands_and_the_rest_is_replayed() {
    let mut host = hostile("trap-later");
    let batch = (1..=4).map(|id| submit(id, 16, 1));
    let (answers, logs) = send(&mut host, 1.0, [define(1, 4)].into_iter().chain(batch).collect());
    // it serves the last id it knows and dies: every job is served once, by an instance of its own
    assert_eq!(short(&answers), "R +4 +3 +2 +1");
    assert!(logs.iter().any(|log| {
        log.level == 3
            && log
                .message
                .contains("sched-hostile failed in schedule: panic or abort")
    }));
}

#[test]
fn repeated_traps_lead_to_the_built_in_order() {
    for mode in ["trap", "loop"] {
        let mut host = hostile(mode);
        let (answers, logs) = send(
            &mut host,
            1.0,
            vec![define(1, 4), submit(1, 16, 2), submit(2, 17, 2), submit(3, 16, 1)],
        );
        assert_eq!(short(&answers), "R +2 +1", "{mode}");
        assert!(
            logs.iter()
                .any(|log| log.level == 2 && log.message.contains("going on without it")),
            "{logs:?}"
        );
        assert_eq!(short(&send(&mut host, 2.0, vec![free(1)]).0), "+3");
    }
}

/// A step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Submit { priority: u64, nslots: u32, nodes: bool },
    Cancel(u64),
    Free(u64),
    Prioritize(u64, u64),
    Up(u32),
    Down(u32),
}

fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step = prop_oneof![
        6 => (14..18u64, 1..9u32, any::<bool>()).prop_map(|(priority, nslots, nodes)| Step::Submit { priority, nslots, nodes }),
        1 => (0..60u64).prop_map(Step::Cancel),
        5 => (0..60u64).prop_map(Step::Free),
        1 => (0..60u64, 14..20u64).prop_map(|(id, priority)| Step::Prioritize(id, priority)),
        1 => (0..4u32).prop_map(Step::Up),
        1 => (0..4u32).prop_map(Step::Down),
    ];
    prop::collection::vec(prop::collection::vec(step, 1..6), 1..40)
}

/// Turns steps into commands, naming jobs that exist.
fn commands(steps: &[Step], next: &mut u64) -> Vec<SchedCommand> {
    let mut commands = Vec::new();
    for step in steps {
        match *step {
            Step::Submit {
                priority,
                nslots,
                nodes,
            } => {
                let nnodes = if nodes { nslots.min(4) } else { 0 };
                let nslots = if nodes { nnodes } else { nslots };
                let request = Request {
                    nnodes,
                    nslots,
                    cores_per_slot: 1,
                    ..Request::default()
                };
                commands.push(SchedCommand::Submit(Box::new(Submit {
                    id: *next,
                    priority,
                    userid: 1,
                    t_submit: 0.0,
                    queue: "".into(),
                    request,
                })));
                *next += 1;
            }
            Step::Cancel(id) => commands.push(SchedCommand::Cancel {
                id: id % (*next).max(1),
            }),
            Step::Free(id) => commands.push(free(id % (*next).max(1))),
            Step::Prioritize(id, priority) => {
                commands.push(SchedCommand::Prioritize(vec![(id % (*next).max(1), priority)]))
            }
            Step::Up(rank) => commands.push(SchedCommand::Up(IdSet::from(rank))),
            Step::Down(rank) => commands.push(SchedCommand::Down(IdSet::from(rank))),
        }
    }
    commands
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// The component decides what the built-in order decides, in the same order, whatever happens.
    #[test]
    fn fcfs_is_the_built_in_order(history in steps()) {
        let mut host = fcfs();
        let mut native = SchedEngine::native();
        let mut next = [1u64, 1];
        let mut first = Some(());
        for batch in &history {
            let mut mine = commands(batch, &mut next[0]);
            let mut theirs = commands(batch, &mut next[1]);
            if first.take().is_some() {
                mine.insert(0, define(4, 2));
                theirs.insert(0, define(4, 2));
            }
            let (answers, _) = send(&mut host, 1.0, mine);
            let mut expected = Vec::new();
            native.run(1.0, theirs, &mut expected);
            while native.more(&mut expected) {}
            prop_assert_eq!(answers, expected);
        }
    }

    /// No core is held twice and no job is answered twice, under policies that lie and die.
    #[test]
    fn bad_policies_do_no_harm(history in steps(), mode in prop::sample::select(vec!["lie", "trap-later", "fine"])) {
        let mut host = hostile(mode);
        let mut next = 1u64;
        let mut held: BTreeMap<(u32, u32), u64> = BTreeMap::new();
        let mut answered: BTreeMap<u64, ()> = BTreeMap::new();
        send(&mut host, 0.0, vec![define(4, 2)]);
        for (now, batch) in history.iter().enumerate() {
            let batch = commands(batch, &mut next);
            for command in &batch {
                if let SchedCommand::Free { id, .. } = command {
                    held.retain(|_, holder| holder != id);
                }
            }
            let (answers, _) = send(&mut host, now as f64, batch);
            for answer in answers {
                match answer {
                    SchedAnswer::Alloc { id, r, .. } => {
                        prop_assert!(answered.insert(id, ()).is_none());
                        let r: Value = serde_json::from_str(&r).unwrap();
                        for entry in r["execution"]["R_lite"].as_array().unwrap() {
                            for rank in &entry["rank"].as_str().unwrap().parse::<IdSet>().unwrap() {
                                for core in &entry["children"]["core"].as_str().unwrap().parse::<IdSet>().unwrap() {
                                    prop_assert_eq!(held.insert((rank, core), id), None);
                                }
                            }
                        }
                    }
                    SchedAnswer::Deny { id, .. } | SchedAnswer::Cancelled { id } => {
                        prop_assert!(answered.insert(id, ()).is_none());
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }
}
