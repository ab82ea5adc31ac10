//! Do the schedulers that plan let nobody pass who delays a planned job, and do users see the plans?
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail the test"
)]

mod common;

use common::policies;
use common::sched::{define, free, request, send, short, submit_request};
use flux_policy::pool::{Constraint, Request};
use flux_policy::{HostConfig, PluginSpec, PolicyHost, SchedAnswer, SchedCommand, World};
use serde_json::{Value, json};

fn scheduler(policy: &str, config: &Value) -> PolicyHost {
    PolicyHost::inline(HostConfig {
        dir: policies(false),
        scheduler: Some(PluginSpec::new(format!("sched-{policy}"), World::Scheduler)),
        config: config.to_string().into(),
        ..HostConfig::default()
    })
    .unwrap()
}

/// A job of `nslots` cores for some seconds.
fn job(id: u64, nslots: u32, secs: f64) -> SchedCommand {
    submit_request(
        id,
        16,
        "",
        Request {
            duration_secs: secs,
            ..request(nslots)
        },
    )
}

fn queued(id: u64, nslots: u32, secs: f64, queue: &str) -> SchedCommand {
    submit_request(
        id,
        16,
        queue,
        Request {
            duration_secs: secs,
            ..request(nslots)
        },
    )
}

#[test]
fn easy_passes_without_delaying_the_first() {
    let mut host = scheduler("easy", &json!({}));
    // 4 nodes of 2 cores: 6 are busy until 100, the second job wants all 8
    let (answers, _) = send(
        &mut host,
        0.0,
        vec![define(4, 2), job(1, 6, 100.0), job(2, 8, 50.0)],
    );
    assert_eq!(short(&answers), "R +1 2@100");
    // one that would be in the way, one without a limit, one that ends in time
    let (answers, _) = send(
        &mut host,
        10.0,
        vec![job(3, 1, 91.0), job(4, 1, 0.0), job(5, 1, 90.0)],
    );
    assert_eq!(short(&answers), "+5");
    assert!(
        matches!(&answers[0], SchedAnswer::Alloc { annotations, .. } if annotations.contains("\"backfill\":\"ƒ3\"")),
        "{answers:?}"
    );
    // the running job ends early: the estimate moves
    let (answers, _) = send(&mut host, 20.0, vec![free(1)]);
    assert_eq!(short(&answers), "");
    let (answers, _) = send(&mut host, 30.0, vec![free(5)]);
    let SchedAnswer::Alloc {
        id: 2, annotations, ..
    } = &answers[0]
    else {
        panic!("{answers:?}")
    };
    assert_eq!(
        serde_json::from_str::<Value>(annotations).unwrap(),
        json!({"sched": {"t_estimate": null, "resource_summary": "rank[0-3]/core[0-1]"}})
    );
    assert_eq!(short(&answers), "+2 3@80");
}

#[test]
fn without_time_limits_what_the_first_job_waits_for_is_kept() {
    let mut host = scheduler("easy", &json!({}));
    // the first of the queue needs two nodes; one is taken for ever
    let node = |id, nnodes| {
        submit_request(
            id,
            16,
            "",
            Request {
                nnodes,
                nslots: nnodes,
                cores_per_slot: 2,
                ..Request::default()
            },
        )
    };
    let (answers, _) = send(
        &mut host,
        0.0,
        vec![define(3, 2), node(1, 2), node(2, 2), node(3, 1), job(4, 1, 5.0)],
    );
    // no estimate, and the one free node is kept for job 2
    assert_eq!(short(&answers), "R +1");
    let (answers, _) = send(&mut host, 1.0, vec![free(1)]);
    assert_eq!(short(&answers), "+2 +3");
}

#[test]
fn jobs_that_need_nodes_which_are_down_do_not_stop_the_others() {
    let mut host = scheduler("easy", &json!({}));
    let down = SchedCommand::Down("3".parse().unwrap());
    let (answers, _) = send(
        &mut host,
        0.0,
        vec![
            define(4, 2),
            down,
            job(1, 8, 10.0),
            job(2, 6, 50.0),
            job(3, 1, 5.0),
        ],
    );
    assert_eq!(short(&answers), "R +2 3@50");
    let (answers, _) = send(&mut host, 1.0, vec![SchedCommand::Up("3".parse().unwrap())]);
    // now the first has a plan, which leaves no room before it for anyone but the short one
    assert_eq!(short(&answers), "+3 1@50");
}

#[test]
fn conservative_delays_nobody_before_hybrid_only_the_first_few() {
    let start = |policy: &str, config: Value| {
        let mut host = scheduler(policy, &config);
        // a full pool of 8 until 100; then 6 for 50 s; then 4 for 50 s, which must wait for those
        let first = vec![define(4, 2), job(1, 7, 100.0), job(2, 6, 50.0), job(3, 4, 50.0)];
        let (answers, _) = send(&mut host, 0.0, first);
        let planned = short(&answers);
        // beside job 2 there is room until 150 on 2 cores: for easy that is all that counts
        (planned, short(&send(&mut host, 0.0, vec![job(4, 1, 160.0)]).0))
    };
    assert_eq!(start("easy", json!({})), ("R +1 2@100".into(), "+4".into()));
    assert_eq!(
        start("hybrid", json!({"sched-simple": {"reservation-depth": 1}})),
        ("R +1 2@100".into(), "+4".into())
    );
    let (planned, passed) = start("conservative", json!({}));
    assert_eq!(planned, "R +1 2@100 3@150");
    assert_eq!(passed, start("hybrid", json!({})).1);
}

#[test]
fn one_queue_waits_and_the_other_goes_on() {
    let config = json!({"sched-simple": {"queues": {"debug": {"policy": "fcfs"}, "batch": {"match-policy": "hinodex"}}}});
    let mut host = scheduler("easy", &config);
    let (answers, _) = send(
        &mut host,
        0.0,
        vec![
            define(4, 2),
            queued(1, 5, 100.0, "debug"),
            queued(2, 8, 1.0, "debug"),
            queued(3, 1, 1.0, "debug"),
            queued(4, 1, 10.0, "batch"),
        ],
    );
    // the fcfs queue is blocked by job 2; batch gives its job the highest node, whole
    assert_eq!(short(&answers), "R +1 +4");
    let SchedAnswer::Alloc { annotations, .. } = &answers[2] else {
        panic!()
    };
    assert_eq!(annotations, r#"{"sched":{"resource_summary":"rank3/core[0-1]"}}"#);
}

#[test]
fn places_are_told_where_the_site_wants_it() {
    let mut host = scheduler("fcfs", &json!({"sched-simple": {"annotate-pending": true}}));
    let (answers, _) = send(
        &mut host,
        0.0,
        vec![define(1, 2), job(1, 2, 0.0), job(2, 1, 0.0), job(3, 1, 0.0)],
    );
    let annotated = |answers: &[SchedAnswer]| -> Vec<(u64, Value)> {
        let of = |answer: &SchedAnswer| match answer {
            SchedAnswer::Annotate { id, annotations } => {
                Some((*id, serde_json::from_str(annotations).unwrap()))
            }
            _ => None,
        };
        answers.iter().filter_map(of).collect()
    };
    let place =
        |ahead: u32| json!({"sched": {"reason_pending": "insufficient resources", "jobs_ahead": ahead}});
    assert_eq!(annotated(&answers), [(2, place(0)), (3, place(1))]);
    let (answers, _) = send(&mut host, 1.0, vec![free(1), job(4, 2, 0.0)]);
    assert!(
        matches!(&answers[0], SchedAnswer::Alloc { id: 2, annotations, .. } if annotations.contains(r#""jobs_ahead":null"#)),
        "{answers:?}"
    );
    assert_eq!(annotated(&answers), [(4, place(0))]);
}

#[test]
fn bad_settings_keep_the_scheduler_from_loading() {
    for (config, text) in [
        (
            json!({"sched-simple": {"match-policy": "best"}}),
            "unknown match policy 'best'",
        ),
        (
            json!({"sched-fluxion-qmanager": {"queue-params": {"queue-depth": -1}}}),
            "queue-depth must be a positive",
        ),
    ] {
        let result = PolicyHost::inline(HostConfig {
            dir: policies(false),
            scheduler: Some(PluginSpec::new("sched-easy", World::Scheduler)),
            config: config.to_string().into(),
            ..HostConfig::default()
        });
        assert!(result.unwrap_err().to_string().contains(text));
    }
}

#[test]
fn a_longer_time_limit_of_a_running_job_moves_the_plan() {
    let mut host = scheduler("easy", &json!({}));
    send(
        &mut host,
        0.0,
        vec![define(1, 2), job(1, 2, 100.0), job(2, 2, 10.0)],
    );
    let extend = SchedCommand::Extend {
        id: 1,
        expiration: 200.0,
    };
    assert_eq!(short(&send(&mut host, 2.0, vec![extend]).0), "2@200");
    assert_eq!(
        short(&send(&mut host, 3.0, vec![SchedCommand::Cancel { id: 2 }]).0),
        "-2"
    );
}

#[test]
fn constraints_are_planned_on_their_own_nodes() {
    let mut host = scheduler("easy", &json!({}));
    let on = |id, ranks: &str, secs| {
        let constraint = Some(Constraint::from_json(&json!({"ranks": [ranks]})).unwrap());
        submit_request(
            id,
            16,
            "",
            Request {
                constraint,
                duration_secs: secs,
                ..request(2)
            },
        )
    };
    let (answers, _) = send(
        &mut host,
        0.0,
        vec![
            define(2, 2),
            on(1, "0", 50.0),
            on(2, "0", 50.0),
            on(3, "1", 500.0),
            on(4, "0", 1.0),
        ],
    );
    assert_eq!(short(&answers), "R +1 +3 2@50");
}
