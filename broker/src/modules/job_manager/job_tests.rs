//! Random event orders keep a job's invariants.

use super::*;
use proptest::prelude::*;
use serde_json::json;

const READY: Surroundings = Surroundings {
    queue_started: true,
    exec_ready: true,
    asks_priority: false,
};

fn job() -> Job {
    Job::new(
        JobId(1),
        Rc::new(json!({"attributes": {"system": {"duration": 0}}})),
    )
}

fn fatal() -> Event {
    Event::Exception(Exception {
        kind: "cancel".into(),
        severity: 0,
        note: String::new(),
        userid: Some(0),
        wait_status: None,
        from_exec: false,
    })
}

/// Performs steps as the driver does, until the job waits for somebody; returns the names of the events posted.
fn settle(job: &mut Job, around: Surroundings) -> Vec<String> {
    let mut posted = Vec::new();
    for _ in 0..20 {
        let Some(step) = job.next_step(around) else {
            return posted;
        };
        match step {
            Step::Post(event) => {
                job.apply(&event, 1.0).unwrap();
                posted.push(event.name().into_owned());
            }
            Step::Enqueue => job.alloc = Alloc::Queued(job.priority.unwrap_or(0)),
            Step::Dequeue | Step::CancelAndForget => job.alloc = Alloc::None,
            Step::Prioritize => job.alloc = Alloc::Pending(job.priority.unwrap_or(0)),
            Step::Cancel => job.alloc = Alloc::Cancelling,
            Step::AskPriority => job.tap.priority = Asked::Got(flux_policy::Priority::Pass),
            Step::Start => job.exec = Exec::Requested,
            Step::Retire => job.marks.retiring = true,
        }
    }
    panic!("the job does not settle: {job:?}");
}

fn submitted() -> Job {
    let mut job = job();
    job.apply(
        &Event::Submit {
            userid: 5,
            urgency: 16,
            flags: 0,
        },
        1.0,
    )
    .unwrap();
    job.apply(&Event::Validate, 1.0).unwrap();
    job
}

#[test]
fn the_life_of_a_job() {
    let mut job = submitted();
    assert_eq!(settle(&mut job, READY), ["depend", "priority"]);
    assert_eq!(job.alloc, Alloc::Queued(16));
    job.alloc = Alloc::None;
    job.apply(
        &Event::Alloc {
            annotations: None,
            bypass: false,
        },
        1.0,
    )
    .unwrap();
    assert!(settle(&mut job, READY).is_empty());
    assert_eq!(job.exec, Exec::Requested);
    job.apply(&Event::Start, 1.0).unwrap();
    job.apply(&Event::Finish { status: 0 }, 1.0).unwrap();
    assert!(settle(&mut job, READY).is_empty());
    job.apply(
        &Event::Release {
            ranks: "all".into(),
            last: true,
        },
        1.0,
    )
    .unwrap();
    assert_eq!(settle(&mut job, READY), ["free", "clean"]);
    assert_eq!(job.end, Some(End::Finish { status: 0 }));
}

#[test]
fn held_and_cancelled_while_pending() {
    let mut job = submitted();
    settle(&mut job, READY);
    job.alloc = Alloc::Pending(16);
    job.apply(
        &Event::Urgency {
            userid: 0,
            urgency: 0,
        },
        1.0,
    )
    .unwrap();
    assert_eq!(settle(&mut job, READY), ["priority"]);
    assert_eq!(job.alloc, Alloc::Cancelling);
    job.apply(&fatal(), 1.0).unwrap();
    assert_eq!(settle(&mut job, READY), ["clean"]);
    assert_eq!(job.state, State::Inactive);
}

#[test]
fn cancelled_between_alloc_and_start_is_never_started() {
    let mut job = submitted();
    settle(
        &mut job,
        Surroundings {
            exec_ready: false,
            ..READY
        },
    );
    job.alloc = Alloc::None;
    job.apply(
        &Event::Alloc {
            annotations: None,
            bypass: false,
        },
        1.0,
    )
    .unwrap();
    job.exec = Exec::Intended;
    job.apply(&fatal(), 1.0).unwrap();
    assert_eq!(settle(&mut job, READY), ["free", "clean"]);
}

#[test]
fn paths() {
    let mut spec = json!({"attributes": {"system": {"duration": 0}}});
    set_path(&mut spec, "attributes.system.duration", &json!(60));
    set_path(&mut spec, "attributes.user.a.b", &json!("x"));
    assert_eq!(
        spec,
        json!({"attributes": {"system": {"duration": 60}, "user": {"a": {"b": "x"}}}})
    );
    set_path(&mut spec, "attributes.user", &Value::Null);
    set_path(&mut spec, "attributes.system.duration.x", &json!(1));
    assert_eq!(spec, json!({"attributes": {"system": {"duration": 60}}}));
}

proptest! {
    /// Whatever comes in whatever order: the job settles, resources are freed exactly when they were given, and a
    /// fatal exception always leads to INACTIVE once execution is over.
    #[test]
    fn invariants(script in prop::collection::vec(0..12u8, 0..60)) {
        let mut job = submitted();
        let (mut given, mut freed) = (0, 0);
        for action in script {
            let around = Surroundings { queue_started: action != 9, exec_ready: action != 10, asks_priority: action == 11 };
            let with_sched = matches!(job.alloc, Alloc::Pending(_) | Alloc::Cancelling);
            let running = job.exec == Exec::Requested;
            // an event that is illegal now must leave the job as it is
            let event = match action {
                0 | 1 => {
                    if let Alloc::Queued(priority) = job.alloc {
                        job.alloc = Alloc::Pending(priority);
                    }
                    None
                }
                2 | 3 if with_sched && job.state == State::Sched => {
                    job.alloc = Alloc::None;
                    given += 1;
                    Some(Event::Alloc {
        annotations: None,
        bypass: false,
    })
                }
                4 if job.alloc == Alloc::Cancelling => {
                    job.alloc = Alloc::None;
                    None
                }
                5 => Some(Event::Urgency { userid: 0, urgency: 3 }),
                6 => Some(Event::Urgency { userid: 0, urgency: 0 }),
                7 if running => Some(Event::Finish { status: 1 }),
                8 if running && job.state == State::Cleanup => {
                    Some(Event::Release { ranks: "all".into(), last: true })
                }
                11 => Some(fatal()),
                _ => None,
            };
            if let Some(event) = event {
                let before = job.state;
                let applied = job.apply(&event, 1.0);
                prop_assert!(applied.is_ok() || job.state == before);
            }
            freed += settle(&mut job, around).iter().filter(|name| *name == "free").count();
            prop_assert!(freed <= given && given <= 1);
            prop_assert_eq!(job.marks.has_resources, given > freed);
            prop_assert!(job.state != State::Inactive || given == freed);
        }
        prop_assert!(job.apply(&fatal(), 1.0).is_ok() || job.state == State::Inactive);
        settle(&mut job, READY);
        if job.exec == Exec::Requested {
            job.apply(&Event::Release { ranks: "all".into(), last: true }, 1.0).unwrap();
            settle(&mut job, READY);
        }
        prop_assert_eq!(job.state, State::Inactive);
    }
}
