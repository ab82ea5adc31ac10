//! Is `resources` well formed? (RFC 14 "Resource Set", RFC 25.)

use serde_json::{Map, Value};

/// Checks a list of resources at `place`, and what is below it.
pub(crate) fn check(resources: &[Value], place: &str, v1: bool) -> Result<(), String> {
    for (index, resource) in resources.iter().enumerate() {
        let place = format!("{place}[{index}]");
        check_one(resource, v1).map_err(|text| format!("{place}: {text}"))?;
        match resource.get("with") {
            None => {}
            Some(Value::Array(below)) => check(below, &format!("{place}.with"), v1)?,
            Some(_) => return Err(format!("{place}: with must be a sequence")),
        }
    }
    Ok(())
}

fn check_one(resource: &Value, v1: bool) -> Result<(), String> {
    let resource = resource.as_object().ok_or("resource must be a mapping")?;
    let kind = resource
        .get("type")
        .ok_or("type is a required key for resources")?;
    let kind = kind.as_str().ok_or("type must be a string")?;
    let count = resource
        .get("count")
        .ok_or("count is a required key for resources")?;
    check_count(kind, count, v1)?;
    for key in ["id", "unit", "label"] {
        if resource.get(key).is_some_and(|value| !value.is_string()) {
            return Err(format!("{key} must be a string"));
        }
    }
    if resource.get("exclusive").is_some_and(|value| !value.is_boolean()) {
        return Err("exclusive must be a boolean".to_owned());
    }
    if kind == "slot" && !resource.contains_key("label") {
        return Err("slots must have labels".to_owned());
    }
    Ok(())
}

fn check_count(kind: &str, count: &Value, v1: bool) -> Result<(), String> {
    let type_name = match count {
        Value::Object(range) => {
            check_range(range)?;
            "dict"
        }
        Value::String(text) => {
            check_string(text)?;
            "str"
        }
        Value::Number(number) if number.is_i64() || number.is_u64() => {
            let positive = matches!(kind, "node" | "slot" | "core");
            return match number.as_i64() {
                Some(n) if n < 1 && positive => Err("node, slot, or core count must be > 0".to_owned()),
                Some(n) if n < 0 => Err("count must be >= 0".to_owned()),
                _ => Ok(()),
            };
        }
        _ => return Err("count must be an int or mapping".to_owned()),
    };
    if v1 {
        return Err(format!(
            "resource count must be an integer for type '{kind}' (got '{type_name}')"
        ));
    }
    Ok(())
}

/// Checks the range form of a count (RFC 14).
fn check_range(range: &Map<String, Value>) -> Result<(), String> {
    let integer = |key: &str| match range.get(key) {
        None => Ok(None),
        Some(value) => match value.as_i64() {
            None => Err(format!("{key} must be an int")),
            Some(n) if n < 1 => Err(format!("{key} must be > 0")),
            Some(n) => Ok(Some(n)),
        },
    };
    let min = integer("min")?.ok_or("min must be in range")?;
    if let Some(extra) = range
        .keys()
        .find(|key| !matches!(key.as_str(), "min" | "max" | "operand" | "operator"))
    {
        return Err(format!("Extraneous key ({extra})"));
    }
    if integer("max")?.is_some_and(|max| max < min) {
        return Err("max must be >= min".to_owned());
    }
    let operand = integer("operand")?;
    match (operand, range.get("operator")) {
        (None, None) => Ok(()),
        (Some(operand), Some(operator)) => check_step(min, operand, operator.as_str().unwrap_or("")),
        _ => Err("operand and operator must both be in range if either is".to_owned()),
    }
}

fn check_step(min: i64, operand: i64, operator: &str) -> Result<(), String> {
    match operator {
        "+" => Ok(()),
        "*" | "^" if operand < 2 => Err("operand must be > 1 for '*' or '^' operator".to_owned()),
        "^" if min < 2 => Err("min must be > 1 for '^' operator".to_owned()),
        "*" | "^" => Ok(()),
        _ => Err("operator must be one of ['+', '*', '^']".to_owned()),
    }
}

/// Checks the text form of a count (RFC 45): an idset, or `min-max:operand:operator`, or `min+:operand:operator`.
fn check_string(text: &str) -> Result<(), String> {
    let bad = || "count string must be a valid idset or range".to_owned();
    if super::constraint::is_idset(text) {
        return Ok(());
    }
    let inner = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let mut fields = inner.split(':');
    let range = fields.next().unwrap_or("");
    let number = |digits: &str| digits.parse::<i64>().map_err(|_| bad());
    let (min, max) = match (range.split_once('-'), range.strip_suffix('+')) {
        (Some((min, max)), _) => (number(min)?, Some(number(max)?)),
        (None, Some(min)) => (number(min)?, None),
        (None, None) => return Err(bad()),
    };
    if min < 1 {
        return Err("min must be > 0".to_owned());
    }
    if max.is_some_and(|max| max < min) {
        return Err("max must be >= min".to_owned());
    }
    let operand = fields.next().map(number).transpose()?;
    let operator = fields.next().unwrap_or("+");
    if fields.next().is_some() {
        return Err(bad());
    }
    operand.map_or(Ok(()), |operand| check_step(min, operand, operator))
}
