//! Is a JSON text a schema that can be checked against, and what may stand in one? (JSON Schema, drafts 4 to 2020-12, in one document.)

use std::collections::{BTreeMap, BTreeSet};

use regex_lite::Regex;
use serde_json::Value;

/// Words that say nothing about validity, and containers of sub-schemas that are reached by reference.
const ANNOTATIONS: [&str; 20] = [
    "$schema",
    "$id",
    "id",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "format",
    "readOnly",
    "writeOnly",
    "deprecated",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "then",
    "else",
    "$vocabulary",
];
/// Words whose value is a schema.
const ONE: [&str; 8] = [
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "additionalProperties",
    "additionalItems",
];
/// Words whose value is a list of schemas.
const LIST: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
/// Words whose value is an object of schemas.
const MAP: [&str; 5] = [
    "properties",
    "patternProperties",
    "dependentSchemas",
    "$defs",
    "definitions",
];
/// Words whose value is a number of things.
const COUNT: [&str; 8] = [
    "maxLength",
    "minLength",
    "maxItems",
    "minItems",
    "maxContains",
    "minContains",
    "maxProperties",
    "minProperties",
];
/// Words whose value is a number; the exclusive ones are booleans in draft 4.
const NUMBER: [&str; 5] = [
    "multipleOf",
    "maximum",
    "minimum",
    "exclusiveMaximum",
    "exclusiveMinimum",
];
/// What `type` may be.
const TYPES: [&str; 7] = [
    "null", "boolean", "object", "array", "number", "integer", "string",
];
/// Deepest nesting of a schema.
const DEPTH_MAX: usize = 64;

/// A schema that was checked.
#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) root: Value,
    patterns: BTreeMap<String, Regex>,
}

impl Schema {
    /// Checks a schema: every word in it is one that is observed, every pattern and reference can be followed.
    ///
    /// # Errors
    /// A text that says where in the schema what is wrong.
    pub(crate) fn new(root: Value) -> Result<Schema, String> {
        let mut schema = Schema {
            root: Value::Null,
            patterns: BTreeMap::new(),
        };
        let mut walk = Walk {
            root: &root,
            patterns: &mut schema.patterns,
            seen: BTreeSet::new(),
        };
        walk.schema(&root, "#", 0)?;
        schema.root = root;
        Ok(schema)
    }

    /// Returns what a reference such as `#/definitions/slot` leads to.
    pub(crate) fn target(&self, reference: &str) -> Option<&Value> {
        target(&self.root, reference)
    }

    /// Returns true when a text has a match of the pattern.
    pub(crate) fn matches(&self, pattern: &str, text: &str) -> bool {
        self.patterns
            .get(pattern)
            .is_some_and(|known| known.is_match(text))
    }
}

fn target<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    root.pointer(reference.strip_prefix('#')?)
}

/// One look at all of a schema.
struct Walk<'a> {
    root: &'a Value,
    patterns: &'a mut BTreeMap<String, Regex>,
    /// References that were followed.
    seen: BTreeSet<String>,
}

impl Walk<'_> {
    fn schema(&mut self, schema: &Value, place: &str, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("{place}: nested too deep"));
        }
        let words = match schema {
            Value::Bool(_) => return Ok(()),
            Value::Object(words) => words,
            _ => return Err(format!("{place}: a schema must be an object or a boolean")),
        };
        for (word, value) in words {
            let here = format!("{place}/{word}");
            self.word(word, value, &here, depth)?;
        }
        Ok(())
    }

    fn word(&mut self, word: &str, value: &Value, here: &str, depth: usize) -> Result<(), String> {
        if LIST.contains(&word) {
            let list = value.as_array().filter(|list| !list.is_empty());
            return self.all(
                list.ok_or_else(|| format!("{here}: must be a list of schemas"))?,
                here,
                depth,
            );
        }
        if MAP.contains(&word) {
            let map = value.as_object();
            for (key, schema) in map.ok_or_else(|| format!("{here}: must be an object of schemas"))? {
                let below = format!("{here}/{key}");
                if word == "patternProperties" {
                    self.pattern(key, &below)?;
                }
                self.schema(schema, &below, depth + 1)?;
            }
            return Ok(());
        }
        if ONE.contains(&word) {
            return self.schema(value, here, depth + 1);
        }
        if COUNT.contains(&word) {
            let fits = value.as_u64().is_some();
            return fits
                .then_some(())
                .ok_or_else(|| format!("{here}: must be a number >= 0"));
        }
        if NUMBER.contains(&word) {
            let fits = match word {
                "multipleOf" => value.as_f64().is_some_and(|number| number > 0.0),
                "exclusiveMaximum" | "exclusiveMinimum" => value.is_number() || value.is_boolean(),
                _ => value.is_number(),
            };
            return fits
                .then_some(())
                .ok_or_else(|| format!("{here}: must be a number"));
        }
        self.other(word, value, here, depth)
    }

    fn other(&mut self, word: &str, value: &Value, here: &str, depth: usize) -> Result<(), String> {
        let bad = |what: &str| Err(format!("{here}: {what}"));
        match (word, value) {
            ("items", Value::Array(list)) => self.all(list, here, depth),
            ("items", schema) => self.schema(schema, here, depth + 1),
            ("type", Value::String(name)) if TYPES.contains(&name.as_str()) => Ok(()),
            ("type", Value::Array(names))
                if names
                    .iter()
                    .all(|name| name.as_str().is_some_and(|name| TYPES.contains(&name))) =>
            {
                Ok(())
            }
            ("type", _) => bad("must be a type of JSON, or a list of them"),
            ("enum", Value::Array(_)) | ("const", _) | ("uniqueItems", Value::Bool(_)) => Ok(()),
            ("enum", _) => bad("must be a list"),
            ("uniqueItems", _) => bad("must be true or false"),
            ("required", Value::Array(names)) if names.iter().all(Value::is_string) => Ok(()),
            ("required", _) => bad("must be a list of names"),
            ("pattern", Value::String(pattern)) => self.pattern(pattern, here),
            ("pattern", _) => bad("must be a regular expression"),
            ("dependencies" | "dependentRequired", Value::Object(map)) => {
                map.iter().try_for_each(|(key, needs)| match needs {
                    Value::Array(names) if names.iter().all(Value::is_string) => Ok(()),
                    schema => self.schema(schema, &format!("{here}/{key}"), depth + 1),
                })
            }
            ("dependencies" | "dependentRequired", _) => bad("must be an object"),
            ("$ref", Value::String(reference)) => {
                let Some(schema) = target(self.root, reference) else {
                    return bad(&format!(
                        "{reference:?} leads nowhere: only places in this document (#/...) can be referred to"
                    ));
                };
                if self.seen.insert(reference.clone()) {
                    self.schema(schema, reference, depth + 1)?;
                }
                Ok(())
            }
            ("$ref", _) => bad("must be a string"),
            _ if ANNOTATIONS.contains(&word) => Ok(()),
            _ => bad("this word is not supported, and to ignore it would let jobs pass unchecked"),
        }
    }

    fn all(&mut self, list: &[Value], here: &str, depth: usize) -> Result<(), String> {
        list.iter()
            .enumerate()
            .try_for_each(|(index, schema)| self.schema(schema, &format!("{here}/{index}"), depth + 1))
    }

    fn pattern(&mut self, pattern: &str, here: &str) -> Result<(), String> {
        if !self.patterns.contains_key(pattern) {
            let regex = Regex::new(pattern).map_err(|err| format!("{here}: {err}"))?;
            self.patterns.insert(pattern.to_owned(), regex);
        }
        Ok(())
    }
}
