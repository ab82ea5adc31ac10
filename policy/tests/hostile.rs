//! Does a guest that loops, eats memory, traps or floods cost its own call and nothing else?
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail the test"
)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{hostile_config, ingest};
use flux_policy::{Answer, Command, Limits, OnFailure, PluginSpec, PolicyError, PolicyHost, World};

fn spec() -> PluginSpec {
    let limits = Limits {
        deadline: Duration::from_millis(250),
        ..Limits::default()
    };
    PluginSpec {
        limits,
        ..PluginSpec::new("validator-hostile", World::Validator)
    }
}

#[test]
fn each_failure_ends_one_call_and_names_the_plugin() {
    let mut host = PolicyHost::inline(hostile_config(spec())).unwrap();
    for (command, reason) in [
        ("loop", "exceeded its deadline of 250 ms"),
        ("bomb", "memory"),
        ("trap", "panic or abort"),
        // the stack in its memory ends before the one of the engine
        ("recurse", "out of bounds memory access"),
        ("huge-refusal", "fuel"),
    ] {
        let begun = Instant::now();
        let (end, logs) = ingest(&mut host, 1.0, command);
        let refusal = end.unwrap_err();
        assert_eq!(
            (&*refusal.plugin, refusal.errnum),
            ("validator-hostile", 5),
            "{command}"
        );
        let head = "plugin validator-hostile failed in validate: ";
        assert!(
            refusal.text.starts_with(head) && refusal.text.contains(reason),
            "{command}: {}",
            refusal.text
        );
        assert!(logs.iter().any(|log| log.level == 3
            && &*log.plugin == "validator-hostile"
            && log.message.starts_with(&refusal.text)));
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{command} took {:?}",
            begun.elapsed()
        );
        // the next call has a new instance and works
        let (end, _) = ingest(&mut host, 1.0, "calls");
        assert_eq!(end.unwrap_err().text, "1", "after {command}");
    }
    assert_eq!(
        ingest(&mut host, 1.0, "calls").0.unwrap_err().text,
        "2",
        "an instance lives on while it behaves"
    );
}

#[test]
fn answers_are_bounded_and_tidied() {
    let mut host = PolicyHost::inline(hostile_config(spec())).unwrap();
    let refusal = ingest(&mut host, 1.0, "long-refusal").0.unwrap_err();
    assert_eq!((refusal.errnum, refusal.text.len()), (22, 4096));
    assert_eq!(ingest(&mut host, 1.0, "errno-0").0.unwrap_err().errnum, 22);
}

#[test]
fn log_floods_are_cut_and_counted() {
    let mut host = PolicyHost::inline(hostile_config(spec())).unwrap();
    let (end, logs) = ingest(&mut host, 10.0, "flood");
    assert!(end.is_ok());
    let lines = || logs.iter().filter(|log| log.level == 3);
    assert_eq!(lines().count(), 100);
    assert!(lines().all(|log| !log.message.contains('\n') && log.message.starts_with("line ")));
    let (_, logs) = ingest(&mut host, 11.5, "fine");
    assert!(
        logs.iter()
            .any(|log| log.message == "99900 log messages dropped: too many in a second"),
        "{logs:?}"
    );
    let (_, logs) = ingest(&mut host, 13.0, "huge-log");
    assert_eq!(logs[0].message.len(), 1024);
}

#[test]
fn fail_open_lets_the_submission_pass() {
    let open = PluginSpec {
        on_failure: OnFailure::Open,
        ..spec()
    };
    let mut host = PolicyHost::inline(hostile_config(open)).unwrap();
    let (end, logs) = ingest(&mut host, 1.0, "trap");
    assert!(end.is_ok());
    assert!(logs.iter().any(|log| log.message.contains("panic or abort")));
    // a refusal is no failure
    assert!(ingest(&mut host, 1.0, "errno-0").0.is_err());
}

#[test]
fn a_plugin_that_cannot_be_configured_is_not_loaded() {
    let load = |mode: &str| {
        let mut config = hostile_config(spec());
        config.config = Arc::from(format!(r#"{{"hostile":{{"configure":"{mode}"}}}}"#));
        PolicyHost::inline(config).unwrap_err()
    };
    assert!(matches!(load("refuse"), PolicyError::Refused { errnum: 1, .. }));
    assert!(matches!(
        load("trap"),
        PolicyError::Trapped {
            function: "configure",
            ..
        }
    ));
}

#[test]
fn a_trap_while_reconfiguring_refuses_the_change() {
    let mut host = PolicyHost::inline(hostile_config(spec())).unwrap();
    let config = Arc::from(r#"{"hostile":{"configure":"trap"}}"#);
    host.send(1.0, vec![Command::Configure { token: 1, config }])
        .unwrap();
    let mut answers = Vec::new();
    host.receive(&mut answers);
    assert!(
        answers.iter().any(|answer| matches!(
            answer,
            Answer::Configured {
                token: 1,
                result: Err(_)
            }
        )),
        "{answers:?}"
    );
    assert!(ingest(&mut host, 1.0, "fine").0.is_ok());
}

/// While one host's plugin loops on the shared thread, its own callers wait at most its deadline; this measures that it ends.
#[test]
fn the_thread_goes_on_after_a_loop() {
    let (send, woken) = std::sync::mpsc::channel();
    let wake = move || send.send(()).unwrap_or(());
    let mut host = PolicyHost::spawn(hostile_config(spec()), Box::new(wake)).unwrap();
    let batch = ["loop", "fine", "bomb", "fine"];
    let batch = (0..)
        .zip(batch)
        .map(|(token, text)| Command::Ingest {
            token,
            job: common::job(text),
        })
        .collect();
    host.send(1.0, batch).unwrap();
    let mut ends = Vec::new();
    while ends.len() < 4 {
        woken.recv_timeout(Duration::from_secs(60)).unwrap();
        let mut answers = Vec::new();
        host.receive(&mut answers);
        ends.extend(answers.into_iter().filter_map(|answer| match answer {
            Answer::Ingest { result, .. } => Some(result.is_ok()),
            _ => None,
        }));
    }
    assert_eq!(ends, [false, true, false, true]);
}

/// The log says in which functions a plugin failed; the user hears the reason alone.
#[test]
fn the_log_names_the_functions_that_failed() {
    let mut host = PolicyHost::inline(hostile_config(spec())).unwrap();
    for (command, function) in [("recurse", "recurse"), ("loop", "validate"), ("trap", "validate")] {
        let (end, logs) = ingest(&mut host, 1.0, command);
        assert!(!end.unwrap_err().text.contains(" (in "));
        let named = |message: &str| {
            let (_, trace) = message.split_once(" (in ").unwrap_or_default();
            trace.contains(function)
        };
        assert!(
            logs.iter().any(|log| log.level == 3 && named(&log.message)),
            "{command}: {logs:?}"
        );
    }
}
