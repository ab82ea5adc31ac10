//! How does TOML become key-value text? `[a] b = [1]` is `a/`, `a.b#` = 1, `a.b.0` = 1.
//!
//! Flat text is what an unprivileged parser can hand to a privileged reader: bounded, typed, without structure.

use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::kv::{ENTRIES_MAX, Kv, Value};

/// Longest key between two dots.
const KEY_MAX: usize = 64;

/// Why a text was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlattenError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub text: String,
}

impl fmt::Display for FlattenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.text)
    }
}

impl std::error::Error for FlattenError {}

/// Adds a file's tables to `kv`. A top-level key replaces the one of an earlier file with everything below it.
///
/// # Errors
/// [`FlattenError`] for what is not TOML, for a key that is not made of letters, digits, `-` and `_`, and for too many
/// entries.
pub fn flatten(text: &str, kv: &mut Kv) -> Result<(), FlattenError> {
    let line = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
    let table = DeTable::parse(text).map_err(|err| FlattenError {
        line: err.span().map_or(1, |span| line(span.start)),
        text: err.message().to_owned(),
    })?;
    let mut added = Vec::new();
    for (key, value) in table.get_ref() {
        kv.remove_tree(key.get_ref());
        put_member("", key, value, &mut added).map_err(|(at, text)| FlattenError { line: line(at), text })?;
    }
    // A document cannot name a key twice, so no look-up per entry is needed.
    let total = added.len() + kv.iter().count();
    if total > ENTRIES_MAX {
        return Err(FlattenError {
            line: 1,
            text: format!("{total} entries are too many; the limit is {ENTRIES_MAX}"),
        });
    }
    for (key, value) in added {
        let put = kv.put(&key, value);
        put.map_err(|err| FlattenError {
            line: 1,
            text: format!("{key}: {err}"),
        })?;
    }
    Ok(())
}

type Entries = Vec<(String, Value)>;
/// Where in the text, and what.
type Fault = (usize, String);

fn put_member(
    prefix: &str,
    key: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    entries: &mut Entries,
) -> Result<(), Fault> {
    let name = key.get_ref();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > KEY_MAX || !name.chars().all(plain) {
        let text = format!(
            "key '{}' must be 1 to {KEY_MAX} letters, digits, '-' or '_'",
            name.escape_debug()
        );
        return Err((key.span().start, text));
    }
    put_value(format!("{prefix}{name}"), value, entries)
}

fn put_value(name: String, value: &Spanned<DeValue<'_>>, entries: &mut Entries) -> Result<(), Fault> {
    if entries.len() > ENTRIES_MAX {
        return Err((value.span().start, "too many entries".to_owned()));
    }
    let fault = |text: &str| (value.span().start, text.to_owned());
    let flat = match value.get_ref() {
        DeValue::String(text) if text.contains('\0') => return Err(fault("a string with a NUL")),
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => Value::Int(
            i64::from_str_radix(number.as_str(), number.radix()).map_err(|_| fault("a number too large"))?,
        ),
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(number) if number.is_finite() => Value::Double(number),
            _ => return Err(fault("a number that is not finite")),
        },
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(_) => return Err(fault("no key takes a date")),
        DeValue::Array(array) => {
            let count = i64::try_from(array.len()).unwrap_or(i64::MAX);
            entries.push((format!("{name}#"), Value::Int(count)));
            for (at, element) in array.iter().enumerate() {
                put_value(format!("{name}.{at}"), element, entries)?;
            }
            return Ok(());
        }
        DeValue::Table(table) => {
            entries.push((format!("{name}/"), Value::Bool(true)));
            let prefix = format!("{name}.");
            for (key, value) in table {
                put_member(&prefix, key, value, entries)?;
            }
            return Ok(());
        }
    };
    entries.push((name, flat));
    Ok(())
}
