//! What a new job manager makes of what an old one left, at any point.

use super::fakes::{Bench, end, finish};
use flux_formats::jobid::JobId;
use serde_json::json;
use serde_json::value::RawValue;

#[test]
fn jobs_in_every_state_come_back() {
    let mut old = Bench::new(2, false);
    let done = old.submit();
    old.with(move |cx| finish(cx, done, 0));
    let (running, ending, waiting) = (old.submit(), old.submit(), old.submit());
    let held = old.submission(0, 0);
    let held = old.submit_all(vec![held]).remove(0).unwrap();
    old.cancel(ending).unwrap();
    old.rpc("job-manager.memo", &json!({"id": running, "memo": {"a": 1}}))
        .unwrap();
    old.rpc(
        "job-manager.queue-enable",
        &json!({"enable": false, "all": true, "reason": "maint"}),
    )
    .unwrap();
    let world = old.world.clone();
    drop(old); // killed
    {
        let mut world = world.borrow_mut();
        world.starts.clear();
        world.exceptions.clear();
        world.pending.clear();
        world.holding.clear();
    }
    let mut new = Bench::over(world);
    assert_eq!(
        new.rpc("job-manager.getinfo", &json!({})).unwrap(),
        json!({"max_jobid": held})
    );
    let stats = new.rpc("job-manager.stats-get", &json!({})).unwrap();
    assert_eq!(
        (&stats["active_jobs"], &stats["inactive_jobs"]),
        (&json!(4), &json!(1))
    );
    {
        let world = new.world.borrow();
        let started: Vec<(JobId, bool)> = world.starts.iter().map(|s| (s.id, s.reattach)).collect();
        assert_eq!(
            started,
            [(running, true), (ending, true)],
            "shells are looked for, never started twice"
        );
        assert_eq!(world.exceptions, [(ending, 0, "cancel".to_owned())]);
        assert_eq!(world.adopted, [running, ending]);
        assert_eq!(
            world.pending.iter().map(|(_, id)| *id).collect::<Vec<_>>(),
            [waiting]
        );
    }
    let names = [
        "submit",
        "validate",
        "depend",
        "priority",
        "flux-restart",
        "priority",
    ];
    assert_eq!(new.events(waiting), names);
    assert_eq!(new.events(held), names);
    let status = new.rpc("job-manager.queue-status", &json!({})).unwrap();
    assert_eq!(status["disable_reason"], json!("maint"));
    let listed = new.rpc("job-manager.list", &json!({"max_entries": 0})).unwrap();
    let annotations = listed["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|job| job["id"] == json!(running))
        .unwrap();
    assert_eq!(annotations["annotations"]["user"], json!({"a": 1}));
    new.with(move |cx| {
        end(cx, running, 0);
        end(cx, ending, 9);
    });
    assert_eq!(new.events(running).last().unwrap(), "clean");
    assert_eq!(new.events(ending).last().unwrap(), "clean");
    assert_eq!(new.state(waiting), 16);
    assert_eq!(new.known().as_array().unwrap().last(), Some(&json!(done)));
    assert_eq!(new.world.borrow().starts.last().unwrap().j, None);
}

#[test]
fn a_damaged_eventlog_costs_that_job_only() {
    let mut old = Bench::new(0, false);
    let (bad, cut, good) = (old.submit(), old.submit(), old.submit());
    let world = old.world.clone();
    drop(old);
    {
        let mut world = world.borrow_mut();
        world.pending.clear();
        world.map.insert(
            bad.kvs_key("eventlog"),
            b"{\"timestamp\":1,\"name\":\"clean\"}\n".to_vec(),
        );
        let log = world.map.get_mut(&cut.kvs_key("eventlog")).unwrap();
        log.truncate(log.len() - 5);
    }
    let mut new = Bench::over(world);
    let stats = new.rpc("job-manager.stats-get", &json!({})).unwrap();
    assert_eq!(stats["active_jobs"], json!(1));
    assert_eq!(new.state(good), 8);
}

#[test]
fn secrets_are_read_again() {
    let mut old = Bench::new(0, false);
    let mut job = old.submission(16, 0);
    let jobspec = json!({"attributes": {"system": {"environment": {"A": "1"}, "duration": 0}}});
    let signed = flux_sign::wrap(jobspec.to_string().as_bytes(), "none", 1000).unwrap();
    job.j = signed.as_str().into();
    let id = old.submit_all(vec![job]).remove(0).unwrap();
    let world = old.world.clone();
    drop(old);
    world.borrow_mut().pending.clear();
    world.borrow_mut().slots = 1;
    let new = Bench::over(world);
    let world = new.world.borrow();
    let start = world.starts.first().unwrap();
    assert_eq!(
        (start.id, start.reattach, start.j.as_deref()),
        (id, false, Some(signed.as_str()))
    );
    assert_eq!(
        start.environment.as_deref().map(RawValue::get),
        Some(r#"{"A":"1"}"#)
    );
}
