use super::*;
use flux_policy_sdk::fake::{FakeHost, FakeJob};
use serde_json::json;

fn host(job_manager: Value) -> FakeHost {
    FakeHost::new(json!({ "job-manager": job_manager }))
}

fn job() -> FakeJob {
    FakeJob {
        id: 7,
        userid: 5,
        state: RUN,
        r: Some(json!({"execution": {"R_lite": [{"rank": "0-1"}, {"rank": "3"}]}}).to_string()),
        ..FakeJob::new("{}")
    }
}

fn exited(plugin: &mut Perilog, host: &FakeHost, status: i32) {
    let details = [
        ("ranks".to_owned(), "3".to_owned()),
        ("hosts".to_owned(), "n3".to_owned()),
    ];
    plugin.ended(
        host,
        host,
        &Exited {
            token: 1,
            job: 7,
            status,
            details: &details,
        },
    );
}

#[test]
fn a_job_with_both() {
    let host = host(json!({
        "prolog": {"command": ["/p", "x"], "per-rank": true},
        "epilog": {"command": ["/e"], "timeout": "1m"},
        "perilog": {"log-ignore": ["^noise"]},
    }));
    let mut plugin = Perilog::configure(&host).unwrap();
    assert_eq!(plugin.topics().len(), 5);
    plugin.enter(&host, &host, &job());
    let wishes = host.take_wishes();
    assert_eq!(wishes[0], "subscribe 7");
    assert!(
        wishes[1].starts_with("spawn 7 /p x")
            && wishes[1].contains(r#"("ranks", "0-1,3")"#)
            && wishes[1].contains(r#"("drain", "true")"#),
        "{}",
        wishes[1]
    );
    assert!(
        wishes[1].contains(r#"("timeout", "1800")"#) && wishes[1].contains(r#"("log-ignore", "^noise")"#)
    );
    assert_eq!(wishes[2], "prolog-start 7 job-manager.prolog");
    assert!(plugin.query(&host).contains(r#""procs":{"7":{"name":"prolog"}}"#));
    exited(&mut plugin, &host, 0);
    assert_eq!(host.take_wishes(), ["prolog-finish 7 job-manager.prolog 0"]);
    plugin.on_event(&host, &host, &job(), "finish", "{}");
    let wishes = host.take_wishes();
    assert!(
        wishes[0].starts_with("spawn 7 /e") && !wishes[0].contains("ranks") && !wishes[0].contains("drain"),
        "{}",
        wishes[0]
    );
    assert_eq!(wishes[1], "epilog-start 7 job-manager.epilog");
    exited(&mut plugin, &host, 256);
    assert_eq!(
        host.take_wishes(),
        [
            "raise 7 epilog 2 epilog exited with code=1 on n3 (rank 3)",
            "epilog-finish 7 job-manager.epilog 256",
            "unsubscribe 7"
        ]
    );
}

#[test]
fn failing_and_cancelled_prologs() {
    let host = host(json!({"prolog": {"command": ["/p"]}}));
    let mut plugin = Perilog::configure(&host).unwrap();
    for (status, text) in [
        (9, "raise 7 prolog 0 prolog killed by signal 9 on n3 (rank 3)"),
        (
            137 << 8,
            "raise 7 prolog 0 prolog killed by signal 9 on n3 (rank 3)",
        ),
        (
            1 << 8,
            "raise 7 prolog 0 prolog exited with code=1 on n3 (rank 3)",
        ),
    ] {
        plugin.enter(&host, &host, &job());
        host.take_wishes();
        exited(&mut plugin, &host, status);
        assert_eq!(host.take_wishes()[0], text);
    }
    plugin.enter(&host, &host, &job());
    host.take_wishes();
    plugin.on_event(&host, &host, &job(), "exception", r#"{"context":{"severity":2}}"#);
    assert!(host.take_wishes().is_empty());
    plugin.on_event(&host, &host, &job(), "exception", r#"{"context":{"severity":0}}"#);
    assert_eq!(host.take_wishes(), ["kill 1 15"]);
    exited(&mut plugin, &host, 15);
    assert_eq!(host.take_wishes(), ["prolog-finish 7 job-manager.prolog 15"]);
}

#[test]
fn the_epilog_of_a_job_whose_prolog_failed() {
    let both = json!({"prolog": {"command": ["/p"]}, "epilog": {"command": ["/e"], "per-rank": true}});
    let host = host(both);
    let mut plugin = Perilog::configure(&host).unwrap();
    plugin.enter(&host, &host, &job());
    host.take_wishes();
    exited(&mut plugin, &host, 256);
    let wishes = host.take_wishes();
    assert!(
        wishes[0].starts_with("raise 7 prolog 0") && wishes[1].starts_with("spawn 7 /e"),
        "{wishes:?}"
    );
    assert!(wishes[1].contains(r#"("ranks", "0-1,3")"#), "{wishes:?}");
    assert_eq!(
        wishes[2..],
        [
            "epilog-start 7 job-manager.epilog",
            "prolog-finish 7 job-manager.prolog 256"
        ]
    );
    exited(&mut plugin, &host, 0);
    assert_eq!(
        host.take_wishes(),
        ["epilog-finish 7 job-manager.epilog 0", "unsubscribe 7"]
    );
    // one that was cancelled while its prolog ran, too
    plugin.enter(&host, &host, &job());
    plugin.on_event(&host, &host, &job(), "exception", r#"{"context":{"severity":0}}"#);
    host.take_wishes();
    exited(&mut plugin, &host, 15);
    let wishes = host.take_wishes();
    assert!(
        wishes[0].starts_with("spawn 7 /e") && wishes.len() == 3,
        "{wishes:?}"
    );
}

#[test]
fn after_a_restart() {
    let host = host(json!({"prolog": {"command": ["/p"]}}));
    let mut plugin = Perilog::configure(&host).unwrap();
    let waiting = FakeJob {
        posted: vec!["alloc", "perilog"],
        ..job()
    };
    plugin.again(&host, &host, &waiting);
    let wishes = host.take_wishes();
    assert!(wishes[1].starts_with("spawn 7 /p"), "{wishes:?}");
    exited(&mut plugin, &host, 0);
    assert_eq!(host.take_wishes(), ["prolog-finish 7 job-manager.prolog 0"]);
    let ending = FakeJob {
        state: CLEANUP,
        ..waiting
    };
    plugin.again(&host, &host, &ending);
    assert_eq!(
        host.take_wishes(),
        ["epilog-finish 7 job-manager.epilog 1"],
        "no epilog is configured any more"
    );
}

#[test]
fn configuration() {
    assert_eq!(
        Perilog::configure(&host(json!({}))).unwrap().topics(),
        ["plugin.query"]
    );
    let imp = FakeHost::new(json!({"exec": {"imp": "/imp"}, "job-manager": {"epilog": {}}}));
    let epilog = Config::read(&imp).unwrap().epilog.unwrap();
    assert_eq!(epilog.command, ["/imp", "run", "epilog"]);
    assert!(!epilog.cancel_on_exception && epilog.timeout == 0.0);
    for (bad, text) in [
        (
            json!({"prolog": {}}),
            "no command specified and exec.imp not defined",
        ),
        (json!({"prolog": {"command": "x"}}), "command must be an array"),
        (
            json!({"prolog": {"command": ["x"], "timeout": "soon"}}),
            "invalid prolog timeout",
        ),
        (
            json!({"epilog": {"command": ["x"], "colour": 1}}),
            "unknown key colour",
        ),
        (json!({"perilog": {"log-ignore": 1}}), "log-ignore"),
    ] {
        let refused = Config::read(&host(bad)).unwrap_err();
        assert!(refused.text.contains(text), "{}", refused.text);
    }
}
