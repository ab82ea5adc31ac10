//! Are `attributes` well formed? (RFC 14, 25 and 26.)

use flux_policy_sdk::json::Object;
use serde_json::Value;

/// Checks the attributes; of `system` only what the broker itself acts on.
pub(crate) fn check(attributes: &Object<'_>, v1: bool) -> Result<(), String> {
    if let Some((extra, _)) = attributes
        .iter()
        .find(|(key, _)| !matches!(*key, "system" | "user"))
    {
        return Err(format!("attributes: Extraneous key ({extra})"));
    }
    let Some(system) = attributes.get("system") else {
        return if v1 {
            Err("attributes.system is a required key".to_owned())
        } else {
            Ok(())
        };
    };
    let system = Object::parse(system).ok_or("attributes.system must be a mapping")?;
    let read = |key: &str| {
        system
            .get(key)
            .map(|text| serde_json::from_str::<Value>(text).unwrap_or_default())
    };
    if let Some(dependencies) = read("dependencies") {
        check_dependencies(&dependencies)?;
    }
    if let Some(constraints) = read("constraints") {
        crate::constraint::check(&constraints, "attributes.system.constraints")?;
    }
    match read("duration") {
        None if v1 => Err("attributes.system.duration is a required key".to_owned()),
        Some(value) if v1 && !value.is_number() => {
            Err("attributes.system.duration must be a number".to_owned())
        }
        _ => Ok(()),
    }
}

/// Checks the dependencies (RFC 26).
fn check_dependencies(dependencies: &Value) -> Result<(), String> {
    let list = dependencies
        .as_array()
        .ok_or("attributes.system.dependencies must be a list")?;
    for (index, dependency) in list.iter().enumerate() {
        let place = format!("attributes.system.dependencies[{index}]");
        for key in ["scheme", "value"] {
            match dependency.get(key) {
                None => return Err(format!("{place}: Missing key ({key})")),
                Some(value) if !value.is_string() => {
                    return Err(format!("{place}: dependency {key} must be a string"));
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}
