//! How are a header's keys and values written? RFC 38: `key NUL type value NUL`, repeated.

use std::fmt;

/// Most keys that are decoded; each new one is compared with all before it.
pub const ENTRIES_MAX: usize = 4096;

/// One typed value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `s`: text without NUL.
    String(String),
    /// `i`: a decimal number.
    Int(i64),
    /// `d`: a decimal fraction with six digits.
    Double(f64),
    /// `b`: `true` or `false`.
    Bool(bool),
    /// `t`: `YYYY-MM-DDTHH:MM:SSZ`, kept as seconds since 1970.
    Timestamp(i64),
}

/// Why bytes are not RFC 38 key-value text, or a key or value cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvError {
    /// The text ends inside an entry.
    Truncated,
    /// A key is empty or not UTF-8.
    Key,
    /// The type letter is none of `s i d b t`.
    Type,
    /// The value does not fit its type, or holds a NUL.
    Value,
    /// A key occurs twice.
    Duplicate,
    /// There are more than [`ENTRIES_MAX`] keys.
    TooMany,
}

impl fmt::Display for KvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KvError::Truncated => "entry is truncated",
            KvError::Key => "bad key",
            KvError::Type => "unknown type letter",
            KvError::Value => "bad value",
            KvError::Duplicate => "key occurs twice",
            KvError::TooMany => "too many keys",
        })
    }
}

impl std::error::Error for KvError {}

/// An ordered list of keys with values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kv {
    entries: Vec<(String, Value)>,
}

impl Kv {
    /// Returns an empty list.
    pub fn new() -> Self {
        Kv::default()
    }

    /// Adds a key, or gives an existing one a new value.
    ///
    /// # Errors
    /// [`KvError::Key`] for an empty key or one with NUL, [`KvError::Value`] for text with NUL or a fraction that is
    /// not finite.
    pub fn put(&mut self, key: &str, value: Value) -> Result<(), KvError> {
        if key.is_empty() || key.contains('\0') {
            return Err(KvError::Key);
        }
        match &value {
            Value::String(text) if text.contains('\0') => return Err(KvError::Value),
            Value::Double(number) if !number.is_finite() => return Err(KvError::Value),
            _ => {}
        }
        match self.entries.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key.to_owned(), value)),
        }
        Ok(())
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }

    /// Returns the text of a key; a value of another type is not converted.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the number of a key; a value of another type is not converted.
    pub fn get_int(&self, key: &str) -> Option<i64> {
        match self.get(key)? {
            Value::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// Returns whether a key is true; a value of another type is not converted.
    pub fn get_bool(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// Removes a key of flattened configuration with everything below it: `KEY`, `KEY#`, `KEY/` and `KEY.…`.
    #[cfg(feature = "config")]
    pub(crate) fn remove_tree(&mut self, key: &str) {
        let below = |name: &str| {
            name.strip_prefix(key)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['#', '/', '.']))
        };
        self.entries.retain(|(name, _)| !below(name));
    }

    /// Returns keys and values in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Returns the encoded bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.entries.len() * 24);
        for (key, value) in &self.entries {
            out.extend_from_slice(key.as_bytes());
            out.push(0);
            let text = match value {
                Value::String(text) => format!("s{text}"),
                Value::Int(number) => format!("i{number}"),
                Value::Double(number) => format!("d{number:.6}"),
                Value::Bool(flag) => format!("b{flag}"),
                Value::Timestamp(secs) => format!("t{}", timestamp_text(*secs)),
            };
            out.extend_from_slice(text.as_bytes());
            out.push(0);
        }
        out
    }

    /// Decodes bytes; unknown keys are kept.
    ///
    /// # Errors
    /// Any [`KvError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, KvError> {
        let mut kv = Kv::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (key, after) = cut(rest)?;
            let (field, after) = cut(after)?;
            rest = after;
            let key = std::str::from_utf8(key)
                .ok()
                .filter(|key| !key.is_empty())
                .ok_or(KvError::Key)?;
            let value = decode_value(field)?;
            if kv.get(key).is_some() {
                return Err(KvError::Duplicate);
            }
            if kv.entries.len() == ENTRIES_MAX {
                return Err(KvError::TooMany);
            }
            kv.entries.push((key.to_owned(), value));
        }
        Ok(kv)
    }
}

fn cut(bytes: &[u8]) -> Result<(&[u8], &[u8]), KvError> {
    let at = bytes
        .iter()
        .position(|byte| *byte == 0)
        .ok_or(KvError::Truncated)?;
    let (head, tail) = bytes.split_at_checked(at).ok_or(KvError::Truncated)?;
    Ok((head, tail.get(1..).unwrap_or(&[])))
}

fn decode_value(field: &[u8]) -> Result<Value, KvError> {
    let (letter, text) = field.split_first().ok_or(KvError::Type)?;
    let text = std::str::from_utf8(text).map_err(|_| KvError::Value)?;
    Ok(match letter {
        b's' => Value::String(text.to_owned()),
        b'i' if !text.starts_with('+') => Value::Int(text.parse().map_err(|_| KvError::Value)?),
        b'd' => {
            let number: f64 = text.parse().map_err(|_| KvError::Value)?;
            if !number.is_finite() {
                return Err(KvError::Value);
            }
            Value::Double(number)
        }
        b'b' if text == "true" => Value::Bool(true),
        b'b' if text == "false" => Value::Bool(false),
        b't' => Value::Timestamp(timestamp_parse(text).ok_or(KvError::Value)?),
        b'i' | b'b' => return Err(KvError::Value),
        _ => return Err(KvError::Type),
    })
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years begin on 1 March here, so the leap day is the last of its year.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = (month + 9) % 12;
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn timestamp_text(secs: i64) -> String {
    let days = secs.div_euclid(86400) + 719_468;
    let of_day = secs.rem_euclid(86400);
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

fn timestamp_parse(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:ddZ";
    let fits = bytes.len() == shape.len()
        && bytes
            .iter()
            .zip(shape)
            .all(|(b, s)| if *s == b'd' { b.is_ascii_digit() } else { b == s });
    if !fits {
        return None;
    }
    let field = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
    let secs = days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
    // Writing it back refuses 31 February, hour 24 and their like.
    (timestamp_text(secs) == text).then_some(secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_round_trips() {
        let mut kv = Kv::new();
        kv.put("version", Value::Int(1)).unwrap();
        kv.put("empty", Value::String(String::new())).unwrap();
        kv.put("d", Value::Double(-1.5)).unwrap();
        kv.put("yes", Value::Bool(true)).unwrap();
        kv.put("when", Value::Timestamp(1_795_240_135)).unwrap();
        let bytes = kv.encode();
        assert_eq!(
            bytes,
            b"version\0i1\0empty\0s\0d\0d-1.500000\0yes\0btrue\0when\0t2026-11-21T05:48:55Z\0".to_vec()
        );
        assert_eq!(Kv::decode(&bytes), Ok(kv));
    }

    #[test]
    fn refuses_bad_text() {
        let cases: [(&[u8], KvError); 12] = [
            (b"a", KvError::Truncated),
            (b"a\0", KvError::Truncated),
            (b"a\0s", KvError::Truncated),
            (b"\0s\0", KvError::Key),
            (b"\xff\0s\0", KvError::Key),
            (b"a\0\0", KvError::Type),
            (b"a\0x1\0", KvError::Type),
            (b"a\0i\0", KvError::Value),
            (b"a\0i+1\0", KvError::Value),
            (b"a\0bmaybe\0", KvError::Value),
            (b"a\0t2026-02-30T00:00:00Z\0", KvError::Value),
            (b"a\0i1\0a\0i2\0", KvError::Duplicate),
        ];
        for (bytes, want) in cases {
            assert_eq!(Kv::decode(bytes), Err(want), "{bytes:?}");
        }
        let many: Vec<u8> = (0..=ENTRIES_MAX)
            .flat_map(|n| format!("{n}\0i1\0").into_bytes())
            .collect();
        assert_eq!(Kv::decode(&many), Err(KvError::TooMany));
        assert_eq!(Kv::new().put("", Value::Int(1)), Err(KvError::Key));
        assert_eq!(
            Kv::new().put("a", Value::String("\0".to_owned())),
            Err(KvError::Value)
        );
        assert_eq!(Kv::new().put("a", Value::Double(f64::NAN)), Err(KvError::Value));
    }

    #[test]
    fn no_conversion_between_types() {
        let mut kv = Kv::new();
        kv.put("n", Value::Int(7)).unwrap();
        kv.put("n", Value::Int(8)).unwrap();
        assert_eq!(
            (kv.get_int("n"), kv.get_str("n"), kv.get_int("m")),
            (Some(8), None, None)
        );
        assert_eq!(kv.iter().count(), 1);
    }

    #[test]
    fn timestamps_before_1970_and_leap_days() {
        for text in [
            "1969-12-31T23:59:59Z",
            "2000-02-29T12:00:00Z",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
        ] {
            assert_eq!(timestamp_text(timestamp_parse(text).unwrap()), text);
        }
        for bad in [
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01 00:00:00Z",
            "26-1-1T0:0:0Z",
            "",
        ] {
            assert_eq!(timestamp_parse(bad), None, "{bad}");
        }
    }
}
