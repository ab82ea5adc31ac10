//! How is an event of an eventlog written? (RFC 18: one JSON object a line.)

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// Why text is not an eventlog.
#[derive(Debug, thiserror::Error)]
pub enum EventlogError {
    /// The last line lacks its newline.
    #[error("eventlog does not end with a newline")]
    Newline,
    /// A line is not an event.
    #[error("invalid eventlog event")]
    Event(#[from] serde_json::Error),
    /// A timestamp is not a positive finite number.
    #[error("eventlog timestamp is not positive")]
    Timestamp,
    /// A context is not a JSON object.
    #[error("eventlog context is not an object")]
    Context,
}

/// An event (RFC 18).
#[derive(Clone, Debug)]
pub struct Event {
    /// Seconds since the UNIX epoch, positive.
    pub timestamp: f64,
    /// What happened.
    pub name: String,
    /// A JSON object kept as text, or `None`.
    pub context: Option<Box<RawValue>>,
}

/// An event that borrows from the line it was decoded from.
#[derive(Clone, Debug)]
pub struct EventRef<'a> {
    /// Seconds since the UNIX epoch, positive.
    pub timestamp: f64,
    /// What happened.
    pub name: Cow<'a, str>,
    /// A JSON object kept as text, or `None`.
    pub context: Option<&'a RawValue>,
}

impl Event {
    /// Returns an event without context.
    pub fn new(timestamp: f64, name: impl Into<String>) -> Self {
        Event {
            timestamp,
            name: name.into(),
            context: None,
        }
    }

    /// Returns an event with a context.
    ///
    /// # Errors
    /// Those of `serde_json`; [`EventlogError::Context`] when `context` is not an object.
    pub fn with_context<T: Serialize + ?Sized>(
        timestamp: f64,
        name: impl Into<String>,
        context: &T,
    ) -> Result<Self, EventlogError> {
        let raw = serde_json::value::to_raw_value(context)?;
        if !raw.get().starts_with('{') {
            return Err(EventlogError::Context);
        }
        Ok(Event {
            timestamp,
            name: name.into(),
            context: Some(raw),
        })
    }

    /// Decodes one line, with or without its newline.
    ///
    /// # Errors
    /// Any [`EventlogError`] but `Newline`.
    pub fn decode(line: &str) -> Result<Self, EventlogError> {
        EventRef::decode(line).map(EventRef::into_owned)
    }

    /// Returns the event as one line with its newline.
    pub fn encode(&self) -> String {
        let mut line = String::with_capacity(self.encoded_size_hint());
        self.append_to(&mut line);
        line
    }

    /// Appends the event's line to `log`.
    pub fn append_to(&self, log: &mut String) {
        append_raw(log, self.timestamp, &self.name, self.context.as_deref());
    }

    /// Returns about how many bytes the line takes.
    pub fn encoded_size_hint(&self) -> usize {
        64 + self.name.len() + self.context.as_ref().map_or(0, |context| context.get().len())
    }

    /// Returns the context decoded as `T`; an absent context decodes like `{}`.
    ///
    /// # Errors
    /// Those of `serde_json`.
    pub fn context_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.context.as_ref().map_or("{}", |context| context.get()))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.timestamp.to_bits() == other.timestamp.to_bits()
            && self.name == other.name
            && self.context.as_ref().map(|c| c.get()) == other.context.as_ref().map(|c| c.get())
    }
}

impl<'a> EventRef<'a> {
    /// Decodes one line, with or without its newline.
    ///
    /// # Errors
    /// Any [`EventlogError`] but `Newline`.
    pub fn decode(line: &'a str) -> Result<Self, EventlogError> {
        let event: EventRef<'a> = serde_json::from_str(line)?;
        if !(event.timestamp > 0.0 && event.timestamp.is_finite()) {
            return Err(EventlogError::Timestamp);
        }
        if event
            .context
            .is_some_and(|context| !context.get().starts_with('{'))
        {
            return Err(EventlogError::Context);
        }
        Ok(event)
    }

    /// Returns the event with its own memory.
    pub fn into_owned(self) -> Event {
        Event {
            timestamp: self.timestamp,
            name: self.name.into_owned(),
            context: self.context.map(RawValue::to_owned),
        }
    }

    /// Returns the context decoded as `T`; an absent context decodes like `{}`.
    ///
    /// # Errors
    /// Those of `serde_json`.
    pub fn context_as<T: Deserialize<'a>>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.context.map_or("{}", RawValue::get))
    }
}

/// Decodes a whole log; "" is the empty log.
///
/// # Errors
/// Any [`EventlogError`].
pub fn decode_log(log: &str) -> Result<Vec<Event>, EventlogError> {
    lines(log).map(|line| line.and_then(Event::decode)).collect()
}

/// Returns the events of a log one after the other, without copies.
pub fn decode_iter(log: &str) -> impl Iterator<Item = Result<EventRef<'_>, EventlogError>> {
    lines(log).map(|line| line.and_then(EventRef::decode))
}

/// Returns the lines of a log without their newlines; the last must have one.
fn lines(log: &str) -> impl Iterator<Item = Result<&str, EventlogError>> {
    log.split_inclusive('\n')
        .map(|line| line.strip_suffix('\n').ok_or(EventlogError::Newline))
}

/// Appends one event with a context that is serialised in place.
///
/// # Errors
/// Those of `serde_json`; `log` is then unchanged.
pub fn append<T: Serialize + ?Sized>(
    log: &mut String,
    timestamp: f64,
    name: &str,
    context: &T,
) -> Result<(), EventlogError> {
    let context = serde_json::to_string(context)?;
    if !context.starts_with('{') {
        return Err(EventlogError::Context);
    }
    append_text(log, timestamp, name, Some(&context));
    Ok(())
}

/// Appends one event without context.
pub fn append_bare(log: &mut String, timestamp: f64, name: &str) {
    append_text(log, timestamp, name, None);
}

/// Appends one event with a context that is already JSON.
pub fn append_raw(log: &mut String, timestamp: f64, name: &str, context: Option<&RawValue>) {
    append_text(log, timestamp, name, context.map(RawValue::get));
}

fn append_text(log: &mut String, timestamp: f64, name: &str, context: Option<&str>) {
    use fmt::Write;
    log.push_str("{\"timestamp\":");
    // Shortest digits that read back as the same f64; a String never refuses.
    let _ = write!(log, "{timestamp:?}");
    log.push_str(",\"name\":");
    push_json_string(log, name);
    if let Some(context) = context {
        log.push_str(",\"context\":");
        if context.contains(['\n', '\r']) {
            // Only white space between tokens can hold these: within strings JSON escapes them.
            log.extend(
                context
                    .chars()
                    .map(|c| if c == '\n' || c == '\r' { ' ' } else { c }),
            );
        } else {
            log.push_str(context);
        }
    }
    log.push_str("}\n");
}

/// Appends a JSON string; plain names cost one copy.
fn push_json_string(out: &mut String, text: &str) {
    if text.bytes().all(|c| c >= 0x20 && c != b'"' && c != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else if let Ok(quoted) = serde_json::to_string(text) {
        out.push_str(&quoted);
    }
}

/// Returns the time of a clock reading in the seconds that events carry.
pub fn timestamp(time: std::time::SystemTime) -> f64 {
    time.duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2 + usize::from(self.context.is_some())))?;
        map.serialize_entry("timestamp", &self.timestamp)?;
        map.serialize_entry("name", &self.name)?;
        if let Some(context) = &self.context {
            map.serialize_entry("context", context)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for EventRef<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EventVisitor)
    }
}

struct EventVisitor;

impl<'de> Visitor<'de> for EventVisitor {
    type Value = EventRef<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an eventlog event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<EventRef<'de>, A::Error> {
        use serde::de::{Error, IgnoredAny};
        #[derive(Deserialize)]
        #[serde(transparent)]
        struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
        let (mut timestamp, mut name, mut context) = (None, None, None);
        while let Some(Text(key)) = map.next_key()? {
            match key.as_ref() {
                "timestamp" => timestamp = Some(map.next_value::<f64>()?),
                "name" => name = Some(map.next_value::<Text<'de>>()?.0),
                "context" => context = Some(map.next_value::<&'de RawValue>()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(EventRef {
            timestamp: timestamp.ok_or_else(|| A::Error::missing_field("timestamp"))?,
            name: name.ok_or_else(|| A::Error::missing_field("name"))?,
            context,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_log_round_trips() {
        let log = include_str!("../tests/data/eventlog.jsonl");
        let events = decode_log(log).unwrap();
        assert_eq!(events.len(), 10);
        let mut again = String::new();
        events.iter().for_each(|event| event.append_to(&mut again));
        // flux-core may print a digit more of the same number
        assert_eq!(decode_log(&again).unwrap(), events);
        assert_eq!(again.lines().next(), log.lines().next());
        #[derive(Deserialize)]
        struct Submit {
            urgency: u32,
        }
        assert_eq!(
            events.first().unwrap().context_as::<Submit>().unwrap().urgency,
            16
        );
        let json = serde_json::to_string(events.first().unwrap()).unwrap();
        assert_eq!(Some(json.as_str()), log.lines().next());
    }

    #[test]
    fn bad_logs() {
        for bad in [
            "x",
            "\n",
            "{\"timestamp\":1,\"name\":\"a\"}",
            "{\"timestamp\":0,\"name\":\"a\"}\n",
            "{\"timestamp\":-1,\"name\":\"a\"}\n",
            "{\"timestamp\":\"1\",\"name\":\"a\"}\n",
            "{\"timestamp\":1}\n",
            "{\"name\":\"a\"}\n",
            "{\"timestamp\":1,\"name\":\"a\",\"context\":[]}\n",
            "{\"timestamp\":1,\"name\":\"a\",\"context\":null}\n",
            "{\"timestamp\":1e999,\"name\":\"a\"}\n",
            "[]\n",
        ] {
            assert!(decode_log(bad).is_err(), "{bad}");
        }
        assert_eq!(decode_log("").unwrap().len(), 0);
        assert!(Event::with_context(1.0, "a", &1).is_err());
        assert!(append(&mut String::new(), 1.0, "a", &[1]).is_err());
    }

    #[test]
    fn newlines_in_context_are_removed() {
        let event: EventRef<'_> =
            serde_json::from_str("{\"timestamp\":1,\"name\":\"a\",\"context\":{\n\"b\":\r\n1}}").unwrap();
        assert_eq!(
            event.into_owned().encode(),
            "{\"timestamp\":1.0,\"name\":\"a\",\"context\":{ \"b\":  1}}\n"
        );
    }

    proptest! {
        #[test]
        fn round_trip(timestamp in 1e-9..1e12f64, name in "\\PC{1,20}", text in ".{0,20}") {
            let event = Event::with_context(timestamp, name, &serde_json::json!({"k": text})).unwrap();
            let line = event.encode();
            prop_assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
            prop_assert_eq!(Event::decode(&line).unwrap(), event);
        }
    }
}
