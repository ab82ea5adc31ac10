use super::*;
use flux_policy_sdk::fake::{FakeHost, FakeJob};
use serde_json::json;

fn job(nodes: i64, slots: i64, cores: i64, queue: Option<&str>) -> FakeJob {
    let slot =
        json!({"type": "slot", "count": slots, "label": "task", "with": [{"type": "core", "count": cores}]});
    let resources = if nodes > 0 {
        json!([{"type": "node", "count": nodes, "with": [slot]}])
    } else {
        json!([slot])
    };
    let mut system = json!({"duration": 0});
    if let Some(queue) = queue {
        system["queue"] = queue.into();
    }
    FakeJob::new(json!({"version": 1, "resources": resources, "attributes": {"system": system}}).to_string())
}

/// The two queues of the administrator's guide, and a general limit.
fn guide() -> Value {
    json!({
        "policy": {"limits": {"job-size": {"max": {"nnodes": 8, "ncores": 32}, "min": {"nnodes": 0}}}},
        "queues": {
            "debug": {"policy": {"limits": {"job-size": {"max": {"nnodes": 2, "ncores": 16}}}}},
            "batch": {"policy": {"limits": {"job-size": {"max": {"nnodes": 16, "ncores": 128}, "min": {"ncores": 4}}}}},
            "free": {"policy": {"limits": {"job-size": {"max": {"nnodes": -1, "ncores": -1}}}}},
            "small": {"parent": "debug", "policy": {"limits": {"job-size": {"max": {"nnodes": 1}}}}},
        }
    })
}

#[test]
fn limits_of_the_guide() {
    let host = FakeHost::new(guide());
    let mut plugin = LimitJobSize::configure(&host).unwrap();
    assert_eq!(plugin.topics(), ["job.validate"]);
    let mut check = |nodes, slots, cores, queue| plugin.validate(&host, &job(nodes, slots, cores, queue));
    assert_eq!(check(8, 4, 1, None), Ok(()));
    // nodes that the job leaves to the scheduler escape the limit of nodes
    assert_eq!(check(0, 32, 1, None), Ok(()));
    assert_eq!(check(16, 8, 1, Some("batch")), Ok(()));
    assert_eq!(check(100, 100, 10, Some("free")), Ok(()));
    for (nodes, slots, cores, queue, text) in [
        (9, 1, 1, None, "requested nnodes (9) exceeds policy limit of 8"),
        (0, 33, 1, None, "requested ncores (33) exceeds policy limit of 32"),
        (8, 1, 5, None, "requested ncores (40) exceeds policy limit of 32"),
        (
            3,
            1,
            1,
            Some("debug"),
            "requested nnodes (3) exceeds policy limit of 2 for queue debug",
        ),
        (
            2,
            9,
            1,
            Some("debug"),
            "requested ncores (18) exceeds policy limit of 16 for queue debug",
        ),
        (
            0,
            3,
            1,
            Some("batch"),
            "requested ncores (3) is under policy limit of 4 for queue batch",
        ),
        (
            2,
            1,
            1,
            Some("small"),
            "requested nnodes (2) exceeds policy limit of 1 for queue small",
        ),
        (
            1,
            17,
            1,
            Some("small"),
            "requested ncores (17) exceeds policy limit of 16 for queue small",
        ),
    ] {
        assert_eq!(check(nodes, slots, cores, queue).unwrap_err().text, text);
    }
}

#[test]
fn bad_limits_and_jobs() {
    let none = FakeHost::new(json!({"queues": {"a": {}}}));
    assert!(LimitJobSize::configure(&none).unwrap().topics().is_empty());
    let bad = FakeHost::new(json!({"policy": {"limits": {"job-size": {"max": {"nnodes": -2}}}}}));
    assert_eq!(
        LimitJobSize::configure(&bad).unwrap_err().text,
        "policy.limits.job-size.max: size must be -1 (unlimited), or >= 0"
    );
    for (resources, text) in [
        (json!(null), "level 0: must be an array"),
        (
            json!([{"type": "node", "count": 1}]),
            "Unable to determine slot count",
        ),
        (
            json!([{"type": "slot", "count": 1}]),
            "Unable to determine slot size",
        ),
        (
            json!([{"type": "slot", "count": 0}]),
            "Invalid count 0 for type 'slot'",
        ),
        (json!([{"type": "slot"}]), "level 0: count must be an integer"),
    ] {
        assert_eq!(counts(&resources).unwrap_err(), text);
    }
}
