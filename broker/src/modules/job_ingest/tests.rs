//! Submissions by the wire, from the signed jobspec to the job's first events.

use super::JobIngest;
use crate::modules::job_manager::tests::fakes::Bench;
use crate::service::RpcError;
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::role;
use serde_json::{Value, json};

fn bench(args: &[&str]) -> Bench {
    bench_in("/nonexistent/policies", args)
}

fn bench_in(dir: &str, args: &[&str]) -> Bench {
    let mut bench = Bench::with_local_scheduler(false, json!({"policies": {"directory": dir}}));
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    bench
        .hub
        .load("job-ingest", Box::new(JobIngest::new(&args)))
        .unwrap();
    bench
}

fn jobspec() -> Value {
    json!({"resources": [{"type": "slot", "count": 1, "label": "task", "with": [{"type": "core", "count": 1}]}],
        "tasks": [{"command": ["true"], "slot": "task", "count": {"per_slot": 1}}],
        "attributes": {"system": {"duration": 0, "environment": {"A": "secret"}, "cwd": "/"}}, "version": 1})
}

fn request(flags: i64) -> Value {
    let j = flux_sign::wrap(jobspec().to_string().as_bytes(), "none", 1000).unwrap();
    json!({"J": j, "urgency": 16, "flags": flags})
}

fn submit(bench: &mut Bench, flags: i64) -> Result<JobId, RpcError> {
    let reply = bench.send("job-ingest.submit", &request(flags));
    bench.hub.run_until(|| reply.borrow().is_some());
    reply
        .take()
        .unwrap()
        .map(|answer| serde_json::from_value(answer["id"].clone()).unwrap())
}

#[test]
fn a_submission_is_stored_and_answered() {
    let mut bench = bench(&["disable-validator"]);
    let ids: Vec<JobId> = (0..3).map(|_| submit(&mut bench, 0).unwrap()).collect();
    assert!(ids.is_sorted_by(|a, b| a < b));
    assert_eq!(bench.events(ids[0]), ["submit", "validate", "depend", "priority"]);
    let world = bench.world.borrow();
    let stored = world.map.get(&ids[0].kvs_key("jobspec")).unwrap();
    let mut expected = jobspec();
    expected["attributes"]["system"]
        .as_object_mut()
        .unwrap()
        .shift_remove("environment");
    assert_eq!(
        serde_json::from_slice::<Value>(stored).unwrap(),
        expected,
        "no environment in the KVS"
    );
    let j = world.map.get(&ids[0].kvs_key("J")).unwrap();
    assert!(flux_sign::unwrap_noverify(std::str::from_utf8(j).unwrap()).is_ok());
    drop(world);
    let info = bench.rpc("job-ingest.getinfo", &json!({})).unwrap();
    assert!(info["timestamp"].as_u64().unwrap() >= ids[2].0 >> 24);
    let stats = bench.rpc("job-ingest.stats-get", &json!({})).unwrap();
    assert_eq!(
        stats["pipeline"]["validator"],
        json!({"running": 0, "requests": 0, "errors": 0, "trash": 0, "backlog": 0, "pids": [0, 0, 0, 0]})
    );
}

#[test]
fn many_submissions_of_a_turn_are_one_commit() {
    let mut bench = bench(&["disable-validator"]);
    let before = bench.world.borrow().commits;
    bench.with(|cx| {
        for _ in 0..50 {
            let mut req = crate::service::testing::request("job-ingest.submit", &request(0));
            req.userid = 1000;
            req.rolemask = role::OWNER;
            cx.rpc(req, |_: &mut crate::service::testing::Probe, _, result| {
                drop(result.unwrap())
            });
        }
    });
    assert_eq!(bench.world.borrow().commits - before, 1);
}

#[test]
fn ids_never_go_back() {
    let mut bench = bench(&["disable-validator"]);
    let far = JobId((1 << 38) << 24);
    let mut job = bench.submission(16, 0);
    job.id = far;
    bench.submit_all(vec![job]).remove(0).unwrap();
    let world = bench.world.clone();
    drop(bench);
    let mut again = Bench::over(world);
    let args = ["disable-validator".to_owned()];
    again
        .hub
        .load("job-ingest", Box::new(JobIngest::new(&args)))
        .unwrap();
    assert!(submit(&mut again, 0).unwrap() > far);
}

#[test]
fn a_validator_that_cannot_be_loaded_refuses_instead_of_passing() {
    let mut bench = bench(&[]);
    let err = submit(&mut bench, 0).unwrap_err();
    assert_eq!(err.errnum, errno::EIO);
    assert!(err.text.contains("/nonexistent/policies"), "{}", err.text);
    // later ones at once, with the same text
    assert_eq!(submit(&mut bench, 0).unwrap_err().text, err.text);
    // the owner may ask for no validation
    submit(&mut bench, 8).unwrap();
}

/// A token that says it was signed by MUNGE.
fn by_munge() -> String {
    let token = flux_sign::wrap(jobspec().to_string().as_bytes(), "none", 1000).unwrap();
    let (header, rest) = token.split_once('.').unwrap();
    let header = flux_sign::base64_decode(header).unwrap();
    let header = String::from_utf8(header).unwrap().replace("none", "munge");
    let mut text = String::new();
    flux_sign::base64_encode(header.as_bytes(), &mut text);
    format!("{text}.{}.MUNGE:AAAA:", rest.split_once('.').unwrap().0)
}

#[test]
fn a_signature_that_nobody_can_check_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = |bench: &mut Bench| {
        let body = json!({"J": by_munge(), "urgency": 16, "flags": 0});
        let reply = bench.send("job-ingest.submit", &body);
        bench.hub.run_until(|| reply.borrow().is_some());
        let err = reply.take().unwrap().unwrap_err();
        assert_eq!(err.errnum, errno::EINVAL);
        err.text
    };
    let mut bench = Bench::with_local_scheduler(false, json!({}));
    let mut ingest = JobIngest::new(&["disable-validator".to_owned()]);
    ingest.verifier = super::verify::Verifier::new(dir.path().to_owned());
    bench.hub.load("job-ingest", Box::new(ingest)).unwrap();
    let text = refusal(&mut bench);
    assert!(
        text.contains("on the leader's node") && text.contains("matched nothing"),
        "{text}"
    );
    let write = |toml: &str| std::fs::write(dir.path().join("sign.toml"), toml).unwrap();
    write("[sign]\nmax-ttl = 60\ndefault-type = \"none\"\nallowed-types = [ \"none\" ]\n");
    assert_eq!(
        refusal(&mut bench),
        "sign-unwrap: header mechanism=munge not allowed"
    );
    // the configuration is kept until a reload
    let socket = dir.path().join("socket").display().to_string();
    write(&format!(
        "[sign]\nmax-ttl = 60\ndefault-type = \"munge\"\nallowed-types = [ \"munge\" ]\nmunge.socket-path = \"{socket}\"\n"
    ));
    assert!(refusal(&mut bench).contains("not allowed"));
    bench.with(|cx| {
        cx.reconfigure(json!({}), |_: &mut crate::service::testing::Probe, _, result| {
            result.unwrap();
        });
    });
    let text = refusal(&mut bench);
    assert!(text.contains("cannot talk to munged"), "{text}");
}

#[test]
fn the_queue_refuses_after_ingest() {
    let mut bench = bench(&["disable-validator"]);
    bench
        .rpc(
            "job-manager.queue-enable",
            &json!({"enable": false, "all": true, "reason": "maint"}),
        )
        .unwrap();
    let err = submit(&mut bench, 0).unwrap_err();
    assert_eq!(
        (err.errnum, err.text.as_str()),
        (errno::EINVAL, "job submission is disabled: maint")
    );
}

/// The component `jobspec` on the policy thread, when it is built.
#[test]
fn the_jobspec_validator() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/policies");
    if !std::path::Path::new(dir).join("validator-jobspec.json").exists() {
        println!("skipped: policies are not built");
        return;
    }
    let mut bench = bench_in(dir, &[]);
    let id = submit(&mut bench, 0).unwrap();
    assert_eq!(bench.events(id).len(), 4);
    let j = flux_sign::wrap(br#"{"version": 1}"#, "none", 1000).unwrap();
    let reply = bench.send("job-ingest.submit", &json!({"J": j, "urgency": 16, "flags": 0}));
    bench.hub.run_until(|| reply.borrow().is_some());
    let err = reply.take().unwrap().unwrap_err();
    assert_eq!(
        (err.errnum, err.text.as_str()),
        (errno::EINVAL, "Missing key (resources)")
    );
    let stats = bench.rpc("job-ingest.stats-get", &json!({})).unwrap();
    let validator = &stats["pipeline"]["validator"];
    assert_eq!(
        (
            &validator["running"],
            &validator["requests"],
            &validator["errors"]
        ),
        (&json!(1), &json!(2), &json!(1))
    );
}

#[test]
fn ids_can_be_spread_over_time_for_tests() {
    let mut bench = Bench::with_local_scheduler(false, json!({"policies": {"directory": "/nonexistent"}}));
    bench.hub.hub.core().attrs.set_internal("test.jobid-step", "1.5s");
    let args = ["disable-validator".to_owned()];
    bench
        .hub
        .load("job-ingest", Box::new(JobIngest::new(&args)))
        .unwrap();
    let ids: Vec<u64> = (0..5).map(|_| submit(&mut bench, 0).unwrap().0 >> 24).collect();
    let steps: Vec<u64> = ids.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(steps, [1500; 4]);
    let mut bench = Bench::with_local_scheduler(false, json!({}));
    bench.hub.hub.core().attrs.set_internal("test.jobid-step", "soon");
    let err = bench
        .hub
        .load("job-ingest", Box::new(JobIngest::new(&args)))
        .unwrap_err();
    assert_eq!(err.errnum, errno::EINVAL);
    assert!(err.text.contains("test.jobid-step"), "{err}");
}
