//! Does a value meet a schema? The first fault is told, with its place in the value.

use serde_json::{Map, Value};

use crate::schema::Schema;

/// So many schemas may be in the middle of being checked, one in another: references may go in circles.
const DEPTH_MAX: usize = 96;

/// Where in the jobspec a value is.
#[derive(Clone, Copy)]
struct Place<'a> {
    above: Option<&'a Place<'a>>,
    key: &'a dyn std::fmt::Display,
}

impl Place<'_> {
    fn text(&self) -> String {
        match self.above {
            None => self.key.to_string(),
            Some(above) => format!("{}.{}", above.text(), self.key),
        }
    }
}

/// Checks a value.
///
/// # Errors
/// The fault: where, and what must be.
pub(crate) fn check(schema: &Schema, value: &Value) -> Result<(), String> {
    let place = Place {
        above: None,
        key: &"jobspec",
    };
    Check { schema, depth: 0 }.value(&schema.root, value, &place)
}

/// A check under way.
#[derive(Clone, Copy)]
struct Check<'a> {
    schema: &'a Schema,
    depth: usize,
}

impl Check<'_> {
    fn value(self, schema: &Value, value: &Value, place: &Place<'_>) -> Result<(), String> {
        let fault = |what: String| Err(format!("{}: {what}", place.text()));
        if self.depth > DEPTH_MAX {
            return fault("the schema refers to itself without end".to_owned());
        }
        let below = Check {
            depth: self.depth + 1,
            ..self
        };
        let words = match schema {
            Value::Object(words) => words,
            Value::Bool(false) => return fault("not allowed".to_owned()),
            _ => return Ok(()),
        };
        if let Some(target) = words.get("$ref").and_then(Value::as_str) {
            let target = self.schema.target(target);
            target.map_or(Ok(()), |target| below.value(target, value, place))?;
        }
        if let Some(what) = plain(words, value).or_else(|| match value {
            Value::Number(number) => number.as_f64().and_then(|number| numbers(words, number)),
            Value::String(text) => below.text(words, text),
            _ => None,
        }) {
            return fault(what);
        }
        match value {
            Value::Array(items) => below.array(words, items, place)?,
            Value::Object(members) => below.object(words, members, place)?,
            _ => {}
        }
        below.combined(words, value, place)
    }

    /// Returns what is wrong with a string.
    fn text(self, words: &Map<String, Value>, text: &str) -> Option<String> {
        if let Some(what) = bounds(
            words,
            text.chars().count(),
            ["minLength", "maxLength"],
            "characters",
        ) {
            return Some(what);
        }
        let pattern = words.get("pattern")?.as_str()?;
        (!self.schema.matches(pattern, text)).then(|| format!("must match {pattern}"))
    }

    fn array(self, words: &Map<String, Value>, items: &[Value], place: &Place<'_>) -> Result<(), String> {
        let fault = |what: String| Err(format!("{}: {what}", place.text()));
        if let Some(what) = bounds(words, items.len(), ["minItems", "maxItems"], "items") {
            return fault(what);
        }
        let unique = words.get("uniqueItems") == Some(&Value::Bool(true));
        if unique
            && items
                .iter()
                .enumerate()
                .any(|(index, item)| items[..index].iter().any(|other| equal(other, item)))
        {
            return fault("the items must be different".to_owned());
        }
        // `items` as a list is what later drafts call `prefixItems`, and `additionalItems` what they call `items`
        let (first, rest) = match (words.get("prefixItems"), words.get("items")) {
            (Some(first), rest) => (first.as_array(), rest),
            (None, Some(Value::Array(first))) => (Some(first), words.get("additionalItems")),
            (None, rest) => (None, rest),
        };
        let first = first.map(Vec::as_slice).unwrap_or_default();
        for (index, item) in items.iter().enumerate() {
            let Some(schema) = first.get(index).or(rest) else {
                break;
            };
            let place = Place {
                above: Some(place),
                key: &index,
            };
            self.value(schema, item, &place)?;
        }
        let Some(wanted) = words.get("contains") else {
            return Ok(());
        };
        let count = items
            .iter()
            .filter(|item| self.value(wanted, item, place).is_ok())
            .count();
        let limit = |word: &str, default: usize| {
            let limit = words.get(word).and_then(Value::as_u64);
            limit.map_or(default, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
        };
        let fits = count >= limit("minContains", 1) && count <= limit("maxContains", usize::MAX);
        if fits {
            Ok(())
        } else {
            fault(format!(
                "{count} of the items are as the schema wants them in \"contains\""
            ))
        }
    }

    fn object(
        self,
        words: &Map<String, Value>,
        members: &Map<String, Value>,
        place: &Place<'_>,
    ) -> Result<(), String> {
        let fault = |what: String| Err(format!("{}: {what}", place.text()));
        let needs = |names: &Value| {
            let names = names.as_array().map(Vec::as_slice).unwrap_or_default();
            let mut names = names.iter().filter_map(Value::as_str);
            names.find(|name| !members.contains_key(*name)).map(str::to_owned)
        };
        if let Some(missing) = words.get("required").and_then(needs) {
            return fault(format!("{missing} is missing"));
        }
        if let Some(what) = bounds(words, members.len(), ["minProperties", "maxProperties"], "keys") {
            return fault(what);
        }
        let map = |word: &str| words.get(word).and_then(Value::as_object);
        for (key, value) in members {
            let below = Place {
                above: Some(place),
                key,
            };
            let mut known = false;
            if let Some(schema) = map("properties").and_then(|all| all.get(key)) {
                known = true;
                self.value(schema, value, &below)?;
            }
            for (pattern, schema) in map("patternProperties").into_iter().flatten() {
                if self.schema.matches(pattern, key) {
                    known = true;
                    self.value(schema, value, &below)?;
                }
            }
            if let Some(schema) = words.get("additionalProperties").filter(|_| !known) {
                self.value(schema, value, &below)?;
            }
            if let Some(schema) = words.get("propertyNames") {
                self.value(schema, &Value::String(key.clone()), &below)?;
            }
        }
        for word in ["dependencies", "dependentRequired", "dependentSchemas"] {
            for (key, wanted) in map(word)
                .into_iter()
                .flatten()
                .filter(|(key, _)| members.contains_key(*key))
            {
                if let Some(missing) = needs(wanted) {
                    return fault(format!("{missing} is missing, which {key} needs"));
                }
                if !wanted.is_array() {
                    self.value(wanted, &Value::Object(members.clone()), place)?;
                }
            }
        }
        Ok(())
    }

    /// `allOf`, `anyOf`, `oneOf`, `not`, `if`.
    fn combined(self, words: &Map<String, Value>, value: &Value, place: &Place<'_>) -> Result<(), String> {
        let fault = |what: String| Err(format!("{}: {what}", place.text()));
        let list = |word: &str| words.get(word).and_then(Value::as_array);
        for schema in list("allOf").into_iter().flatten() {
            self.value(schema, value, place)?;
        }
        if let Some(schemas) = list("anyOf") {
            let faults: Result<(), String> = schemas
                .iter()
                .try_fold(String::new(), |first, schema| {
                    match self.value(schema, value, place) {
                        Ok(()) => Err(()),
                        Err(fault) if first.is_empty() => Ok(fault),
                        Err(_) => Ok(first),
                    }
                })
                .map_or(Ok(()), Err);
            faults?;
        }
        if let Some(schemas) = list("oneOf") {
            let results: Vec<Result<(), String>> = schemas
                .iter()
                .map(|schema| self.value(schema, value, place))
                .collect();
            match results.iter().filter(|result| result.is_ok()).count() {
                1 => {}
                0 => return results.into_iter().next().unwrap_or(Ok(())),
                count => {
                    return fault(format!(
                        "must be one of {} alternatives, and is {count} of them",
                        schemas.len()
                    ));
                }
            }
        }
        if words
            .get("not")
            .is_some_and(|schema| self.value(schema, value, place).is_ok())
        {
            return fault("must not be as it is".to_owned());
        }
        if let Some(condition) = words.get("if") {
            let branch = if self.value(condition, value, place).is_ok() {
                "then"
            } else {
                "else"
            };
            words
                .get(branch)
                .map_or(Ok(()), |schema| self.value(schema, value, place))?;
        }
        Ok(())
    }
}

/// `type`, `enum`, `const`.
fn plain(words: &Map<String, Value>, value: &Value) -> Option<String> {
    let is = |name: &Value| name.as_str().is_some_and(|name| is_type(value, name));
    match words.get("type") {
        Some(Value::Array(names)) if !names.iter().any(is) => {
            let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
            return Some(format!("must be {}", names.join(" or ")));
        }
        Some(name @ Value::String(text)) if !is(name) => {
            return Some(format!("must be {} {text}", article(text)));
        }
        _ => {}
    }
    let listed = words.get("enum").and_then(Value::as_array);
    if let Some(listed) = listed.filter(|listed| !listed.iter().any(|one| equal(one, value))) {
        let listed: Vec<String> = listed.iter().map(Value::to_string).collect();
        return Some(format!("must be one of {}", listed.join(", ")));
    }
    let only = words.get("const").filter(|only| !equal(only, value));
    only.map(|only| format!("must be {only}"))
}

fn article(name: &str) -> &'static str {
    match name {
        "null" => "of type",
        "integer" | "object" | "array" => "an",
        _ => "a",
    }
}

fn is_type(value: &Value, name: &str) -> bool {
    match (name, value) {
        ("null", Value::Null)
        | ("boolean", Value::Bool(_))
        | ("object", Value::Object(_))
        | ("array", Value::Array(_))
        | ("number", Value::Number(_))
        | ("string", Value::String(_)) => true,
        ("integer", Value::Number(number)) => {
            !number.is_f64() || number.as_f64().is_some_and(|number| number.fract() == 0.0)
        }
        _ => false,
    }
}

/// Returns true for equal values; 1 and 1.0 are.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || (a.is_f64() != b.is_f64() && a.as_f64() == b.as_f64())
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

/// Returns what is wrong with a number.
fn numbers(words: &Map<String, Value>, number: f64) -> Option<String> {
    let limit = |word: &str| words.get(word).and_then(Value::as_f64);
    // draft 4: a boolean beside the limit
    let strict = |word: &str| words.get(word) == Some(&Value::Bool(true));
    if let Some(least) = limit("minimum") {
        if strict("exclusiveMinimum") && number <= least {
            return Some(format!("must be > {least}"));
        }
        if number < least {
            return Some(format!("must be >= {least}"));
        }
    }
    if let Some(most) = limit("maximum") {
        if strict("exclusiveMaximum") && number >= most {
            return Some(format!("must be < {most}"));
        }
        if number > most {
            return Some(format!("must be <= {most}"));
        }
    }
    if let Some(least) = limit("exclusiveMinimum").filter(|least| number <= *least) {
        return Some(format!("must be > {least}"));
    }
    if let Some(most) = limit("exclusiveMaximum").filter(|most| number >= *most) {
        return Some(format!("must be < {most}"));
    }
    let step = limit("multipleOf").filter(|step| (number / step).fract() != 0.0);
    step.map(|step| format!("must be a multiple of {step}"))
}

/// Returns what is wrong with a number of things.
fn bounds(words: &Map<String, Value>, count: usize, [least, most]: [&str; 2], what: &str) -> Option<String> {
    let limit = |word: &str| words.get(word).and_then(Value::as_u64);
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    if let Some(least) = limit(least).filter(|least| count < *least) {
        return Some(format!("must have at least {least} {what}"));
    }
    let most = limit(most).filter(|most| count > *most);
    most.map(|most| format!("must have at most {most} {what}"))
}
