use super::*;
use flux_policy_sdk::fake::{FakeHost, FakeJob};
use serde_json::json;

fn says(schema: &Value, value: &Value) -> Option<String> {
    let schema = Schema::new(schema.clone()).unwrap_or_else(|err| panic!("{schema}: {err}"));
    check::check(&schema, value).err()
}

/// Each word: a schema, what meets it, what does not, and what is said of that.
#[test]
#[expect(clippy::too_many_lines, reason = "a list")]
fn words() {
    for (schema, good, bad, text) in [
        (
            json!({"type": "integer"}),
            json!([1, 1.0, -3]),
            json!(1.5),
            "jobspec: must be an integer",
        ),
        (
            json!({"type": ["string", "null"]}),
            json!(["a", null]),
            json!(1),
            "must be string or null",
        ),
        (
            json!({"enum": ["a", 1]}),
            json!(["a", 1, 1.0]),
            json!("b"),
            "must be one of \"a\", 1",
        ),
        (
            json!({"const": {"a": [1]}}),
            json!([{"a": [1.0]}]),
            json!({"a": [2]}),
            "must be {\"a\":[1]}",
        ),
        (
            json!({"minimum": 2, "maximum": 3}),
            json!([2, 3, "x"]),
            json!(4),
            "must be <= 3",
        ),
        (
            json!({"exclusiveMinimum": 2}),
            json!([3]),
            json!(2),
            "must be > 2",
        ),
        (
            json!({"maximum": 2, "exclusiveMaximum": true}),
            json!([1]),
            json!(2),
            "must be < 2",
        ),
        (
            json!({"multipleOf": 0.5}),
            json!([1.5, 2]),
            json!(0.7),
            "must be a multiple of 0.5",
        ),
        (
            json!({"minLength": 2, "maxLength": 3}),
            json!(["éé", "abc"]),
            json!("é"),
            "at least 2 characters",
        ),
        (
            json!({"pattern": "^a+$"}),
            json!(["aa", 7]),
            json!("ab"),
            "must match ^a+$",
        ),
        (
            json!({"items": {"type": "number"}}),
            json!([[1], []]),
            json!([1, "x"]),
            "jobspec.1: must be a number",
        ),
        (
            json!({"items": [{"const": 1}], "additionalItems": false}),
            json!([[1]]),
            json!([1, 2]),
            "jobspec.1: not allowed",
        ),
        (
            json!({"prefixItems": [{}], "items": {"const": 2}}),
            json!([[7, 2]]),
            json!([7, 7]),
            "jobspec.1: must be 2",
        ),
        (
            json!({"uniqueItems": true, "maxItems": 2}),
            json!([[1, 2]]),
            json!([1, 1.0]),
            "must be different",
        ),
        (
            json!({"contains": {"const": 1}, "maxContains": 1}),
            json!([[1, 2]]),
            json!([1, 1]),
            "2 of the items",
        ),
        (
            json!({"required": ["a"]}),
            json!([{"a": 1}, 1]),
            json!({}),
            "jobspec: a is missing",
        ),
        (
            json!({"additionalProperties": false, "properties": {"a": true}, "patternProperties": {"^x": {"type": "null"}}}),
            json!([{"a": 1, "xy": null}]),
            json!({"b": 1}),
            "jobspec.b: not allowed",
        ),
        (
            json!({"propertyNames": {"maxLength": 1}}),
            json!([{"a": 1}]),
            json!({"ab": 1}),
            "jobspec.ab: must have at most 1",
        ),
        (
            json!({"dependentRequired": {"a": ["b"]}}),
            json!([{"b": 1}, {"a": 1, "b": 1}]),
            json!({"a": 1}),
            "b is missing, which a needs",
        ),
        (
            json!({"dependencies": {"a": {"required": ["c"]}}}),
            json!([{"b": 1}]),
            json!({"a": 1}),
            "c is missing",
        ),
        (
            json!({"allOf": [{"minimum": 1}, {"maximum": 2}]}),
            json!([1]),
            json!(3),
            "must be <= 2",
        ),
        (
            json!({"anyOf": [{"type": "null"}, {"minimum": 3}]}),
            json!([null, 3]),
            json!(1),
            "must be of type null",
        ),
        (
            json!({"oneOf": [{"minimum": 1}, {"maximum": 2}]}),
            json!([0, 3]),
            json!(1),
            "is 2 of them",
        ),
        (json!({"not": {"const": 1}}), json!([2]), json!(1), "must not be"),
        (
            json!({"if": {"minimum": 10}, "then": {"multipleOf": 10}, "else": {"const": 1}}),
            json!([20, 1]),
            json!(11),
            "multiple of 10",
        ),
        (
            json!({"$ref": "#/$defs/n", "$defs": {"n": {"minProperties": 1, "additionalProperties": {"$ref": "#/$defs/n"}}}}),
            json!([{"a": 1}, {"a": {"b": 1}}]),
            json!({"a": {"b": {}}}),
            "jobspec.a.b: must have at least 1 keys",
        ),
        (json!(false), json!([]), json!(1), "not allowed"),
    ] {
        for value in good.as_array().unwrap() {
            assert_eq!(says(&schema, value), None, "{schema} {value}");
        }
        let said = says(&schema, &bad).unwrap_or_default();
        assert!(said.contains(text), "{schema} {bad}: {said}");
    }
}

#[test]
fn no_schema() {
    for (schema, text) in [
        (json!([]), "#: a schema must be"),
        (json!({"type": "float"}), "#/type: must be a type"),
        (
            json!({"properties": {"a": {"pattern": "("}}}),
            "#/properties/a/pattern: ",
        ),
        (json!({"$ref": "http://x/y"}), "leads nowhere"),
        (json!({"$ref": "#/definitions/x"}), "leads nowhere"),
        (json!({"unevaluatedProperties": false}), "not supported"),
        (json!({"allOf": []}), "list of schemas"),
        (json!({"multipleOf": 0}), "must be a number"),
        (json!({"required": "a"}), "list of names"),
    ] {
        let err = Schema::new(schema.clone()).unwrap_err();
        assert!(err.contains(text), "{schema}: {err}");
    }
    let circle = says(&json!({"allOf": [{"$ref": "#"}]}), &json!(1)).unwrap();
    assert!(circle.contains("without end"), "{circle}");
}

fn jobspec() -> Value {
    json!({"version": 1, "resources": [{"type": "node", "count": 2, "exclusive": true, "with": [
        {"type": "slot", "count": 1, "label": "task", "with": [{"type": "core", "count": 4}, {"type": "gpu", "count": 1}]}]}],
        "tasks": [{"command": ["true"], "slot": "task", "count": {"per_slot": 1}}],
        "attributes": {"system": {"duration": 0, "environment": {"A": "b"}, "shell": {"options": {}}}}})
}

#[test]
fn the_built_in_schema() {
    let host = FakeHost::new(json!({}));
    let mut policy = SchemaValidator::configure(&host).unwrap();
    let mut validate = |jobspec: &Value| {
        policy
            .validate(&host, &FakeJob::new(jobspec.to_string()))
            .map_err(|err| err.text)
    };
    assert_eq!(validate(&jobspec()), Ok(()));
    for (pointer, value, text) in [
        ("/version", json!(2), "jobspec.version: must be 1"),
        (
            "/attributes/system/duration",
            json!(-1),
            "jobspec.attributes.system.duration: must be >= 0",
        ),
        (
            "/attributes/system/environment/A",
            json!(1),
            "environment.A: must be a string",
        ),
        (
            "/tasks/0/command",
            json!([]),
            "jobspec.tasks.0.command: must have at least 1 items",
        ),
        ("/resources/0/with/0/with/0/count", json!(0), "must be >= 1"),
    ] {
        let mut bad = jobspec();
        *bad.pointer_mut(pointer).unwrap() = value;
        let said = validate(&bad).unwrap_err();
        assert!(said.contains(text), "{pointer}: {said}");
    }
}

#[test]
fn a_schema_of_the_site() {
    let named = json!({"required": ["attributes"], "properties": {"attributes": {"required": ["user"]}}});
    let host = FakeHost::new(json!({"ingest": {"validator": {"schema": named}}}));
    let mut policy = SchemaValidator::configure(&host).unwrap();
    let said = policy
        .validate(&host, &FakeJob::new(jobspec().to_string()))
        .unwrap_err();
    assert_eq!(
        (said.errnum, said.text.as_str()),
        (22, "jobspec.attributes: user is missing")
    );
    let mut host = FakeHost::new(json!({}));
    host.args = json!(["--require-version=any", {"file": "/etc/s.json", "schema": {"type": "x"}}]);
    let said = SchemaValidator::configure(&host).unwrap_err().text;
    assert_eq!(
        said,
        "/etc/s.json: #/type: must be a type of JSON, or a list of them"
    );
}
