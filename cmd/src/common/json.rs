//! How is JSON printed so that it looks like the original's?

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use super::error::CmdError;

/// Returns JSON indented by `indent` spaces a level.
pub(crate) fn pretty(value: &Value, indent: usize) -> String {
    let spaces = " ".repeat(indent);
    let mut out = Vec::new();
    let mut serializer =
        Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(spaces.as_bytes()));
    match value.serialize(&mut serializer) {
        Ok(()) => String::from_utf8_lossy(&out).into_owned(),
        Err(_) => value.to_string(),
    }
}

/// Returns JSON with a space after colons and commas and non-ASCII escaped, as Python's `json.dumps` writes it.
pub(crate) fn python(value: &impl Serialize) -> Result<String, CmdError> {
    let mut out = Vec::with_capacity(256);
    let mut serializer = Serializer::with_formatter(&mut out, PythonFormatter);
    value
        .serialize(&mut serializer)
        .map_err(CmdError::json("output"))?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

struct PythonFormatter;

impl Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> std::io::Result<()> {
        let mut plain = 0;
        for (at, c) in fragment
            .char_indices()
            .filter(|(_, c)| !c.is_ascii() || *c == '\x7f')
        {
            if c == '\x7f' {
                continue;
            }
            writer.write_all(fragment.get(plain..at).unwrap_or("").as_bytes())?;
            let mut units = [0u16; 2];
            for unit in c.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
            plain = at + c.len_utf8();
        }
        writer.write_all(fragment.get(plain..).unwrap_or("").as_bytes())
    }
}

/// Returns the value at a dotted path (`a.b.c`).
pub(crate) fn at_path<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, key| match value {
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        other => other.get(key),
    })
}

/// Sorts the keys of every object, as programs that use `JSON_SORT_KEYS` print them.
pub(crate) fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> =
                map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn looks_like_python() {
        let value = json!({"jobid": "ƒ2h\u{7f}\n", "list": [1, 2.0, []], "o": {}, "emoji": "🍠"});
        assert_eq!(
            python(&value).unwrap(),
            "{\"jobid\": \"\\u01922h\u{7f}\\n\", \"list\": [1, 2.0, []], \"o\": {}, \"emoji\": \"\\ud83c\\udf60\"}"
        );
    }

    #[test]
    fn indents_and_paths() {
        let value = json!({"tx": {"request": 6}});
        assert_eq!(pretty(&value, 1), "{\n \"tx\": {\n  \"request\": 6\n }\n}");
        assert_eq!(at_path(&value, "tx.request"), Some(&json!(6)));
        assert_eq!(at_path(&value, "tx.x"), None);
        assert_eq!(
            sorted(json!({"b": 1, "a": {"d": 1, "c": 2}})).to_string(),
            r#"{"a":{"c":2,"d":1},"b":1}"#
        );
    }
}
