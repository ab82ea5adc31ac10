//! How is the configuration read? A TOML or JSON file, or every `*.toml` of a directory merged, plus `--conf`.

use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or directory cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not TOML; the text names line and column.
    #[error("{path}: {source}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A file is not JSON.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A value does not fit the type that another file gave it.
    #[error("{path}: key {key} is a table in one file and a value in another")]
    Conflict {
        /// The second file.
        path: PathBuf,
        /// Dotted key.
        key: String,
    },
    /// A `--conf` value is neither KEY=VALUE, a file, TOML nor JSON.
    #[error("--conf={0}: not KEY=VALUE, TOML, JSON or the name of a file")]
    Override(String),
}

/// Reads a configuration from a file (`.json`, else TOML) or from all `*.toml` files of a directory, in name order.
///
/// # Errors
/// Any [`ConfigError`], naming the file.
pub fn load(path: &Path) -> Result<Value, ConfigError> {
    let read_error = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let meta = std::fs::metadata(path).map_err(read_error)?;
    if !meta.is_dir() {
        return load_file(path);
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)
        .map_err(read_error)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|file| file.extension().is_some_and(|ext| ext == "toml"))
        .collect();
    files.sort();
    let mut merged = Value::Object(Map::new());
    for file in files {
        let value = load_file(&file)?;
        merge(&mut merged, value, &file, "")?;
    }
    Ok(merged)
}

fn load_file(path: &Path) -> Result<Value, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    if path.extension().is_some_and(|ext| ext == "json") {
        serde_json::from_str(&text).map_err(|source| ConfigError::Json {
            path: path.to_owned(),
            source,
        })
    } else {
        parse_toml(&text).map_err(|source| ConfigError::Toml {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }
}

/// Parses TOML text into the JSON object that clients see.
///
/// # Errors
/// The TOML error with line and column.
pub fn parse_toml(text: &str) -> Result<Value, toml::de::Error> {
    toml::from_str::<toml::Value>(text).map(toml_to_json)
}

fn toml_to_json(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::from(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => Value::from(number),
        toml::Value::Boolean(on) => Value::from(on),
        toml::Value::Datetime(when) => Value::from(when.to_string()),
        toml::Value::Array(items) => items.into_iter().map(toml_to_json).collect(),
        toml::Value::Table(table) => Value::Object(
            table
                .into_iter()
                .map(|(key, value)| (key, toml_to_json(value)))
                .collect(),
        ),
    }
}

/// Merges `more` into `base`: tables join, arrays append, other values replace.
fn merge(base: &mut Value, more: Value, path: &Path, at: &str) -> Result<(), ConfigError> {
    let conflict = |key: &str| ConfigError::Conflict {
        path: path.to_owned(),
        key: key.to_owned(),
    };
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (key, value) in more {
                let name = if at.is_empty() {
                    key.clone()
                } else {
                    format!("{at}.{key}")
                };
                match base.get_mut(&key) {
                    Some(old) => merge(old, value, path, &name)?,
                    None => {
                        base.insert(key, value);
                    }
                }
            }
        }
        (Value::Array(base), Value::Array(more)) => base.extend(more),
        (Value::Object(_), _) | (_, Value::Object(_)) => return Err(conflict(at)),
        (base, more) => *base = more,
    }
    Ok(())
}

/// Applies `--conf` values in order: `KEY=VALUE` (dotted key, JSON or plain value), a file name, TOML or JSON text.
///
/// # Errors
/// [`ConfigError::Override`], or the error of the file named.
pub fn apply_overrides(mut config: Value, overrides: &[String]) -> Result<Value, ConfigError> {
    for text in overrides {
        let more = read_override(text)?;
        merge_over(&mut config, more);
    }
    Ok(config)
}

fn read_override(text: &str) -> Result<Value, ConfigError> {
    let bad = || ConfigError::Override(text.to_owned());
    if Path::new(text).is_file() {
        return load_file(Path::new(text));
    }
    if text.contains('\n') || text.trim_start().starts_with('{') || text.trim_start().starts_with('[') {
        return serde_json::from_str(text)
            .or_else(|_| parse_toml(text))
            .map_err(|_| bad());
    }
    let (key, value) = text.split_once('=').ok_or_else(bad)?;
    let key = key.trim();
    if key.is_empty() || key.split('.').any(str::is_empty) {
        return Err(bad());
    }
    let value = value.trim();
    let mut value: Value = serde_json::from_str(value)
        .or_else(|_| parse_toml(&format!("v = {value}")).map(|mut t| t["v"].take()))
        .unwrap_or_else(|_| Value::from(value));
    for part in key.rsplit('.') {
        let mut table = Map::new();
        table.insert(part.to_owned(), value);
        value = Value::Object(table);
    }
    Ok(value)
}

/// Merges `more` over `base`; everything but tables is replaced.
fn merge_over(base: &mut Value, more: Value) {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (key, value) in more {
                merge_over(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, more) => *base = more,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn directory_files_merge_in_order() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b.toml"), "[a]\ny = 2\n[[list]]\nn = 2\n").unwrap();
        std::fs::write(dir.path().join("a.toml"), "[a]\nx = 1\n[[list]]\nn = 1\n").unwrap();
        std::fs::write(dir.path().join("c.txt"), "not read").unwrap();
        let config = load(dir.path()).unwrap();
        assert_eq!(
            config,
            json!({"a": {"x": 1, "y": 2}, "list": [{"n": 1}, {"n": 2}]})
        );
        std::fs::write(dir.path().join("d.toml"), "a = 1\n").unwrap();
        assert!(
            load(dir.path())
                .unwrap_err()
                .to_string()
                .contains("key a is a table")
        );
        std::fs::write(dir.path().join("d.toml"), "a = \n").unwrap();
        assert!(load(dir.path()).unwrap_err().to_string().contains("d.toml"));
    }

    #[test]
    fn overrides() {
        let base = json!({"a": {"x": 1}});
        let over = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(|s| (*s).to_owned()).collect();
            apply_overrides(base.clone(), &list).map_err(|e| e.to_string())
        };
        assert_eq!(
            over(&["a.x=2", "b.c=text"]).unwrap(),
            json!({"a": {"x": 2}, "b": {"c": "text"}})
        );
        assert_eq!(over(&["[a]\nx = 3\n"]).unwrap(), json!({"a": {"x": 3}}));
        assert_eq!(over(&[r#"{"a":null}"#]).unwrap(), json!({"a": null}));
        assert!(over(&["nonsense"]).unwrap_err().starts_with("--conf=nonsense"));
    }
}
