//! How is one key of a large JSON object read or changed without touching the rest?
//!
//! An [`Object`] keeps each value as the text it came as: numbers keep their spelling, keys their order, and a megabyte of environment costs a
//! scan and a copy.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON object whose values are unread.
#[derive(Debug, Default)]
pub struct Object<'a> {
    entries: Vec<(String, Cow<'a, str>)>,
}

impl<'a> Object<'a> {
    /// Reads an object; none when the text is not one.
    pub fn parse(text: &'a str) -> Option<Object<'a>> {
        serde_json::from_str(text).ok()
    }

    /// Returns the text of a key's value.
    pub fn get(&self, key: &str) -> Option<&str> {
        // as in other parsers, the last of equal keys counts
        self.entries
            .iter()
            .rev()
            .find(|(known, _)| known == key)
            .map(|(_, value)| &**value)
    }

    /// Returns true when the key is there.
    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Sets a key to a JSON text; new keys go last.
    pub fn set(&mut self, key: &str, value: impl Into<Cow<'a, str>>) {
        let value = value.into();
        match self.entries.iter_mut().rev().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key.to_owned(), value)),
        }
    }

    /// Returns keys and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), &**value))
    }
}

impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (key, value)) in self.entries.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}:{value}", quote(key))?;
        }
        f.write_str("}")
    }
}

/// Returns text as a JSON string.
pub fn quote(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// Returns the string that a JSON text is; none when it is something else.
pub fn string(text: &str) -> Option<String> {
    serde_json::from_str(text).ok()
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
                    entries.push((key, Cow::Borrowed(value.get())));
                }
                Ok(Object { entries })
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_it_does_not_touch() {
        let mut object = Object::parse(r#"{"a": 1.50, "b" :{"x":[1, 2]},"é\n":"y"}"#).unwrap();
        assert_eq!(object.get("b"), Some(r#"{"x":[1, 2]}"#));
        object.set("a", "2");
        object.set("c", "null");
        assert_eq!(
            object.to_string(),
            r#"{"a":2,"b":{"x":[1, 2]},"é\n":"y","c":null}"#
        );
        assert!(Object::parse("[1]").is_none() && Object::parse("{").is_none());
    }
}
