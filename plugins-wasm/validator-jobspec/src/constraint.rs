//! Is a constraint well formed? (RFC 31.)

use serde_json::Value;

/// Characters that a property in a constraint must not have.
const PROPERTY_INVALID: &str = "&'\"`|()";

/// Checks a constraint at `place`.
pub(crate) fn check(constraint: &Value, place: &str) -> Result<(), String> {
    let operators = constraint
        .as_object()
        .ok_or_else(|| format!("{place}: constraints must be a mapping"))?;
    for (operator, values) in operators {
        let values = values
            .as_array()
            .ok_or_else(|| format!("{place}: argument to constraint {operator} must be a sequence"))?;
        let place = format!("{place}.{operator}");
        match operator.as_str() {
            "and" | "or" | "not" => {
                for (index, value) in values.iter().enumerate() {
                    check(value, &format!("{place}[{index}]"))?;
                }
            }
            "properties" => each(values, &place, |name| {
                let bad = name.contains(|c| PROPERTY_INVALID.contains(c));
                if bad {
                    Err(format!("invalid character in property '{name}'"))
                } else {
                    Ok(())
                }
            })?,
            "hostlist" => each(values, &place, |hosts| {
                if is_hostlist(hosts) {
                    Ok(())
                } else {
                    Err(format!("invalid hostlist '{hosts}'"))
                }
            })?,
            "ranks" => each(values, &place, |ranks| {
                if is_idset(ranks) {
                    Ok(())
                } else {
                    Err(format!("invalid idset '{ranks}'"))
                }
            })?,
            _ => return Err(format!("{place}: unknown constraint operator '{operator}'")),
        }
    }
    Ok(())
}

fn each(values: &[Value], place: &str, check: impl Fn(&str) -> Result<(), String>) -> Result<(), String> {
    for (index, value) in values.iter().enumerate() {
        let text = value
            .as_str()
            .ok_or_else(|| format!("{place}[{index}]: must be a string"))?;
        check(text).map_err(|text| format!("{place}[{index}]: {text}"))?;
    }
    Ok(())
}

/// Returns true for an idset (RFC 22), with or without brackets.
pub(crate) fn is_idset(text: &str) -> bool {
    let inner = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let is_id = |id: &str| id.parse::<u32>().is_ok() && (id.len() == 1 || !id.starts_with(['0', '+']));
    inner.is_empty()
        || inner.split(',').all(|part| match part.split_once('-') {
            Some((low, high)) => is_id(low) && is_id(high),
            None => is_id(part),
        })
}

/// Returns true when brackets are paired, not nested, and hold numbers and ranges (RFC 29).
fn is_hostlist(text: &str) -> bool {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        let Some((inside, behind)) = after.split_once(']') else {
            return false;
        };
        let is_number = |id: &str| !id.is_empty() && id.bytes().all(|c| c.is_ascii_digit());
        let in_range = |part: &str| match part.split_once('-') {
            Some((low, high)) => is_number(low) && is_number(high),
            None => is_number(part),
        };
        if before.contains(']') || !inside.split(',').all(in_range) {
            return false;
        }
        rest = behind;
    }
    !rest.contains(']') && !text.contains(char::is_whitespace)
}
