//! Is `tasks` well formed? (RFC 14 "Tasks", RFC 25.)

use serde_json::{Map, Value};

/// Checks all tasks.
pub(crate) fn check(tasks: &[Value], v1: bool) -> Result<(), String> {
    for (index, task) in tasks.iter().enumerate() {
        check_one(task, v1).map_err(|text| format!("tasks[{index}]: {text}"))?;
    }
    Ok(())
}

fn check_one(task: &Value, v1: bool) -> Result<(), String> {
    let task = task.as_object().ok_or("task must be a mapping")?;
    if let Some(missing) = ["command", "slot", "count"]
        .into_iter()
        .find(|key| !task.contains_key(*key))
    {
        return Err(format!("Missing key ({missing})"));
    }
    let count = task
        .get("count")
        .and_then(Value::as_object)
        .ok_or("count must be a mapping")?;
    check_count(count, v1)?;
    if !task.get("slot").is_some_and(Value::is_string) {
        return Err("slot must be a string".to_owned());
    }
    if task.get("attributes").is_some_and(|value| !value.is_object()) {
        return Err("attributes must be a mapping".to_owned());
    }
    match task.get("command") {
        Some(Value::Array(words)) if words.is_empty() => {
            Err("command array cannot have length of zero".to_owned())
        }
        Some(Value::Array(words)) if words.iter().all(Value::is_string) => Ok(()),
        _ => Err("command must be a list of strings".to_owned()),
    }
}

fn check_count(count: &Map<String, Value>, v1: bool) -> Result<(), String> {
    let mut keys = count.iter();
    let (Some((key, value)), None) = (keys.next(), keys.next()) else {
        return Err("count must have exactly one key set".to_owned());
    };
    match key.as_str() {
        "per_slot" | "total" => match value.as_i64() {
            None => Err(format!("count {key} must be an int")),
            Some(n) if n <= 0 => Err(format!("count {key} must be > 0")),
            Some(_) => Ok(()),
        },
        "per_resource" if v1 => Err("count per_slot or total must be set".to_owned()),
        "per_resource" => Ok(()),
        _ => Err("count per_slot, per_resource, or total must be set".to_owned()),
    }
}
