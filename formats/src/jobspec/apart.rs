//! How is a job's environment kept apart from its jobspec?
//!
//! The environment is most of a jobspec's text, goes to the shells alone, and nobody on the way looks into it: it stays text.

use serde::de::value::SeqAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::fmt;

/// Where the environment is (RFC 25, `attributes.system.environment`).
const PATH: [&str; 3] = ["attributes", "system", "environment"];

/// A jobspec and its environment.
#[derive(Debug, Default)]
pub struct Apart {
    /// The jobspec without `attributes.system.environment`.
    pub jobspec: Value,
    /// The environment, as it was written.
    pub environment: Option<Box<RawValue>>,
}

impl Apart {
    /// Reads a jobspec's JSON text; it is not checked further.
    ///
    /// # Errors
    /// Those of `serde_json`.
    pub fn read(text: &str) -> Result<Self, serde_json::Error> {
        let mut environment = None;
        let mut reader = serde_json::Deserializer::from_str(text);
        let level = Level {
            path: &PATH,
            found: &mut environment,
        };
        let jobspec = level.deserialize(&mut reader)?;
        reader.end()?;
        Ok(Apart { jobspec, environment })
    }
}

/// A jobspec that is written with its environment.
#[derive(Clone, Copy, Debug)]
pub struct Joined<'a> {
    /// The jobspec without environment.
    pub jobspec: &'a Value,
    /// What goes to `attributes.system.environment`, when there is such an object.
    pub environment: Option<&'a RawValue>,
}

impl Serialize for Joined<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let inner = Inner {
            value: self.jobspec,
            path: &PATH,
            environment: self.environment,
        };
        inner.serialize(serializer)
    }
}

/// One object on the way to the environment.
struct Level<'e> {
    path: &'static [&'static str],
    found: &'e mut Option<Box<RawValue>>,
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            match self.path {
                [name, rest @ ..] if key == *name => {
                    // of equal keys the last counts
                    *self.found = None;
                    if rest.is_empty() {
                        *self.found = Some(access.next_value()?);
                        continue;
                    }
                    let level = Level {
                        path: rest,
                        found: self.found,
                    };
                    let value = access.next_value_seed(level)?;
                    map.insert(key, value);
                }
                _ => {
                    map.insert(key, access.next_value()?);
                }
            }
        }
        Ok(Value::Object(map))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        Value::deserialize(SeqAccessDeserializer::new(access))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

/// One value on the way to the environment.
struct Inner<'a> {
    value: &'a Value,
    path: &'static [&'static str],
    environment: Option<&'a RawValue>,
}

impl Serialize for Inner<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ([name, rest @ ..], Value::Object(map), Some(environment)) =
            (self.path, self.value, self.environment)
        else {
            return self.value.serialize(serializer);
        };
        let mut out = serializer.serialize_map(None)?;
        for (key, value) in map {
            if key != name {
                out.serialize_entry(key, value)?;
            } else if !rest.is_empty() {
                let inner = Inner {
                    value,
                    path: rest,
                    environment: self.environment,
                };
                out.serialize_entry(key, &inner)?;
            }
        }
        if rest.is_empty() {
            out.serialize_entry(name, environment)?;
        }
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn apart(text: &str) -> (Value, Option<String>) {
        let apart = Apart::read(text).unwrap();
        (apart.jobspec, apart.environment.map(|text| text.get().to_owned()))
    }

    #[test]
    fn the_environment_alone_is_taken_out() {
        let text = r#"{"tasks":[1,-2.5,null,true,"x"],"environment":1,"attributes":{"user":{"environment":2},
            "system":{"duration":0,"environment":{"A": "1"},"cwd":"/"}},"version":1}"#;
        let (jobspec, environment) = apart(text);
        assert_eq!(environment.as_deref(), Some(r#"{"A": "1"}"#));
        let expected = json!({"tasks": [1, -2.5, null, true, "x"], "environment": 1,
            "attributes": {"user": {"environment": 2}, "system": {"duration": 0, "cwd": "/"}}, "version": 1});
        assert_eq!(jobspec, expected);
        let keys: Vec<&String> = jobspec.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["tasks", "environment", "attributes", "version"]);
    }

    #[test]
    fn values_that_are_no_jobspec_stay_as_they_are() {
        for text in [
            "[1,{\"attributes\":{\"system\":{\"environment\":1}}}]",
            "3",
            "-3",
            "2.5",
            "null",
            "true",
            "\"a\"",
            "{}",
            r#"{"attributes":[1]}"#,
            r#"{"attributes":{"system":"x"}}"#,
        ] {
            let (value, environment) = apart(text);
            assert_eq!((value.to_string().as_str(), environment), (text, None));
        }
        for text in [
            "",
            "{",
            "{} x",
            r#"{"attributes":{"system":{"environment":{}"#,
            r#"{"attributes":{"system":{"environment":}}}"#,
        ] {
            assert!(Apart::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn of_equal_keys_the_last_counts() {
        let text =
            r#"{"attributes":{"system":{"environment":{"A":"1"}}},"attributes":{"system":{"duration":1}}}"#;
        assert_eq!(
            apart(text),
            (json!({"attributes": {"system": {"duration": 1}}}), None)
        );
        let text = r#"{"attributes":{"system":{"environment":1,"environment":2}}}"#;
        assert_eq!(apart(text).1.as_deref(), Some("2"));
    }

    #[test]
    fn what_was_taken_out_is_written_again() {
        let apart =
            Apart::read(r#"{"attributes":{"system":{"environment":{"A":"1"},"cwd":"/"}},"version":1}"#)
                .unwrap();
        let joined = |environment| {
            let joined = Joined {
                jobspec: &apart.jobspec,
                environment,
            };
            serde_json::to_string(&joined).unwrap()
        };
        assert_eq!(
            joined(apart.environment.as_deref()),
            r#"{"attributes":{"system":{"cwd":"/","environment":{"A":"1"}}},"version":1}"#
        );
        assert_eq!(
            joined(None),
            r#"{"attributes":{"system":{"cwd":"/"}},"version":1}"#
        );
    }

    proptest! {
        /// Whatever the text, the parts are the whole, and nothing else is accepted or refused than before.
        #[test]
        fn apart_and_joined(system in "\\PC{0,12}", names in prop::collection::vec("[A-Z_]{1,6}", 0..5), bytes in ".{0,60}") {
            let environment: Map<String, Value> = names.into_iter().map(|name| (name, "v".into())).collect();
            let spec = json!({"attributes": {"system": {"environment": environment, "job": system}}, "version": 1});
            let apart = Apart::read(&spec.to_string()).unwrap();
            let joined = Joined { jobspec: &apart.jobspec, environment: apart.environment.as_deref() };
            prop_assert_eq!(serde_json::from_str::<Value>(&serde_json::to_string(&joined).unwrap()).unwrap(), spec);
            prop_assert_eq!(Apart::read(&bytes).is_ok(), serde_json::from_str::<Value>(&bytes).is_ok());
        }
    }
}
