use flux_policy_sdk::fake::{FakeHost, FakeJob};
use serde_json::json;

use super::*;

fn validator(args: Value) -> Result<JobspecValidator, Refusal> {
    JobspecValidator::configure(&FakeHost {
        args,
        ..FakeHost::default()
    })
}

fn check(jobspec: &Value) -> Result<(), String> {
    let mut policy = validator(json!([])).unwrap();
    policy
        .validate(&FakeHost::default(), &FakeJob::new(jobspec.to_string()))
        .map_err(|refusal| (refusal.errnum == 22).then_some(refusal.text).unwrap())
}

fn good() -> Value {
    json!({
        "resources": [{"type": "node", "count": 2, "with": [
            {"type": "slot", "count": 2, "label": "task", "with": [{"type": "core", "count": 1}, {"type": "gpu", "count": 0}]}]}],
        "tasks": [{"command": ["hostname"], "slot": "task", "count": {"per_slot": 1}}],
        "attributes": {"system": {"duration": 0, "environment": {"PATH": "/bin"},
            "dependencies": [{"scheme": "afterok", "value": "f1"}],
            "constraints": {"or": [{"properties": ["a", "^b"]}, {"and": [{"hostlist": ["node[1-3,05]"]}, {"ranks": ["0-3,7"]}]}]}}},
        "version": 1
    })
}

/// Sets or removes one value of the good jobspec.
fn with(pointer: &str, value: Option<Value>) -> Value {
    let mut jobspec = good();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = jobspec.pointer_mut(parent).unwrap();
    match (parent, value) {
        (Value::Object(map), Some(value)) => {
            map.insert(key.to_owned(), value);
        }
        (Value::Object(map), None) => {
            map.remove(key);
        }
        (Value::Array(list), Some(value)) => list[key.parse::<usize>().unwrap()] = value,
        _ => panic!("{pointer}"),
    }
    jobspec
}

#[test]
fn good_ones_pass() {
    let mut jobspec = good();
    assert_eq!(check(&jobspec), Ok(()));
    jobspec["attributes"]["system"]
        .as_object_mut()
        .unwrap()
        .remove("constraints");
    assert_eq!(check(&jobspec), Ok(()));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn texts_name_what_and_where() {
    let slot = "/resources/0/with/0";
    let system = "/attributes/system";
    for (pointer, value, text) in [
        ("/version".to_owned(), None, "Missing key (version)"),
        ("/extra".into(), Some(json!(1)), "Extraneous key (extra)"),
        ("/version".into(), Some(json!(2)), "version must be 1"),
        ("/version".into(), Some(json!(0)), "version must be >= 1"),
        ("/version".into(), Some(json!("1")), "version must be an integer"),
        (
            "/resources".into(),
            Some(json!({})),
            "resources must be a sequence",
        ),
        (
            "/resources/0/type".into(),
            None,
            "resources[0]: type is a required key for resources",
        ),
        (
            format!("{slot}/label"),
            None,
            "resources[0].with[0]: slots must have labels",
        ),
        (
            format!("{slot}/count"),
            None,
            "resources[0].with[0]: count is a required key for resources",
        ),
        (
            format!("{slot}/count"),
            Some(json!(0)),
            "resources[0].with[0]: node, slot, or core count must be > 0",
        ),
        (
            format!("{slot}/count"),
            Some(json!(1.5)),
            "resources[0].with[0]: count must be an int or mapping",
        ),
        (
            format!("{slot}/count"),
            Some(json!({"min": 1})),
            "resources[0].with[0]: resource count must be an integer for type 'slot' (got 'dict')",
        ),
        (
            format!("{slot}/count"),
            Some(json!("1-4")),
            "resources[0].with[0]: resource count must be an integer for type 'slot' (got 'str')",
        ),
        (
            format!("{slot}/with/1/count"),
            Some(json!(-1)),
            "resources[0].with[0].with[1]: count must be >= 0",
        ),
        (
            format!("{slot}/exclusive"),
            Some(json!(1)),
            "resources[0].with[0]: exclusive must be a boolean",
        ),
        (
            "/tasks/0/command".into(),
            Some(json!([])),
            "tasks[0]: command array cannot have length of zero",
        ),
        (
            "/tasks/0/command".into(),
            Some(json!("x")),
            "tasks[0]: command must be a list of strings",
        ),
        ("/tasks/0/slot".into(), None, "tasks[0]: Missing key (slot)"),
        (
            "/tasks/0/count".into(),
            Some(json!({"per_resource": {}})),
            "tasks[0]: count per_slot or total must be set",
        ),
        (
            "/tasks/0/count".into(),
            Some(json!({"total": 0})),
            "tasks[0]: count total must be > 0",
        ),
        (
            "/attributes/other".into(),
            Some(json!({})),
            "attributes: Extraneous key (other)",
        ),
        (
            "/attributes/system".into(),
            None,
            "attributes.system is a required key",
        ),
        (
            format!("{system}/duration"),
            None,
            "attributes.system.duration is a required key",
        ),
        (
            format!("{system}/duration"),
            Some(json!("1h")),
            "attributes.system.duration must be a number",
        ),
        (
            format!("{system}/dependencies"),
            Some(json!([{"scheme": "after"}])),
            "attributes.system.dependencies[0]: Missing key (value)",
        ),
        (
            format!("{system}/constraints"),
            Some(json!({"and": [{"properties": ["a|b"]}]})),
            "attributes.system.constraints.and[0].properties[0]: invalid character in property 'a|b'",
        ),
        (
            format!("{system}/constraints"),
            Some(json!({"foo": []})),
            "attributes.system.constraints.foo: unknown constraint operator 'foo'",
        ),
        (
            format!("{system}/constraints"),
            Some(json!({"hostlist": ["n[1"]})),
            "attributes.system.constraints.hostlist[0]: invalid hostlist 'n[1'",
        ),
    ] {
        assert_eq!(check(&with(&pointer, value)), Err(text.to_owned()), "{pointer}");
    }
    let mut policy = validator(json!([])).unwrap();
    for text in ["", "[]", "{", "null"] {
        assert!(
            policy
                .validate(&FakeHost::default(), &FakeJob::new(text))
                .is_err(),
            "{text}"
        );
    }
}

#[test]
fn any_version_takes_ranges() {
    let mut policy = validator(json!(["--other", "--require-version", "any"])).unwrap();
    let mut jobspec = with("/version", Some(json!(9999)));
    jobspec["attributes"]["system"]
        .as_object_mut()
        .unwrap()
        .remove("constraints");
    for (count, ok) in [
        (json!("2-8:2:*"), true),
        (json!("2+"), true),
        (json!("1,7-9"), true),
        (json!("8-2:1:+"), false),
        (json!("x"), false),
        (json!({"min": 2, "max": 8, "operator": "^", "operand": 2}), true),
        (json!({"min": 1, "max": 8, "operator": "^", "operand": 2}), false),
        (json!({"min": 2, "operand": 2}), false),
    ] {
        jobspec["resources"][0]["count"] = count.clone();
        let result = policy.validate(&FakeHost::default(), &FakeJob::new(jobspec.to_string()));
        assert_eq!(result.is_ok(), ok, "{count} {result:?}");
    }
    for bad in ["0", "2", "x"] {
        assert!(validator(json!([format!("--require-version={bad}")])).is_err());
    }
}
