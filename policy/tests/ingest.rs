//! Do our own frobnicators and validators work as components, inline and on the policy thread?
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail the test"
)]

mod common;

use std::sync::{Arc, mpsc};
use std::time::Duration;

use common::{JOBSPEC, ingest, ingest_config, job};
use flux_policy::{Answer, Command, PluginSpec, PolicyError, PolicyHost, World};

const QUEUES: &str = r#"{"policy":{"jobspec":{"defaults":{"system":{"duration":"1h","queue":"batch"}}}},
    "queues":{"batch":{"requires":["batch"]},"debug":{}}}"#;

#[test]
fn passes_unchanged_without_configuration() {
    let mut host = PolicyHost::inline(ingest_config("")).unwrap();
    let (end, _) = ingest(&mut host, 1.0, JOBSPEC);
    let accepted = end.unwrap();
    assert!(!accepted.changed);
    assert_eq!(&*accepted.jobspec, JOBSPEC);
}

#[test]
fn frobnicators_build_on_each_other() {
    let mut host = PolicyHost::inline(ingest_config(QUEUES)).unwrap();
    let accepted = ingest(&mut host, 1.0, JOBSPEC).0.unwrap();
    assert!(accepted.changed);
    let expected = JOBSPEC
        .replace(r#""duration":0,"#, r#""duration":3600.0,"#)
        .replace(
            r#""core":0}}}}}"#,
            r#""core":0}}},"queue":"batch","constraints":{"properties":["batch"]}}}"#,
        );
    assert_eq!(&*accepted.jobspec, expected);
}

#[test]
fn refusals_have_errnum_text_and_name() {
    let mut host = PolicyHost::inline(ingest_config(QUEUES)).unwrap();
    let refusal = ingest(
        &mut host,
        1.0,
        &JOBSPEC.replace(r#""cwd""#, r#""queue":"nope","cwd""#),
    )
    .0
    .unwrap_err();
    assert_eq!((&*refusal.plugin, refusal.errnum), ("frobnicator-defaults", 22));
    assert_eq!(refusal.text, "Invalid queue 'nope' specified");
    let refusal = ingest(
        &mut host,
        1.0,
        &JOBSPEC.replace(r#""count":1,"with""#, r#""count":0,"with""#),
    )
    .0
    .unwrap_err();
    assert_eq!((&*refusal.plugin, refusal.errnum), ("validator-jobspec", 22));
    assert_eq!(
        refusal.text,
        "resources[0]: node, slot, or core count must be > 0"
    );
    let mut unchecked = job("{}");
    unchecked.novalidate = true;
    let mut host = PolicyHost::inline(ingest_config("")).unwrap();
    host.send(
        1.0,
        vec![Command::Ingest {
            token: 1,
            job: unchecked,
        }],
    )
    .unwrap();
    let mut answers = Vec::new();
    host.receive(&mut answers);
    assert!(
        matches!(
            answers.last(),
            Some(Answer::Ingest {
                token: 1,
                result: Ok(_)
            })
        ),
        "{answers:?}"
    );
}

#[test]
fn arguments_reach_the_plugin() {
    let mut config = ingest_config("");
    let spec = PluginSpec {
        args: serde_json::json!(["--require-version=any"]),
        ..PluginSpec::new("validator-jobspec", World::Validator)
    };
    config.validators = vec![spec];
    let mut host = PolicyHost::inline(config.clone()).unwrap();
    assert!(
        ingest(
            &mut host,
            1.0,
            &JOBSPEC.replace(r#""version":1"#, r#""version":2"#)
        )
        .0
        .is_ok()
    );
    config.validators[0].args = serde_json::json!(["--require-version=7"]);
    let error = PolicyHost::inline(config).unwrap_err();
    assert!(matches!(&error, PolicyError::Refused { errnum: 22, .. }));
    assert_eq!(
        error.to_string(),
        "plugin validator-jobspec: Required jobspec version too high: 7 is > 1"
    );
}

#[test]
fn configuration_is_taken_by_all_or_none() {
    let mut host = PolicyHost::inline(ingest_config(QUEUES)).unwrap();
    let mut configure = |config: &str| {
        host.send(
            2.0,
            vec![Command::Configure {
                token: 3,
                config: Arc::from(config),
            }],
        )
        .unwrap();
        let mut answers = Vec::new();
        host.receive(&mut answers);
        match answers.pop() {
            Some(Answer::Configured { token: 3, result }) => {
                let duration = ingest(&mut host, 3.0, JOBSPEC).0.unwrap().jobspec;
                (
                    result.map_err(|error| error.to_string()),
                    duration.contains("3600.0"),
                )
            }
            other => panic!("{other:?}"),
        }
    };
    // defaults takes it, constraints does not: defaults must have the old one again
    let (result, old) = configure(
        r#"{"queues":{"q":{"requires":"not a list"}},
        "policy":{"jobspec":{"defaults":{"system":{"duration":5,"queue":"q"}}}}}"#,
    );
    assert_eq!(
        result.unwrap_err(),
        "plugin frobnicator-constraints: queues.q.requires must be an array of strings"
    );
    assert!(old);
    let (result, _) = configure("{");
    assert!(result.unwrap_err().starts_with("configuration"));
    let (result, old) = configure("{}");
    assert!(result.is_ok() && !old);
}

#[test]
fn a_batch_on_the_thread_is_one_crossing() {
    let (send, woken) = mpsc::channel();
    let mut host =
        PolicyHost::spawn(ingest_config(""), Box::new(move || send.send(()).unwrap_or(()))).unwrap();
    let batch = (0..200)
        .map(|token| Command::Ingest {
            token,
            job: job(JOBSPEC),
        })
        .collect();
    host.send(1.0, batch).unwrap();
    let mut answers = Vec::new();
    let mut wakes = 0;
    while answers.len() < 201 {
        woken.recv_timeout(Duration::from_secs(60)).unwrap();
        wakes += 1;
        host.receive(&mut answers);
        answers.retain(|answer| !matches!(answer, Answer::Log(_)));
    }
    assert!(wakes <= 2, "{wakes}");
    assert!(matches!(answers.first(), Some(Answer::Ready(Ok(())))));
    let tokens: Vec<u64> = answers
        .iter()
        .filter_map(|answer| match answer {
            Answer::Ingest { token, result: Ok(_) } => Some(*token),
            _ => None,
        })
        .collect();
    assert_eq!(tokens, (0..200).collect::<Vec<_>>());
}

#[test]
fn a_host_that_cannot_load_says_so_and_refuses() {
    let (send, woken) = mpsc::channel();
    let mut config = ingest_config("");
    config.validators = vec![PluginSpec::new("validator-nonesuch", World::Validator)];
    let mut host = PolicyHost::spawn(config, Box::new(move || send.send(()).unwrap_or(()))).unwrap();
    host.send(
        1.0,
        vec![Command::Ingest {
            token: 1,
            job: job(JOBSPEC),
        }],
    )
    .unwrap();
    let mut answers = Vec::new();
    while answers.len() < 2 {
        woken.recv_timeout(Duration::from_secs(60)).unwrap();
        host.receive(&mut answers);
    }
    assert!(
        matches!(&answers[0], Answer::Ready(Err(PolicyError::Io { path, .. })) if path.ends_with("validator-nonesuch.json"))
    );
    match &answers[1] {
        Answer::Ingest {
            token: 1,
            result: Err(refusal),
        } => {
            assert_eq!(refusal.errnum, 5);
            assert!(refusal.text.contains("validator-nonesuch"), "{}", refusal.text);
        }
        other => panic!("{other:?}"),
    }
}
