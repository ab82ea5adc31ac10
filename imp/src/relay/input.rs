//! What does the caller want of `exec`? A JSON document, read by the relay, which has no privilege.

use std::collections::HashSet;
use std::fmt;

use serde_core::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A JSON value; objects whose keys occur twice are refused.
#[derive(Clone, Debug, PartialEq)]
enum Json {
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
    Other,
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = access.next_element()? {
            list.push(element);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        let mut keys = HashSet::new();
        while let Some((key, value)) = access.next_entry::<String, Json>()? {
            if !keys.insert(key.clone()) {
                return Err(A::Error::custom(format_args!("key {key:?} occurs twice")));
            }
            members.push((key, value));
        }
        Ok(Json::Object(members))
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

impl Json {
    fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Which devices a job may open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DevicePolicy {
    /// Those listed and the usual ones, or all when none is listed.
    #[default]
    Auto,
    /// Those listed and the usual ones.
    Closed,
    /// Those listed.
    Strict,
}

/// The document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// The signed request.
    pub token: String,
    /// `options.DevicePolicy`
    pub policy: DevicePolicy,
    /// `options.DeviceAllow`: pairs of a device and letters out of `rwm`.
    pub allow: Vec<(String, String)>,
}

/// Reads the document `{"J": TOKEN, "options": {"DevicePolicy": P, "DeviceAllow": [[SPEC, ACCESS], …]}}`.
///
/// # Errors
/// What to log.
pub fn parse(document: &[u8]) -> Result<Input, String> {
    let json: Json =
        serde_json::from_slice(document).map_err(|err| format!("exec: invalid json input: {err}"))?;
    let token = json
        .get("J")
        .and_then(Json::text)
        .ok_or("exec: invalid json input: J is missing")?;
    let mut input = Input {
        token: token.to_owned(),
        ..Input::default()
    };
    let Some(options) = json.get("options") else {
        return Ok(input);
    };
    if !matches!(options, Json::Object(_)) {
        return Err("exec: invalid json input: options is no object".to_owned());
    }
    input.policy = match options.get("DevicePolicy").map(Json::text) {
        None | Some(Some("auto")) => DevicePolicy::Auto,
        Some(Some("closed")) => DevicePolicy::Closed,
        Some(Some("strict")) => DevicePolicy::Strict,
        Some(_) => return Err("exec: DevicePolicy must be auto, closed or strict".to_owned()),
    };
    let wrong = "exec: DeviceAllow must be an array of pairs of strings";
    match options.get("DeviceAllow") {
        None => {}
        Some(Json::List(list)) => {
            for element in list {
                let Json::List(pair) = element else {
                    return Err(wrong.to_owned());
                };
                let [Json::Text(spec), Json::Text(access)] = pair.as_slice() else {
                    return Err(wrong.to_owned());
                };
                input.allow.push((spec.clone(), access.clone()));
            }
        }
        Some(_) => return Err(wrong.to_owned()),
    }
    Ok(input)
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;
