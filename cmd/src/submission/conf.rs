//! Which configuration gets a nested instance? `--conf=CONF`, repeated, each over those before.

use std::path::Path;

use serde_json::{Map, Value};

use crate::common::error::{CmdError, usage};
use crate::common::userconf::{directories, merge, read, toml_value};

/// Joins the values of `--conf`; `None` without any.
///
/// A value with a newline is TOML or JSON text, one with `=` a dotted key with a JSON value, one that ends in `.toml`
/// or `.json` a file; any other is the name of a file below `config` in the XDG directories.
///
/// # Errors
/// A value that is none of these, or a file that cannot be read.
pub(super) fn combine(values: &[&str]) -> Result<Option<Value>, CmdError> {
    if values.is_empty() {
        return Ok(None);
    }
    let mut config = Value::Object(Map::new());
    for value in values {
        let more = one(value)?;
        merge(&mut config, more);
    }
    Ok(Some(config))
}

fn one(text: &str) -> Result<Value, CmdError> {
    if text.contains('\n') {
        return match serde_json::from_str(text).or_else(|_| toml_value(text)) {
            Ok(value) => Ok(value),
            Err(err) => usage(format!(
                "--conf: failed to parse multiline as TOML or JSON: {err}"
            )),
        };
    }
    if let Some((key, value)) = text.split_once('=') {
        return key_value(text, key, value);
    }
    let path = Path::new(text);
    if path.extension().is_some_and(|ext| ext == "toml" || ext == "json") {
        return read(path);
    }
    for dir in directories() {
        for extension in ["toml", "json"] {
            let path = dir.join("config").join(format!("{text}.{extension}"));
            if path.is_file() {
                return read(&path);
            }
        }
    }
    usage(format!(
        "--conf: named config '{text}' not found (use KEY=VALUE, a file that ends in .toml or .json, or multi-line \
         TOML)"
    ))
}

fn key_value(text: &str, key: &str, value: &str) -> Result<Value, CmdError> {
    if key.split('.').any(str::is_empty) {
        return usage(format!("--conf={text}: invalid key"));
    }
    let mut value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    for part in key.rsplit('.') {
        let mut table = Map::new();
        table.insert(part.to_owned(), value);
        value = Value::Object(table);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn forms() {
        assert_eq!(combine(&[]).unwrap(), None);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.json");
        std::fs::write(&path, r#"{"a": {"f": true}}"#).unwrap();
        let config = combine(&[
            "a.x=1",
            "a.y=text",
            "[a]\nx = 2\n",
            "{\"b\":\n[]}",
            path.to_str().unwrap(),
        ]);
        assert_eq!(
            config.unwrap(),
            Some(json!({"a": {"x": 2, "y": "text", "f": true}, "b": []}))
        );
        for bad in ["a..b=1", "=1", "x\ny", "/no/such.toml", "no-such-name"] {
            assert!(combine(&[bad]).is_err(), "{bad:?}");
        }
    }
}
