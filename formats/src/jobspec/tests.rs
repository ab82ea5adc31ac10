//! Does parsing keep everything, and do command-line counts make the JSON that flux-core makes?

use super::*;
use proptest::prelude::*;
use serde_json::json;

macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!("../../tests/data/jobspec/", $name, ".json"))
    };
}

/// Sets the attributes that the golden files' commands add after the counts.
fn finish(mut jobspec: Jobspec, like: &str) -> String {
    let golden = Jobspec::parse(like.as_bytes()).unwrap();
    for key in ["environment", "cwd"] {
        jobspec
            .set_system(key, golden.system(key).unwrap().clone())
            .unwrap();
    }
    jobspec
        .set_shell_option("rlimit", golden.shell_option("rlimit").unwrap().clone())
        .unwrap();
    jobspec.encode()
}

#[test]
fn golden_shapes() {
    let per_task = |ntasks, cores, gpus, nnodes, exclusive| PerTask {
        ntasks,
        cores_per_task: cores,
        gpus_per_task: gpus,
        nnodes,
        exclusive,
    };
    let per_resource = |ncores, nnodes, gpus, per_resource| PerResource {
        ncores,
        nnodes,
        gpus_per_node: gpus,
        per_resource,
        exclusive: false,
    };
    let hostname = ["hostname"];
    let cases = [
        (golden!("basic"), PerTask::default().build(&["true"])),
        (
            golden!("run-n4-c2-g1"),
            per_task(Some(4), Some(2), Some(1), None, false).build(&["hostname", "-f"]),
        ),
        (
            golden!("nodes-N2-n4"),
            per_task(Some(4), None, None, Some(2), false).build(&hostname),
        ),
        (
            golden!("nodes-exclusive"),
            per_task(None, None, None, Some(2), false).build(&hostname),
        ),
        (
            golden!("gpus-per-node"),
            per_resource(None, Some(2), Some(2), None).build(&hostname),
        ),
        (
            golden!("cores-nodes"),
            per_resource(Some(4), Some(2), None, Some((ResourceType::Core, 1))).build(&hostname),
        ),
        (
            golden!("tasks-per-node"),
            per_resource(None, Some(2), None, Some((ResourceType::Node, 2))).build(&hostname),
        ),
    ];
    for (golden, built) in cases {
        let golden_json: Value = serde_json::from_str(golden).unwrap();
        assert_eq!(finish(built.unwrap(), golden), golden_json.to_string());
    }
}

#[test]
fn counts_and_tasks() {
    let counts = |text: &str| {
        let jobspec = Jobspec::parse(text.as_bytes()).unwrap();
        let c = *jobspec.counts();
        (
            c.nnodes,
            c.nslots,
            c.cores_per_slot,
            c.gpus_per_slot,
            c.exclusive,
            jobspec.ntasks(),
        )
    };
    assert_eq!(counts(golden!("basic")), (0, 1, 1, 0, false, 1));
    assert_eq!(counts(golden!("run-n4-c2-g1")), (0, 4, 2, 1, false, 4));
    assert_eq!(counts(golden!("nodes-N2-n4")), (2, 4, 1, 0, false, 4));
    assert_eq!(counts(golden!("nodes-exclusive")), (2, 2, 1, 0, true, 2));
    assert_eq!(counts(golden!("tasks-per-node")), (2, 2, 1, 0, true, 4));
    assert_eq!(counts(golden!("cores-nodes")), (2, 2, 2, 0, false, 4));
    assert_eq!(counts(golden!("alloc")), (1, 1, 1, 0, true, 1));
    let uneven = PerTask {
        ntasks: Some(5),
        nnodes: Some(4),
        ..PerTask::default()
    }
    .build(&["a"])
    .unwrap();
    assert_eq!(uneven.task_count(), TaskCount::Total(5));
    assert_eq!((uneven.ntasks(), uneven.counts().nslots), (5, 8));
    let whole = Jobspec::parse(golden!("tasks-per-node").as_bytes()).unwrap();
    assert_eq!(whole.ntasks_with(3, 12), 6);
}

#[test]
fn accessors() {
    let full = Jobspec::parse(golden!("full").as_bytes()).unwrap();
    assert_eq!(full.duration(), 300.0);
    assert_eq!(
        (full.queue(), full.bank(), full.cwd()),
        (Some("batch"), Some("proj"), Some("/tmp"))
    );
    assert_eq!(full.project(), None);
    assert_eq!(full.name(), Some("foo"));
    assert_eq!(full.command(), ["/bin/echo", "hello"]);
    assert_eq!(full.environment().unwrap().get("FOO"), Some(&json!("bar")));
    assert_eq!(full.shell_option("output.stdout.label"), Some(&json!(true)));
    assert_eq!(full.constraints(), Some(&json!({"hostlist": ["foo"]})));
    let dependencies: Vec<_> = full.dependencies().map(|d| (d.scheme, d.value)).collect();
    assert_eq!(
        dependencies,
        [("afterok", "f1"), ("begin-time", "1795243737.525952")]
    );
    assert_eq!(full.get("attributes.user.note"), Some(&json!("hi")));
    assert_eq!(full.system("foo"), Some(&json!(1)));
    let basic = Jobspec::parse(golden!("basic").as_bytes()).unwrap();
    assert_eq!(basic.name(), Some("true"));
    assert_eq!(
        full.encode(),
        serde_json::from_str::<Value>(golden!("full"))
            .unwrap()
            .to_string()
    );
}

#[test]
fn setting() {
    let mut jobspec = Jobspec::parse(golden!("basic").as_bytes()).unwrap();
    jobspec.set_system("duration", 60.5).unwrap();
    jobspec.set_system("queue", "debug").unwrap();
    jobspec.set("attributes.user.a.b", json!(1)).unwrap();
    assert_eq!((jobspec.duration(), jobspec.queue()), (60.5, Some("debug")));
    let before = jobspec.clone();
    assert!(matches!(
        jobspec.set_system("duration", -1),
        Err(PathError::Invalid(_))
    ));
    assert!(matches!(
        jobspec.set_system("bank", 1),
        Err(PathError::Invalid(_))
    ));
    assert!(matches!(
        jobspec.set_system("queue.x", 1),
        Err(PathError::NotObject(_))
    ));
    assert!(matches!(jobspec.set_system("", 1), Err(PathError::Empty(_))));
    assert!(matches!(
        jobspec.set("version", json!(2)),
        Err(PathError::Invalid(_))
    ));
    assert_eq!(jobspec, before);
    jobspec
        .set_environment([("A.B".to_owned(), "c".to_owned())])
        .unwrap();
    assert_eq!(jobspec.environment().unwrap().get("A.B"), Some(&json!("c")));
}

#[test]
fn errors_name_the_place() {
    let base = || serde_json::from_str::<Value>(golden!("nodes-N2-n4")).unwrap();
    let cases: Vec<(&str, Value, &str)> = vec![
        (
            "/version",
            json!(2),
            "jobspec: version: only version 1 is supported",
        ),
        ("/version", json!("1"), "jobspec: version: expected an integer"),
        (
            "/resources",
            json!([]),
            "jobspec: resources: expected a list of exactly one element",
        ),
        (
            "/resources/0/type",
            json!("core"),
            "jobspec: resources[0].type: expected node or slot",
        ),
        (
            "/resources/0/count",
            json!(0),
            "jobspec: resources[0].count: expected an integer of at least 1",
        ),
        (
            "/resources/0/count",
            json!(1u64 << 40),
            "jobspec: resources[0].count: count is too large",
        ),
        (
            "/resources/0/count",
            json!(u32::MAX),
            "jobspec: resources[0].with[0].count: count is too large",
        ),
        (
            "/resources/0/with/0/with/0/type",
            json!("x"),
            "jobspec: resources[0].with[0].with[0].type: expected core or gpu",
        ),
        (
            "/resources/0/with/0/with",
            json!([]),
            "jobspec: resources[0].with[0].with: expected a core",
        ),
        (
            "/tasks/0/slot",
            json!("x"),
            "jobspec: tasks[0].slot: expected the label of the slot in resources",
        ),
        (
            "/tasks/0/command",
            json!([]),
            "jobspec: tasks[0].command: expected a list of at least one string",
        ),
        (
            "/tasks/0/count",
            json!({"per_slot": 2}),
            "jobspec: tasks[0].count.per_slot: expected 1",
        ),
        (
            "/attributes/system/duration",
            json!(-1),
            "jobspec: attributes.system.duration: expected a number of at least 0",
        ),
        (
            "/attributes",
            json!({"system": {}}),
            "jobspec: attributes.system.duration: missing key",
        ),
        (
            "/attributes/system/environment",
            json!({"A": 1}),
            "jobspec: attributes.system.environment.A: expected a string or null",
        ),
        (
            "/attributes/system",
            json!({"duration": 0, "dependencies": [{"scheme": "x"}]}),
            "jobspec: attributes.system.dependencies[0].value: missing key",
        ),
        (
            "/tasks",
            Value::Null,
            "jobspec: tasks: expected a list of exactly one element",
        ),
        ("", json!({"version": 1}), "jobspec: resources: missing key"),
        ("", json!([]), "jobspec: jobspec: expected an object"),
        ("", json!({"x": 1}), "jobspec: x: unknown key"),
    ];
    for (pointer, value, text) in cases {
        let mut json = base();
        *json.pointer_mut(pointer).unwrap() = value;
        assert_eq!(Jobspec::from_value(json).unwrap_err().to_string(), text);
    }
    assert!(matches!(Jobspec::parse(b"{"), Err(JobspecError::Json(_))));
}

#[test]
fn build_errors() {
    assert!(matches!(
        PerTask::default().build::<&str>(&[]),
        Err(BuildError::Command)
    ));
    let per_task = PerTask {
        ntasks: Some(1),
        nnodes: Some(2),
        ..PerTask::default()
    };
    assert!(matches!(
        per_task.build(&["a"]),
        Err(BuildError::NodesExceedTasks)
    ));
    assert!(matches!(
        PerTask {
            ntasks: Some(0),
            ..PerTask::default()
        }
        .build(&["a"]),
        Err(BuildError::Zero(_))
    ));
    let per_resource = PerResource {
        ncores: Some(3),
        nnodes: Some(2),
        ..PerResource::default()
    };
    assert!(matches!(per_resource.build(&["a"]), Err(BuildError::CoresUneven)));
    let per_resource = PerResource {
        ncores: Some(1),
        nnodes: Some(2),
        ..PerResource::default()
    };
    assert!(matches!(
        per_resource.build(&["a"]),
        Err(BuildError::CoresBelowNodes)
    ));
    let per_resource = PerResource {
        gpus_per_node: Some(1),
        ..PerResource::default()
    };
    assert!(matches!(
        per_resource.build(&["a"]),
        Err(BuildError::GpusWithoutNodes)
    ));
}

proptest! {
    #[test]
    fn built_ones_parse(ntasks in prop::option::of(1u32..100), cores in 1u32..8, gpus in 0u32..3,
                        nnodes in prop::option::of(1u32..10), exclusive: bool) {
        let request = PerTask {
            ntasks, cores_per_task: Some(cores), gpus_per_task: Some(gpus), nnodes, exclusive,
        };
        if let Ok(jobspec) = request.build(&["a"]) {
            let again = Jobspec::parse(jobspec.encode().as_bytes()).unwrap();
            prop_assert_eq!(&again, &jobspec);
            prop_assert_eq!(again.ntasks(), u64::from(ntasks.or(nnodes).unwrap_or(1)));
            prop_assert!(u64::from(again.counts().nslots) >= again.ntasks());
        } else {
            prop_assert!(nnodes > ntasks);
        }
    }
}
