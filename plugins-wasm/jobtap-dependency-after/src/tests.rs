use super::*;
use flux_policy_sdk::fake::{FakeHost, FakeJob};

const TARGET: u64 = 5;

fn target(state: u32, posted: &[&'static str], result: u32, ended_by: &'static str) -> FakeJob {
    FakeJob {
        id: TARGET,
        state,
        posted: posted.to_vec(),
        result,
        ended_by,
        ..FakeJob::new("{}")
    }
}

fn depend(
    plugin: &mut DependencyAfter,
    host: &FakeHost,
    id: u64,
    scheme: &str,
    target: Option<&FakeJob>,
) -> Result<(), Refusal> {
    let job = FakeJob {
        id,
        ..FakeJob::new("{}")
    };
    let entry = format!(r#"{{"scheme":"{scheme}","value":"ƒ6"}}"#);
    let dependency = Dependency {
        scheme,
        entry: &entry,
        target: target.map(|target| target as &dyn Job),
        replay: false,
    };
    plugin.dependency(host, &job, &dependency)
}

#[test]
fn running_targets() {
    let host = FakeHost::default();
    let mut plugin = DependencyAfter::configure(&host).unwrap();
    let running = target(16, &["alloc"], 0, "");
    for (id, scheme) in [
        (10, "afterstart"),
        (11, "afterany"),
        (12, "afterok"),
        (13, "afternotok"),
        (14, "afterexcept"),
    ] {
        depend(&mut plugin, &host, id, scheme, Some(&running)).unwrap();
    }
    let wishes = host.take_wishes();
    assert_eq!(wishes[..2], ["dependency-add 10 after-start=ƒ6", "subscribe 5"]);
    assert!(
        wishes.contains(&"dependency-add 13 after-failure=ƒ6".to_owned()),
        "{wishes:?}"
    );
    assert!(
        plugin
            .query(&host)
            .contains(r#"{"id":5,"depid":12,"type":"after-success","description":"after-success=ƒ6"}"#)
    );
    plugin.event(&host, &running, "start", "{}");
    assert_eq!(host.take_wishes(), ["dependency-remove 10 after-start=ƒ6"]);
    plugin.event(
        &host,
        &target(64, &["alloc", "start"], 1, "finish"),
        "clean",
        "{}",
    );
    assert_eq!(
        host.take_wishes(),
        [
            "dependency-remove 11 after-finish=ƒ6",
            "dependency-remove 12 after-success=ƒ6",
            "raise 13 dependency 0 dependency after-failure=ƒ6 can never be satisfied",
            "raise 14 dependency 0 dependency after-except=ƒ6 can never be satisfied",
        ]
    );
    assert!(plugin.waiters.is_empty());
}

#[test]
fn targets_that_fail_or_never_run() {
    let host = FakeHost::default();
    let mut plugin = DependencyAfter::configure(&host).unwrap();
    let pending = target(8, &[], 0, "");
    for (end, ok, not) in [
        (
            target(64, &["alloc"], 4, "exception"),
            vec!["11 after-finish", "13 after-failure", "14 after-except"],
            2,
        ),
        (
            target(64, &["alloc"], 2, "finish"),
            vec!["11 after-finish", "13 after-failure"],
            3,
        ),
        (target(64, &[], 4, "exception"), vec!["11 after-finish"], 4),
    ] {
        for (id, scheme) in [
            (10, "afterstart"),
            (11, "afterany"),
            (12, "afterok"),
            (13, "afternotok"),
            (14, "afterexcept"),
        ] {
            depend(&mut plugin, &host, id, scheme, Some(&pending)).unwrap();
        }
        host.take_wishes();
        plugin.event(&host, &end, "clean", "{}");
        let wishes = host.take_wishes();
        for met in ok {
            assert!(
                wishes
                    .iter()
                    .any(|wish| wish.starts_with(&format!("dependency-remove {met}"))),
                "{met}: {wishes:?}"
            );
        }
        assert_eq!(
            wishes.iter().filter(|wish| wish.starts_with("raise")).count(),
            not,
            "{wishes:?}"
        );
    }
}

#[test]
fn inactive_targets() {
    let host = FakeHost::default();
    let mut plugin = DependencyAfter::configure(&host).unwrap();
    let done = target(64, &["alloc", "start", "finish"], 1, "finish");
    let failed = target(64, &["alloc", "start", "finish"], 2, "finish");
    let cancelled = target(64, &[], 4, "exception");
    for (scheme, end, refusal) in [
        ("afterok", &done, None),
        ("afterany", &cancelled, None),
        ("afterstart", &done, None),
        ("afternotok", &failed, None),
        (
            "afterok",
            &failed,
            Some("dependency: afterok: job ƒ6 failed or was canceled"),
        ),
        (
            "afternotok",
            &done,
            Some("dependency: afternotok: job ƒ6 succeeded"),
        ),
        (
            "afternotok",
            &cancelled,
            Some("dependency: after: ƒ6 never started"),
        ),
        (
            "afterexcept",
            &failed,
            Some("dependency: afterexcept: job ƒ6: no exception"),
        ),
    ] {
        let said = depend(&mut plugin, &host, 20, scheme, Some(end));
        assert_eq!(
            said.err().map(|refused| refused.text),
            refusal.map(str::to_owned),
            "{scheme}"
        );
        host.take_wishes();
    }
    assert_eq!(
        depend(&mut plugin, &host, 20, "afterok", None).unwrap_err().text,
        "dependency: afterok: id ƒ6: job not found"
    );
    let foreign = FakeJob { userid: 3, ..done };
    assert_eq!(
        depend(&mut plugin, &host, 20, "afterok", Some(&foreign))
            .unwrap_err()
            .text,
        "afterok: Permission denied for job ƒ6"
    );
    depend(
        &mut plugin,
        &host,
        20,
        "after",
        Some(&target(16, &["alloc", "start"], 0, "")),
    )
    .unwrap();
    assert_eq!(
        host.take_wishes(),
        [
            "raise 20 dependency 3 dependency scheme 'after' is deprecated, use 'afterstart'",
            "dependency-add 20 after-start=ƒ6",
            "dependency-remove 20 after-start=ƒ6"
        ]
    );
}
