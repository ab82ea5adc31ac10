//! Where are a user's and a site's own settings for commands? In the XDG directories, below `flux`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::{CmdError, chain, fail};

/// Returns the directories to search, the most important first: the user's, then the site's.
pub(crate) fn directories() -> Vec<PathBuf> {
    from_variables(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
}

fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let user = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".config")));
    let site = variable("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".into());
    user.into_iter()
        .chain(std::env::split_paths(&site))
        .map(|dir| dir.join("flux"))
        .collect()
}

/// Reads a TOML or JSON file, told apart by its name.
///
/// # Errors
/// An unreadable file, or one that is neither.
pub(crate) fn read(path: &Path) -> Result<Value, CmdError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(CmdError::file(name.clone()))?;
    if path.extension().is_some_and(|ext| ext == "json") {
        return serde_json::from_str(&text).map_err(CmdError::json(name));
    }
    toml_value(&text).or_else(|err| fail(format!("{name}: {err}")))
}

/// Reads TOML text as JSON.
///
/// # Errors
/// What is wrong, with its line.
pub(crate) fn toml_value(text: &str) -> Result<Value, String> {
    match toml::from_str::<toml::Table>(text) {
        Ok(table) => Ok(Value::Object(
            table.into_iter().map(|(k, v)| (k, to_json(v))).collect(),
        )),
        Err(err) => Err(chain(&err).trim_end().to_owned()),
    }
}

fn to_json(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::from(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => Value::from(number),
        toml::Value::Boolean(on) => Value::from(on),
        toml::Value::Datetime(when) => Value::from(when.to_string()),
        toml::Value::Array(items) => items.into_iter().map(to_json).collect(),
        toml::Value::Table(table) => Value::Object(table.into_iter().map(|(k, v)| (k, to_json(v))).collect()),
    }
}

/// Merges `more` over `base`: objects join, everything else is replaced.
pub(crate) fn merge(base: &mut Value, more: Value) {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (key, value) in more {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, more) => *base = more,
    }
}

/// Reads all files `NAME.toml` and `NAME.json` of the directories, the user's over the site's; empty without any.
///
/// # Errors
/// Those of [`read`].
pub(crate) fn load(name: &str) -> Result<Value, CmdError> {
    let mut merged = Value::Object(Map::new());
    for dir in directories().iter().rev() {
        for extension in ["json", "toml"] {
            let path = dir.join(format!("{name}.{extension}"));
            if path.is_file() {
                merge(&mut merged, read(&path)?);
            }
        }
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn search_order() {
        let none = from_variables(|name| (name == "HOME").then(|| "/home/u".into()));
        assert_eq!(
            none,
            [Path::new("/home/u/.config/flux"), Path::new("/etc/xdg/flux")]
        );
        let set = from_variables(|name| match name {
            "XDG_CONFIG_HOME" => Some("/c".into()),
            "XDG_CONFIG_DIRS" => Some("/a:/b".into()),
            _ => None,
        });
        assert_eq!(
            set,
            [Path::new("/c/flux"), Path::new("/a/flux"), Path::new("/b/flux")]
        );
    }

    #[test]
    fn files_and_merging() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.toml");
        std::fs::write(&path, "[a]\nb = 1\n").unwrap();
        let mut value = read(&path).unwrap();
        merge(&mut value, json!({"a": {"c": 2}, "d": [1]}));
        assert_eq!(value, json!({"a": {"b": 1, "c": 2}, "d": [1]}));
        std::fs::write(&path, "[a\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("x.toml"));
    }
}
