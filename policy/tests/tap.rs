//! Does a jobtap plugin that misbehaves cost its own call and nothing else? Do the standard ones say what they should?
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail the test"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use flux_policy::{
    Action, Answer, Command, Dependency, Effect, HostConfig, Limits, LogRecord, OnFailure, PluginInfo,
    PluginSpec, PluginState, PluginStats, PolicyError, PolicyHost, Priority, STANDARD_TAP, TapAnswer,
    TapCall, TapCommand, TapJob, Verdict, World, own_grants,
};

/// A host with jobtap plugins.
struct Stack {
    host: PolicyHost,
    logs: Vec<LogRecord>,
    rebuilt: Vec<Arc<str>>,
    now: f64,
}

type Done = (Vec<Effect>, Verdict);

impl Stack {
    fn new() -> Stack {
        let host = PolicyHost::inline(HostConfig {
            dir: common::policies(false),
            ..HostConfig::default()
        });
        Stack {
            host: host.unwrap(),
            logs: Vec::new(),
            rebuilt: Vec::new(),
            now: 1000.0,
        }
    }

    fn send(&mut self, commands: Vec<TapCommand>) -> Vec<TapAnswer> {
        let commands = commands.into_iter().map(Command::Tap).collect();
        self.host.send(self.now, commands).unwrap();
        let mut answers = Vec::new();
        self.host.receive(&mut answers);
        let mut taps = Vec::new();
        for answer in answers {
            match answer {
                Answer::Tap(TapAnswer::Rebuilt { name }) => self.rebuilt.push(name),
                Answer::Tap(answer) => taps.push(answer),
                Answer::Log(record) => self.logs.push(record),
                Answer::Ready(result) => result.unwrap(),
                other => panic!("{other:?}"),
            }
        }
        taps
    }

    fn load(&mut self, name: &str, spec: PluginSpec) -> Result<PluginInfo, PolicyError> {
        let answers = self.send(vec![TapCommand::Load {
            token: 1,
            spec: Box::new(spec),
            name: Arc::from(name),
            values: BTreeMap::new(),
        }]);
        match answers.into_iter().next() {
            Some(TapAnswer::Loaded { result, .. }) => result,
            other => panic!("{other:?}"),
        }
    }

    fn call(&mut self, job: &TapJob, call: TapCall) -> Option<Done> {
        let command = TapCommand::Call {
            token: 2,
            job: Arc::new(job.clone()),
            call,
            only: None,
        };
        let answers = self.send(vec![command]);
        answers.into_iter().find_map(|answer| match answer {
            TapAnswer::Done { effects, verdict, .. } => Some((effects, verdict)),
            _ => None,
        })
    }

    fn admit(&mut self, job: &TapJob) -> Done {
        let call = TapCall::Admit {
            dependencies: Vec::new(),
        };
        self.call(job, call).unwrap()
    }

    /// Tells what a rebuilt plugin waits for: nothing.
    fn replayed(&mut self) {
        for name in std::mem::take(&mut self.rebuilt) {
            self.send(vec![TapCommand::Replayed { name }]);
        }
    }

    fn stats(&mut self) -> Vec<PluginStats> {
        match self.send(vec![TapCommand::Stats { token: 3 }]).pop() {
            Some(TapAnswer::Stats { plugins, .. }) => plugins,
            other => panic!("{other:?}"),
        }
    }
}

fn standard(name: &str) -> PluginSpec {
    let mut spec = PluginSpec::new(format!("jobtap-{name}"), World::Jobtap);
    spec.grants = own_grants(&spec.name).to_vec();
    spec
}

fn hostile() -> PluginSpec {
    let limits = Limits {
        deadline: Duration::from_millis(250),
        ..Limits::default()
    };
    PluginSpec {
        limits,
        dir: Some(common::policies(true)),
        ..standard("hostile")
    }
}

fn job(id: u64, order: &str) -> TapJob {
    let text = serde_json::json!({"attributes": {"system": {"hostile": order}}}).to_string();
    TapJob {
        id,
        userid: 5,
        urgency: 16,
        state: 1,
        jobspec: Arc::from(text),
        ..TapJob::default()
    }
}

#[test]
fn each_failure_ends_one_call_and_names_plugin_and_job() {
    for (deed, reason) in [
        ("loop", "exceeded its deadline of 250 ms"),
        ("bomb", "memory"),
        ("trap", "panic or abort"),
        ("recurse", "out of bounds memory access"),
        ("huge-refusal", "fuel"),
        ("many-wishes", "too many actions"),
        ("huge-state", "64 KiB"),
        ("huge-wish", "1 MiB"),
    ] {
        let mut stack = Stack::new();
        stack.load("hostile", hostile()).unwrap();
        let (effects, verdict) = stack.admit(&job(7, &format!("validate {deed}")));
        assert!(
            effects.is_empty(),
            "{deed}: what a failed call asked for is dropped"
        );
        let Verdict::Refused(refusal) = verdict else {
            panic!("{deed}: {verdict:?}");
        };
        assert_eq!((&*refusal.plugin, refusal.errnum), ("hostile", 5), "{deed}");
        assert!(refusal.text.contains(reason), "{deed}: {}", refusal.text);
        let told = stack
            .logs
            .iter()
            .find(|log| log.level == 3 && &*log.plugin == "hostile")
            .unwrap();
        assert!(
            told.message.contains("failed in validate") && told.message.contains("ƒ8"),
            "{}",
            told.message
        );
        // it counts jobs: all others wait until its new instance knows them
        assert_eq!(stack.rebuilt.len(), 1, "{deed}");
        assert!(stack.call(&job(8, "x y"), TapCall::State).is_none());
        let answers = {
            let name = stack.rebuilt.pop().unwrap();
            stack.send(vec![TapCommand::Replayed { name }])
        };
        assert!(
            matches!(answers.as_slice(), [TapAnswer::Done { .. }]),
            "{answers:?}"
        );
        assert!(matches!(stack.admit(&job(9, "x y")).1, Verdict::Admitted(_)));
    }
}

#[test]
fn a_trap_at_each_callback_then_quarantine() {
    let mut stack = Stack::new();
    stack
        .load(".priority-default", standard("priority-default"))
        .unwrap();
    stack.load("hostile", hostile()).unwrap();
    for callback in ["create", "validate", "new"] {
        stack.now += 100.0;
        let verdict = stack.admit(&job(7, &format!("{callback} trap"))).1;
        let refused = matches!(verdict, Verdict::Refused(_));
        assert_eq!(refused, callback != "new", "{callback}: {verdict:?}");
        stack.replayed();
    }
    for (state, bit) in [
        ("depend", 2),
        ("priority", 4),
        ("sched", 8),
        ("run", 16),
        ("cleanup", 32),
        ("inactive", 64),
    ] {
        stack.now += 100.0;
        let job = TapJob {
            state: bit,
            ..job(7, &format!("state.{state} trap"))
        };
        assert_eq!(
            stack.call(&job, TapCall::State),
            Some((Vec::new(), Verdict::None))
        );
        assert_eq!(stack.rebuilt.len(), 1, "{state}");
        stack.replayed();
    }
    // others go on: the priority is the urgency
    stack.now += 100.0;
    let (_, verdict) = stack.call(&job(7, "priority trap"), TapCall::Priority).unwrap();
    assert_eq!(verdict, Verdict::Priority(Priority::Value(16)));
    stack.replayed();
    stack.now += 100.0;
    for _ in 0..5 {
        stack.admit(&job(7, "validate trap"));
        stack.replayed();
    }
    let stats = stack.stats();
    let hostile = stats.iter().find(|stats| &*stats.name == "hostile").unwrap();
    assert_eq!((hostile.state, hostile.traps), (PluginState::Quarantined, 15));
    assert!(hostile.last_failure.contains("panic or abort"));
    assert!(
        stack
            .logs
            .iter()
            .any(|log| log.level == 2 && log.message.contains("quarantine"))
    );
    // fail-closed: nothing that it should have checked passes
    let Verdict::Refused(refusal) = stack.admit(&job(8, "x y")).1 else {
        panic!("passed");
    };
    assert!(refusal.text.contains("quarantine"), "{}", refusal.text);
    // what it never wanted to see does
    let plain = TapJob {
        jobspec: Arc::from("{}"),
        ..job(9, "")
    };
    assert!(matches!(stack.admit(&plain).1, Verdict::Admitted(_)));
    // loaded again it has another chance
    stack.load("hostile", super_open()).unwrap();
    assert!(matches!(
        stack.admit(&job(8, "validate trap")).1,
        Verdict::Admitted(_)
    ));
}

fn super_open() -> PluginSpec {
    PluginSpec {
        on_failure: OnFailure::Open,
        ..hostile()
    }
}

#[test]
fn floods_are_cut() {
    let mut stack = Stack::new();
    stack.load("hostile", hostile()).unwrap();
    let (_, verdict) = stack.admit(&job(7, "validate flood"));
    assert!(matches!(verdict, Verdict::Admitted(_) | Verdict::Refused(_)));
    let lines = stack
        .logs
        .iter()
        .filter(|log| log.message.starts_with("line "))
        .count();
    assert_eq!(lines, 100);
}

#[test]
fn what_must_not_be_loaded() {
    let mut stack = Stack::new();
    // a wider import than granted
    let nothing_granted = PluginSpec::new("jobtap-alloc-bypass", World::Jobtap);
    let err = stack.load("alloc-bypass", nothing_granted).unwrap_err();
    let text = format!("{err}: {:?}", std::error::Error::source(&err));
    assert!(text.contains("flux:policy/bypass"), "{text}");
    for (topics, problem) in [
        ("job.fly", "no callback of the world jobtap"),
        ("job.state.run,job.state.walk", "no callback"),
        ("service.get", "the site did not grant"),
    ] {
        let spec = PluginSpec {
            args: serde_json::json!({ "topics": topics }),
            ..hostile()
        };
        let err = stack.load("hostile", spec).unwrap_err().to_string();
        assert!(err.contains(problem), "{err}");
    }
    let err = stack
        .load("x", PluginSpec::new("validator-jobspec", World::Jobtap))
        .unwrap_err();
    assert!(err.to_string().contains("is a validator, not a jobtap"), "{err}");
    let pinned = PluginSpec {
        sha256: Some("0".repeat(64)),
        ..standard("begin-time")
    };
    assert!(stack.load("x", pinned).unwrap_err().to_string().contains("pins"));
    assert!(stack.stats().is_empty());
    // a bad successor leaves the good one in place
    stack.load("hostile", hostile()).unwrap();
    assert!(
        stack
            .load(
                "hostile",
                PluginSpec {
                    args: serde_json::json!({"topics": "x"}),
                    ..hostile()
                }
            )
            .is_err()
    );
    assert!(matches!(
        stack.admit(&job(7, "validate refuse")).1,
        Verdict::Refused(_)
    ));
}

#[test]
fn state_outlives_the_instance_but_not_the_call_that_fails() {
    let mut stack = Stack::new();
    stack.load("hostile", hostile()).unwrap();
    let (effects, _) = stack.admit(&job(7, "validate remember one"));
    let saved = effects.iter().find_map(|effect| match &effect.action {
        Action::SaveState { values } => Some(values.clone()),
        _ => None,
    });
    let expected: BTreeMap<String, String> = [("count", "1"), ("last", "one")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    assert_eq!(saved, Some(expected));
    stack.admit(&job(7, "validate huge-state"));
    stack.replayed();
    let query = stack.call_one("hostile", TapCall::Query);
    assert_eq!(
        query,
        Verdict::Response(r#"{"jobs":0,"count":"1","last":"one"}"#.to_owned())
    );
}

impl Stack {
    fn call_one(&mut self, plugin: &str, call: TapCall) -> Verdict {
        let answers = self.send(vec![TapCommand::Call {
            token: 2,
            job: Arc::default(),
            call,
            only: Some(Arc::from(plugin)),
        }]);
        match answers.into_iter().next() {
            Some(TapAnswer::Done { verdict, .. }) => verdict,
            other => panic!("{other:?}"),
        }
    }
}

/// The whole standard stack, as the job manager loads it, for a plain job: one priority, nothing else.
#[test]
fn the_standard_stack_lets_a_plain_job_pass() {
    let mut stack = Stack::new();
    for name in STANDARD_TAP {
        stack.load(&format!(".{name}"), standard(name)).unwrap();
    }
    let job = TapJob {
        jobspec: Arc::from(common::JOBSPEC),
        ..job(7, "")
    };
    let (effects, verdict) = stack.admit(&job);
    assert_eq!(effects, []);
    let Verdict::Admitted(admitted) = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(
        (admitted.priority, admitted.states),
        (Some(Priority::Value(16)), 6)
    );
    let called: u64 = stack.stats().iter().map(|stats| stats.calls).sum();
    // priority-default, and history, which is told of each new job
    assert_eq!(called, 2, "who wants nothing of a job is not called");
}

/// A begin-time of its own directory, and a job that waits for a time.
fn waiting(stack: &mut Stack) -> (tempfile::TempDir, impl Fn(&mut Stack) -> Verdict + use<>) {
    let dir = tempfile::tempdir().unwrap();
    for suffix in ["cwasm", "json"] {
        let name = format!("jobtap-begin-time.{suffix}");
        fs::copy(common::policies(false).join(&name), dir.path().join(&name)).unwrap();
    }
    let spec = PluginSpec {
        dir: Some(dir.path().to_owned()),
        ..standard("begin-time")
    };
    stack.load("begin-time", spec).unwrap();
    let wait = |stack: &mut Stack| {
        let call = TapCall::Admit {
            dependencies: vec![Dependency {
                scheme: "begin-time".to_owned(),
                entry: r#"{"scheme":"begin-time","value":"2000"}"#.to_owned(),
                target: None,
            }],
        };
        stack.call(&job(7, "x y"), call).unwrap().1
    };
    (dir, wait)
}

#[test]
fn rests_until_a_job_needs_it() {
    let mut stack = Stack::new();
    let (dir, wait) = waiting(&mut stack);
    let figures = |stack: &mut Stack| {
        let stats = stack.stats();
        (stats[0].state, stats[0].memory_bytes > 0)
    };
    assert_eq!(figures(&mut stack), (PluginState::Resting, false));
    assert!(matches!(stack.admit(&job(6, "x y")).1, Verdict::Admitted(_)));
    assert_eq!(
        figures(&mut stack),
        (PluginState::Resting, false),
        "no business of its"
    );
    // an upgrade while it rests: the code that was loaded is used
    let path = dir.path().join("jobtap-begin-time.cwasm");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "of another version").unwrap();
    assert!(matches!(wait(&mut stack), Verdict::Admitted(_)));
    assert_eq!(figures(&mut stack), (PluginState::Running, true));
    assert!(
        stack.rebuilt.is_empty(),
        "it was told nothing that it could have lost"
    );
}

#[test]
fn code_that_was_written_over_is_not_run() {
    let mut stack = Stack::new();
    let (dir, wait) = waiting(&mut stack);
    fs::write(dir.path().join("jobtap-begin-time.cwasm"), "anything").unwrap();
    let Verdict::Refused(refusal) = wait(&mut stack) else {
        panic!("it ran");
    };
    assert_eq!(&*refusal.plugin, "begin-time");
    let told = &stack.logs.iter().find(|log| log.level == 3).unwrap().message;
    assert!(told.contains("jobtap-begin-time.cwasm"), "{told}");
}
