//! `flux config`: read and change the configuration.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command};
use flux_client::NODEID_ANY;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::{Entry, plain};
use crate::common::args::{flag, operand, operand_optional, required, text, value};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::json::at_path;
use crate::common::time::{fsd, parse_fsd};
use crate::paths;

/// The sub-commands of `flux config`.
pub(super) static TABLE: &[Entry] = &[
    plain("get", "Get broker configuration values", get_args, get),
    plain("set", "Set broker configuration values", set_args, set),
    plain("unset", "Unset broker configuration values", unset_args, unset),
    plain("load", "Load broker configuration", load_args, load),
    plain(
        "reload",
        "Reload broker configuration from files",
        reload_args,
        reload,
    ),
    plain(
        "builtin",
        "Print compiled-in configuration values",
        builtin_args,
        builtin,
    ),
];

const TYPES: &str = "string, integer, real, boolean, object, array, fsd, fsd-integer, fsd-real";

fn get_args(command: Command) -> Command {
    command
        .arg(value(
            "config-path",
            Some('c'),
            "PATH|system|security|imp",
            "Get broker config from PATH",
        ))
        .arg(value("type", Some('t'), "TYPE", "Set expected type of value"))
        .arg(flag("quiet", Some('q'), "Suppress printing of values and errors"))
        .arg(value(
            "default",
            Some('d'),
            "VAL",
            "Set value to VAL if config key does not exist",
        ))
        .arg(operand_optional(
            "name",
            "Dotted key; the whole configuration if absent",
        ))
}

fn get(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let config = match text(matches, "config-path") {
        None => ctx.open()?.call_empty("config.get", NODEID_ANY)?,
        Some(name) => read_path(&config_path(name))?,
    };
    let quiet = matches.get_flag("quiet");
    let found = match text(matches, "name") {
        None => Some(&config),
        Some(name) => at_path(&config, name),
    };
    let shown = match (found, text(matches, "default")) {
        (Some(value), _) => show(value, text(matches, "type")),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => fail(format!(
            "{} is not set",
            text(matches, "name").unwrap_or("configuration")
        )),
    };
    match shown {
        Ok(shown) if quiet => drop(shown),
        Ok(shown) => writeln!(stdout(), "{shown}")?,
        Err(_) if quiet => return Err(CmdError::Silent(1)),
        Err(err) => return Err(err),
    }
    Ok(0)
}

/// Returns a value as text, checked against a type.
fn show(value: &Value, kind: Option<&str>) -> Result<String, CmdError> {
    let plain = || value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let seconds = || match value.as_str() {
        Some(text) => parse_fsd(text),
        None => fail("value is not a string in Flux Standard Duration form"),
    };
    let fits = match kind {
        None => true,
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("real") => value.is_f64(),
        Some("boolean") => value.is_boolean(),
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("fsd") => return seconds().map(|_| plain()),
        Some("fsd-integer") => return seconds().map(|secs| format!("{secs:.0}")),
        Some("fsd-real") => return seconds().map(|secs| format!("{secs:.6}")),
        Some(other) => return usage(format!("unknown --type '{other}' (use {TYPES})")),
    };
    if fits {
        Ok(plain())
    } else {
        fail(format!(
            "value does not have the requested type {}",
            kind.unwrap_or("")
        ))
    }
}

fn config_path(name: &str) -> PathBuf {
    let space =
        |name: &str| Path::new(&flux_formats::paths::sysconfdir()).join(format!("flux/{name}/conf.d"));
    match name {
        "system" => paths::system_config(),
        "security" => space("security"),
        "imp" => space("imp"),
        path => PathBuf::from(path),
    }
}

/// Reads a TOML or JSON file, or every `*.toml` of a directory in order, later tables over earlier ones.
///
/// # Errors
/// A file that is missing or malformed, by name.
pub(super) fn read_path(path: &Path) -> Result<Value, CmdError> {
    let shown = path.display().to_string();
    if !path.is_dir() {
        return read_file(path);
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)
        .map_err(CmdError::file(shown.clone()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    let mut merged = Map::new();
    for file in files {
        if let Value::Object(tables) = read_file(&file)? {
            merge(&mut merged, tables);
        }
    }
    Ok(Value::Object(merged))
}

fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn read_file(path: &Path) -> Result<Value, CmdError> {
    let shown = path.display().to_string();
    let content = std::fs::read_to_string(path).map_err(CmdError::file(shown.clone()))?;
    parse_config(
        &content,
        path.extension().is_some_and(|extension| extension == "json"),
    )
    .or_else(|err| fail(format!("{shown}: {err}")))
}

/// Reads configuration text: TOML, or JSON when it is or looks so.
fn parse_config(content: &str, json: bool) -> Result<Value, CmdError> {
    if json || content.trim_start().starts_with('{') {
        return serde_json::from_str(content).map_err(CmdError::json("configuration"));
    }
    match toml::from_str::<Value>(content) {
        Ok(value) => Ok(value),
        Err(err) => fail(err.to_string().trim_end().replace('\n', " ")),
    }
}

fn set_args(command: Command) -> Command {
    command
        .arg(value(
            "type",
            Some('t'),
            "TYPE",
            "Set type of value: string, integer, real, boolean, fsd, object, array",
        ))
        .arg(operand("name", "Dotted key"))
        .arg(operand("value", "JSON value, or text").allow_hyphen_values(true))
}

fn set(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let given = required(matches, "value");
    let new = typed(given, text(matches, "type"))?;
    change(ctx, required(matches, "name"), Some(new))
}

fn typed(given: &str, kind: Option<&str>) -> Result<Value, CmdError> {
    let json: Option<Value> = serde_json::from_str(given).ok();
    let fits = |check: fn(&Value) -> bool| match &json {
        Some(value) if check(value) => Ok(value.clone()),
        _ => fail(format!("'{given}' is not of type {}", kind.unwrap_or(""))),
    };
    match kind {
        None => Ok(json.unwrap_or_else(|| Value::String(given.to_owned()))),
        Some("string") => Ok(Value::String(given.to_owned())),
        Some("integer") => fits(|value| value.is_i64() || value.is_u64()),
        Some("real") => fits(Value::is_number),
        Some("boolean") => fits(Value::is_boolean),
        Some("object") => fits(Value::is_object),
        Some("array") => fits(Value::is_array),
        Some("fsd" | "fsd-integer" | "fsd-real") => Ok(Value::String(fsd(parse_fsd(given)?))),
        Some(other) => usage(format!("unknown --type '{other}' (use {TYPES})")),
    }
}

fn unset_args(command: Command) -> Command {
    command.arg(operand("name", "Dotted key"))
}

fn unset(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    change(ctx, required(matches, "name"), None)
}

/// Loads the configuration with one key changed.
fn change(ctx: &Ctx, name: &str, new: Option<Value>) -> CmdResult {
    let mut handle = ctx.open()?;
    let mut config: Value = handle.call_empty("config.get", NODEID_ANY)?;
    apply(&mut config, name, new)?;
    handle
        .call::<IgnoredAny>("config.load", 0, &config)
        .map_err(CmdError::doing(name))?;
    Ok(0)
}

fn apply(config: &mut Value, name: &str, new: Option<Value>) -> Result<(), CmdError> {
    let (path, last) = name
        .rsplit_once('.')
        .map_or(("", name), |(path, last)| (path, last));
    let mut at = config;
    for key in path.split('.').filter(|key| !key.is_empty()) {
        let Value::Object(map) = at else {
            return fail(format!("{name}: {key} is below something that is no table"));
        };
        if new.is_none() && !map.contains_key(key) {
            return fail(format!("{name} is not set"));
        }
        at = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
    }
    let Value::Object(map) = at else {
        return fail(format!("{name}: not below a table"));
    };
    match new {
        Some(value) => {
            map.insert(last.to_owned(), value);
        }
        None if map.shift_remove(last).is_none() => return fail(format!("{name} is not set")),
        None => {}
    }
    Ok(())
}

fn load_args(command: Command) -> Command {
    command.arg(operand_optional(
        "path",
        "TOML or JSON file, directory, or - for standard input",
    ))
}

fn load(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let config = match text(matches, "path") {
        None | Some("-") => {
            let mut input = String::new();
            std::io::stdin()
                .read_to_string(&mut input)
                .map_err(CmdError::file("standard input"))?;
            parse_config(&input, false)?
        }
        Some(path) => read_path(Path::new(path))?,
    };
    ctx.open()?
        .call::<IgnoredAny>("config.load", 0, &config)
        .map_err(CmdError::doing("load"))?;
    Ok(0)
}

fn reload_args(command: Command) -> Command {
    command.arg(flag(
        "follower-noop",
        None,
        "Do nothing on brokers other than the leader",
    ))
}

fn reload(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut handle = ctx.open()?;
    if matches.get_flag("follower-noop") && flux_client::attr::get_u32(&mut handle, "rank")? != 0 {
        return Ok(0);
    }
    handle
        .call_empty::<IgnoredAny>("config.reload", NODEID_ANY)
        .map_err(CmdError::doing("reload"))?;
    Ok(0)
}

fn builtin_args(command: Command) -> Command {
    command
        .arg(flag("intree", None, "Force in-tree paths to be used"))
        .arg(flag("installed", None, "Force installed paths to be used"))
        .arg(operand("name", "Key"))
}

fn builtin(_ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let name = required(matches, "name");
    match flux_formats::paths::builtin(name) {
        Some(value) => writeln!(stdout(), "{value}")?,
        None => return fail(format!("{name} is invalid")),
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_and_types() {
        assert_eq!(show(&json!("x"), Some("string")).unwrap(), "x");
        assert_eq!(show(&json!({"a": 1}), None).unwrap(), r#"{"a":1}"#);
        assert_eq!(show(&json!("1m"), Some("fsd-integer")).unwrap(), "60");
        assert!(show(&json!(1), Some("string")).is_err() && show(&json!(1), Some("zzz")).is_err());
        assert_eq!(typed("5", None).unwrap(), json!(5));
        assert_eq!(typed("5", Some("string")).unwrap(), json!("5"));
        assert_eq!(typed("90s", Some("fsd")).unwrap(), json!("1.5m"));
        assert!(typed("x", Some("integer")).is_err());
    }

    #[test]
    fn changes() {
        let mut config = json!({"a": {"b": 1}});
        apply(&mut config, "a.c.d", Some(json!(2))).unwrap();
        apply(&mut config, "a.b", None).unwrap();
        assert_eq!(config, json!({"a": {"c": {"d": 2}}}));
        assert!(apply(&mut config, "a.zz", None).is_err() && apply(&mut config, "q.r", None).is_err());
    }

    #[test]
    fn directories_merge() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.toml"), "[x]\na = 1\nb = 1\n").unwrap();
        std::fs::write(dir.path().join("b.toml"), "[x]\nb = 2\n").unwrap();
        assert_eq!(read_path(dir.path()).unwrap(), json!({"x": {"a": 1, "b": 2}}));
        std::fs::write(dir.path().join("c.toml"), "= nonsense").unwrap();
        assert!(read_path(dir.path()).unwrap_err().to_string().contains("c.toml"));
    }
}
