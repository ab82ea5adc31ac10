//! Which shell options did the user set, and in which form? (`-o NAME[=VALUE]`)

use flux_formats::fsd::Fsd;
use serde_json::{Map, Value};

/// The options of `attributes.system.shell.options`; dotted names reach into objects.
#[derive(Debug, Default)]
pub(crate) struct Options(Map<String, Value>);

/// An option has a value of the wrong form.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{name}: invalid value {value}")]
pub(crate) struct OptionError {
    /// Dotted name.
    pub(crate) name: String,
    /// The value as JSON.
    pub(crate) value: String,
}

impl Options {
    pub(crate) fn new(options: Map<String, Value>) -> Self {
        Options(options)
    }

    /// Returns an option's value; `null` counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        if let Some(value) = self.0.get(name) {
            return Some(value).filter(|value| !value.is_null());
        }
        let mut words = name.split('.');
        let mut value = self.0.get(words.next()?)?;
        for word in words {
            value = value.get(word)?;
        }
        Some(value).filter(|value| !value.is_null())
    }

    fn error(name: &str, value: &Value) -> OptionError {
        OptionError {
            name: name.to_owned(),
            value: value.to_string(),
        }
    }

    /// Returns an option as text; numbers are given in decimal.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, OptionError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(other) => Err(Self::error(name, other)),
        }
    }

    /// Returns an option as a whole number, also when it was given as text.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, OptionError> {
        match self.get(name) {
            None => Ok(None),
            Some(value @ Value::Number(number)) => {
                number.as_i64().map(Some).ok_or_else(|| Self::error(name, value))
            }
            Some(Value::Bool(flag)) => Ok(Some(i64::from(*flag))),
            Some(value @ Value::String(text)) => text
                .trim()
                .parse()
                .map(Some)
                .map_err(|_| Self::error(name, value)),
            Some(other) => Err(Self::error(name, other)),
        }
    }

    /// Returns whether a switch is on: absent, 0 and false are off.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, OptionError> {
        Ok(self.number(name)?.is_some_and(|number| number != 0))
    }

    /// Returns an option as a duration: a number of seconds or text in Flux standard duration.
    /// "none" and infinity give `Some(None)`.
    pub(crate) fn duration(&self, name: &str) -> Result<Option<Option<std::time::Duration>>, OptionError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let fsd = match value {
            Value::Number(number) => number.as_f64().and_then(Fsd::from_secs_f64),
            Value::String(text) if text == "none" => return Ok(Some(None)),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let fsd = fsd.ok_or_else(|| Self::error(name, value))?;
        Ok(Some(fsd.to_duration()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    fn options(value: Value) -> Options {
        match value {
            Value::Object(map) => Options::new(map),
            _ => Options::default(),
        }
    }

    #[test]
    fn dotted_names_reach_into_objects() {
        let options =
            options(json!({"output": {"stdout": {"type": "file", "label": true}}, "a.b": 3, "n": null}));
        assert_eq!(options.text("output.stdout.type"), Ok(Some("file".to_owned())));
        assert_eq!(options.flag("output.stdout.label"), Ok(true));
        assert_eq!(options.flag("output.stderr.label"), Ok(false));
        assert_eq!(options.number("a.b"), Ok(Some(3)));
        assert_eq!(options.number("n"), Ok(None));
        assert!(options.text("output").is_err());
    }

    #[test]
    fn durations_and_numbers_may_be_text() {
        let options = options(json!({"a": "1m", "b": 2.5, "c": "none", "d": "x", "e": "4", "f": []}));
        assert_eq!(options.duration("a"), Ok(Some(Some(Duration::from_secs(60)))));
        assert_eq!(options.duration("b"), Ok(Some(Some(Duration::from_millis(2500)))));
        assert_eq!(options.duration("c"), Ok(Some(None)));
        assert_eq!(options.duration("zz"), Ok(None));
        assert!(options.duration("d").is_err());
        assert_eq!(options.number("e"), Ok(Some(4)));
        assert_eq!(
            options.number("f").unwrap_err().to_string(),
            "f: invalid value []"
        );
    }
}
