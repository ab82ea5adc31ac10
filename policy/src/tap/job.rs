//! What do plugins see of a job?

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A job as it was when a command was sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TapJob {
    /// Job id; 0 at ingest.
    pub id: u64,
    /// Its user.
    pub userid: u32,
    /// 0 to 31.
    pub urgency: u32,
    /// Submit flags.
    pub flags: u32,
    /// Priority, once there is one.
    pub priority: Option<u64>,
    /// State bit (RFC 21); 0 at ingest.
    pub state: u32,
    /// Submission time, seconds since the epoch.
    pub t_submit: f64,
    /// Jobspec without environment, as JSON text.
    pub jobspec: Arc<str>,
    /// R without `scheduling`, as JSON text.
    pub r: Option<Arc<str>>,
    /// Which events were posted.
    pub posted: Posted,
    /// Result (RFC 21); 0 while the job is active.
    pub result: u32,
    /// What ended it.
    pub ended_by: EndedBy,
}

/// Events whose presence plugins may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Posted {
    /// `alloc`
    pub alloc: bool,
    /// `start`
    pub start: bool,
    /// `finish`
    pub finish: bool,
    /// A prolog or epilog was started and has not finished.
    pub perilog: bool,
}

impl Posted {
    /// Returns true when the event was posted.
    pub fn has(self, event: &str) -> bool {
        match event {
            "alloc" => self.alloc,
            "start" => self.start,
            "finish" => self.finish,
            "perilog" => self.perilog,
            _ => false,
        }
    }
}

/// The event that ended a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndedBy {
    /// It has not ended.
    #[default]
    Nothing,
    /// Its tasks ended.
    Finish,
    /// A fatal exception.
    Exception,
}

impl EndedBy {
    /// Returns the event's name.
    pub fn name(self) -> &'static str {
        match self {
            EndedBy::Nothing => "",
            EndedBy::Finish => "finish",
            EndedBy::Exception => "exception",
        }
    }
}

/// Returns the text of the value at a dotted path of a JSON text, without reading the rest.
pub(crate) fn value_at<'a>(json: &'a str, path: &str) -> Option<&'a str> {
    path.split('.').try_fold(json, |json, key| {
        let mut reader = serde_json::Deserializer::from_str(json);
        reader.deserialize_map(Find(key)).ok().flatten()
    })
}

/// Finds a key of an object.
struct Find<'k>(&'k str);

impl<'de> Visitor<'de> for Find<'_> {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if key == self.0 {
                found = Some(map.next_value::<&'de RawValue>()?.get());
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_values_without_reading_the_rest() {
        let text = r#"{"a":{"b":{"x y":1.50}},"b":[1,2],"a2":null,"s":"é\n"}"#;
        assert_eq!(value_at(text, "a.b"), Some(r#"{"x y":1.50}"#));
        assert_eq!(value_at(text, "a.b.x y"), Some("1.50"));
        assert_eq!(value_at(text, "s"), Some(r#""é\n""#));
        assert_eq!(value_at(text, "b.c"), None);
        assert_eq!(value_at(text, "c"), None);
        assert_eq!(value_at("{", "c"), None);
    }
}
