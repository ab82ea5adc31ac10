//! Is this JSON a V1 jobspec, and what does it add up to?

use serde_json::{Map, Value};

use super::{Counts, JobspecError, TaskCount};

type Object = Map<String, Value>;

fn expected(path: &str, expected: &'static str) -> JobspecError {
    JobspecError::Expected {
        path: path.to_owned(),
        expected,
    }
}

fn missing(path: String) -> JobspecError {
    JobspecError::Missing { path }
}

fn object<'a>(value: &'a Value, path: &str) -> Result<&'a Object, JobspecError> {
    value.as_object().ok_or_else(|| expected(path, "an object"))
}

fn member<'a>(map: &'a Object, path: &str, key: &str) -> Result<&'a Value, JobspecError> {
    map.get(key).ok_or_else(|| missing(join(path, key)))
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn only(map: &Object, path: &str, known: &[&str]) -> Result<(), JobspecError> {
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(JobspecError::Unknown {
            path: join(path, key),
        }),
        None => Ok(()),
    }
}

/// Returns the single element of the array `key`.
fn single<'a>(map: &'a Object, path: &str, key: &str) -> Result<&'a Value, JobspecError> {
    match member(map, path, key)?.as_array().map(Vec::as_slice) {
        Some([element]) => Ok(element),
        _ => Err(expected(&join(path, key), "a list of exactly one element")),
    }
}

/// Returns a count of at least 1.
fn count(map: &Object, path: &str) -> Result<u32, JobspecError> {
    let value = member(map, path, "count")?;
    let count = value.as_u64().filter(|&count| count > 0);
    let count = count.ok_or_else(|| expected(&join(path, "count"), "an integer of at least 1"))?;
    u32::try_from(count).map_err(|_| JobspecError::TooLarge {
        path: join(path, "count"),
    })
}

/// Checks the whole and returns its numbers.
pub(super) fn validate(json: &Value) -> Result<(Counts, TaskCount), JobspecError> {
    let Some(root) = json.as_object() else {
        return Err(expected("jobspec", "an object"));
    };
    only(root, "", &["resources", "tasks", "attributes", "version"])?;
    match member(root, "", "version")?.as_u64() {
        Some(1) => {}
        Some(_) => return Err(JobspecError::Version),
        None => return Err(expected("version", "an integer")),
    }
    let (counts, label) = resources(root)?;
    let task_count = task(root, label)?;
    validate_attributes(json)?;
    Ok((counts, task_count))
}

/// Checks `resources`; returns the counts and the slot's label.
fn resources(root: &Object) -> Result<(Counts, &str), JobspecError> {
    let path = "resources[0]";
    let top = object(single(root, "", "resources")?, path)?;
    match kind(top, path)? {
        "node" => {
            only(
                top,
                path,
                &["type", "count", "unit", "exclusive", "with", "label", "id"],
            )?;
            let nnodes = count(top, path)?;
            let exclusive = exclusive(top, path)?;
            let slot_path = "resources[0].with[0]";
            let slot_vertex = object(single(top, path, "with")?, slot_path)?;
            if kind(slot_vertex, slot_path)? != "slot" {
                return Err(expected("resources[0].with[0].type", "slot"));
            }
            slot(slot_vertex, slot_path, nnodes, exclusive)
        }
        "slot" => slot(top, path, 0, false),
        _ => Err(expected("resources[0].type", "node or slot")),
    }
}

fn kind<'a>(vertex: &'a Object, path: &str) -> Result<&'a str, JobspecError> {
    member(vertex, path, "type")?
        .as_str()
        .ok_or_else(|| expected(&join(path, "type"), "a string"))
}

fn exclusive(vertex: &Object, path: &str) -> Result<bool, JobspecError> {
    match vertex.get("exclusive") {
        None => Ok(false),
        Some(value) => value
            .as_bool()
            .ok_or_else(|| expected(&join(path, "exclusive"), "a boolean")),
    }
}

fn slot<'a>(
    vertex: &'a Object,
    path: &str,
    nnodes: u32,
    node_exclusive: bool,
) -> Result<(Counts, &'a str), JobspecError> {
    only(
        vertex,
        path,
        &["type", "count", "unit", "exclusive", "with", "label", "id"],
    )?;
    let slots = count(vertex, path)?;
    let label = member(vertex, path, "label")?.as_str();
    let label = label.ok_or_else(|| expected(&join(path, "label"), "a string"))?;
    let with = join(path, "with");
    let children = member(vertex, path, "with")?.as_array();
    let children = children.ok_or_else(|| expected(&with, "a list"))?;
    let (mut cores, mut gpus) = (None, None);
    for (index, child) in children.iter().enumerate() {
        let path = format!("{with}[{index}]");
        let child = object(child, &path)?;
        only(child, &path, &["type", "count", "unit", "id"])?;
        let place = match kind(child, &path)? {
            "core" => &mut cores,
            "gpu" => &mut gpus,
            _ => return Err(expected(&join(&path, "type"), "core or gpu")),
        };
        if place.replace(count(child, &path)?).is_some() {
            return Err(expected(&with, "each type only once"));
        }
    }
    let too_large = || JobspecError::TooLarge {
        path: join(path, "count"),
    };
    let nslots = slots.checked_mul(nnodes.max(1)).ok_or_else(too_large)?;
    let counts = Counts {
        nnodes,
        slots_per_node: slots,
        nslots,
        cores_per_slot: cores.ok_or_else(|| expected(&with, "a core"))?,
        gpus_per_slot: gpus.unwrap_or(0),
        exclusive: node_exclusive | exclusive(vertex, path)?,
    };
    Ok((counts, label))
}

fn task(root: &Object, label: &str) -> Result<TaskCount, JobspecError> {
    let path = "tasks[0]";
    let task = object(single(root, "", "tasks")?, path)?;
    only(task, path, &["command", "slot", "count"])?;
    let command = match member(task, path, "command")? {
        Value::String(command) => !command.is_empty(),
        Value::Array(words) => !words.is_empty() && words.iter().all(Value::is_string),
        _ => false,
    };
    if !command {
        return Err(expected("tasks[0].command", "a list of at least one string"));
    }
    let slot = member(task, path, "slot")?
        .as_str()
        .ok_or_else(|| expected("tasks[0].slot", "a string"))?;
    if slot != label {
        return Err(expected("tasks[0].slot", "the label of the slot in resources"));
    }
    let count_path = "tasks[0].count";
    let count = object(member(task, path, "count")?, count_path)?;
    let mut entries = count.iter();
    let (Some((key, value)), None) = (entries.next(), entries.next()) else {
        return Err(expected(count_path, "one of per_slot and total"));
    };
    let number = value
        .as_u64()
        .and_then(|number| u32::try_from(number).ok())
        .filter(|&number| number > 0);
    match (key.as_str(), number) {
        ("per_slot", Some(1)) => Ok(TaskCount::PerSlot(1)),
        ("per_slot", _) => Err(expected("tasks[0].count.per_slot", "1")),
        ("total", Some(total)) => Ok(TaskCount::Total(total)),
        ("total", None) => Err(expected("tasks[0].count.total", "an integer of at least 1")),
        _ => Err(JobspecError::Unknown {
            path: join(count_path, key),
        }),
    }
}

/// Checks what V1 fixes below `attributes`.
pub(super) fn validate_attributes(json: &Value) -> Result<(), JobspecError> {
    let root = object(json, "jobspec")?;
    let attributes = object(member(root, "", "attributes")?, "attributes")?;
    only(attributes, "attributes", &["system", "user"])?;
    if let Some(user) = attributes.get("user") {
        object(user, "attributes.user")?;
    }
    let path = "attributes.system";
    let system = object(member(attributes, "attributes", "system")?, path)?;
    let duration = member(system, path, "duration")?.as_f64();
    if !duration.is_some_and(|seconds| seconds >= 0.0) {
        return Err(expected("attributes.system.duration", "a number of at least 0"));
    }
    for key in ["cwd", "queue", "bank", "project"] {
        if system.get(key).is_some_and(|value| !value.is_string()) {
            return Err(expected(&join(path, key), "a string"));
        }
    }
    for key in ["environment", "shell", "job", "constraints"] {
        if let Some(value) = system.get(key) {
            object(value, &join(path, key))?;
        }
    }
    if let Some(options) = system.get("shell").and_then(|shell| shell.get("options")) {
        object(options, "attributes.system.shell.options")?;
    }
    if let Some(environment) = system.get("environment").and_then(Value::as_object) {
        let bad = environment
            .iter()
            .find(|(_, value)| !value.is_string() && !value.is_null());
        if let Some((name, _)) = bad {
            return Err(expected(
                &format!("{path}.environment.{name}"),
                "a string or null",
            ));
        }
    }
    dependencies(system)
}

fn dependencies(system: &Object) -> Result<(), JobspecError> {
    let Some(list) = system.get("dependencies") else {
        return Ok(());
    };
    let path = "attributes.system.dependencies";
    let list = list.as_array().ok_or_else(|| expected(path, "a list"))?;
    for (index, entry) in list.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let entry = object(entry, &path)?;
        for key in ["scheme", "value"] {
            if !member(entry, &path, key)?.is_string() {
                return Err(expected(&join(&path, key), "a string"));
            }
        }
    }
    Ok(())
}
