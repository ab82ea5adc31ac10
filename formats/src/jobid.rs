//! How is a job id written, and how is a new one made? (RFC 19 FLUID.)
//!
//! A [`JobId`] is 64 bits: 40 of milliseconds since the instance's epoch, 14 of generator id, 10 of sequence.

mod emoji;
mod fluid;

pub use fluid::{FluidError, FluidGenerator, GENERATOR_MAX};

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Digits of F58 in ascending value.
const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// The F58 prefix for UTF-8 terminals, U+0192.
const F58_PREFIX: char = 'ƒ';
/// Words that carry 32 bits in three digits.
const WORD_BASE: u32 = 1626;
/// Number of emoji digits.
const EMOJI_BASE: u64 = 576;

/// Why a text is not a job id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobIdError {
    /// The text has none of the forms of RFC 19.
    #[error("invalid job id")]
    Invalid,
    /// The number exceeds 64 bits.
    #[error("job id exceeds 64 bits")]
    Overflow,
}

/// A job id (FLUID). In JSON an integer, as flux-core's services send it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u64);

/// The ways to write a job id; the names are those of `flux job id --to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Decimal.
    Dec,
    /// Hexadecimal with `0x`.
    Hex,
    /// Four groups of four hexadecimal digits with dots.
    Dothex,
    /// `job.` and [`Encoding::Dothex`]: the job's directory in the primary namespace.
    Kvs,
    /// Base 58 after `ƒ`.
    F58,
    /// Base 58 after `f`.
    F58Plain,
    /// Six words.
    Words,
    /// Emoji.
    Emoji,
}

impl Encoding {
    /// All encodings, in the order of their documentation.
    pub const ALL: [Encoding; 8] = [
        Encoding::Dec,
        Encoding::Hex,
        Encoding::Kvs,
        Encoding::Dothex,
        Encoding::Words,
        Encoding::F58,
        Encoding::F58Plain,
        Encoding::Emoji,
    ];

    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Dec => "dec",
            Encoding::Hex => "hex",
            Encoding::Dothex => "dothex",
            Encoding::Kvs => "kvs",
            Encoding::F58 => "f58",
            Encoding::F58Plain => "f58plain",
            Encoding::Words => "words",
            Encoding::Emoji => "emoji",
        }
    }

    /// Returns the encoding of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Encoding::ALL.into_iter().find(|encoding| encoding.name() == name)
    }
}

impl JobId {
    /// The id that stands for any job (`FLUX_JOBID_ANY`).
    pub const ANY: JobId = JobId(u64::MAX);

    /// Returns F58, with the prefix `f` instead of `ƒ` when `ascii`.
    pub fn f58(self, ascii: bool) -> String {
        let mut digits = [0u8; 11];
        let mut start = digits.len();
        let mut rest = self.0;
        for slot in digits.iter_mut().rev() {
            *slot = usize::try_from(rest % 58)
                .ok()
                .and_then(|digit| BASE58.get(digit))
                .copied()
                .unwrap_or(b'1');
            rest /= 58;
            start -= 1;
            if rest == 0 {
                break;
            }
        }
        let mut text = String::with_capacity(13);
        text.push(if ascii { 'f' } else { F58_PREFIX });
        text.extend(
            digits
                .get(start..)
                .unwrap_or_default()
                .iter()
                .map(|&c| char::from(c)),
        );
        text
    }

    /// Returns the text in an encoding.
    pub fn encode(self, encoding: Encoding) -> String {
        match encoding {
            Encoding::Dec => self.0.to_string(),
            Encoding::Hex => format!("{:#x}", self.0),
            Encoding::Dothex => self.dothex(),
            Encoding::Kvs => self.kvs_path(),
            Encoding::F58 => self.f58(false),
            Encoding::F58Plain => self.f58(true),
            Encoding::Words => self.words(),
            Encoding::Emoji => self.emoji(),
        }
    }

    /// Returns the four 16-bit groups, highest first.
    fn groups(self) -> [u16; 4] {
        let [a, b, c, d, e, f, g, h] = self.0.to_be_bytes();
        [[a, b], [c, d], [e, f], [g, h]].map(u16::from_be_bytes)
    }

    /// Returns `xxxx.xxxx.xxxx.xxxx`.
    pub fn dothex(self) -> String {
        let [a, b, c, d] = self.groups();
        format!("{a:04x}.{b:04x}.{c:04x}.{d:04x}")
    }

    /// Returns the job's directory in the primary KVS namespace, `job.xxxx.xxxx.xxxx.xxxx` (RFC 16).
    pub fn kvs_path(self) -> String {
        let [a, b, c, d] = self.groups();
        format!("job.{a:04x}.{b:04x}.{c:04x}.{d:04x}")
    }

    /// Returns a key below the job's directory, e.g. `kvs_key("eventlog")` (RFC 16).
    pub fn kvs_key(self, name: &str) -> String {
        let [a, b, c, d] = self.groups();
        format!("job.{a:04x}.{b:04x}.{c:04x}.{d:04x}.{name}")
    }

    /// Returns the name of the job's guest namespace, `job-` and the decimal id (RFC 16).
    pub fn guest_namespace(self) -> String {
        format!("job-{}", self.0)
    }

    /// Returns six words.
    fn words(self) -> String {
        let [a, b, c, d, e, f, g, h] = self.0.to_le_bytes();
        let word = |index: u32| {
            let word = usize::try_from(index % WORD_BASE)
                .ok()
                .and_then(|i| mnemonic::MN_WORDS.get(i));
            word.and_then(|bytes| std::str::from_utf8(bytes).ok())
                .unwrap_or("")
        };
        let half = |x: u32| {
            format!(
                "{}-{}-{}",
                word(x),
                word(x / WORD_BASE),
                word(x / WORD_BASE / WORD_BASE)
            )
        };
        format!(
            "{}--{}",
            half(u32::from_le_bytes([a, b, c, d])),
            half(u32::from_le_bytes([e, f, g, h]))
        )
    }

    /// Returns emoji, highest digit first.
    fn emoji(self) -> String {
        let mut digits = Vec::with_capacity(7);
        let mut rest = self.0;
        loop {
            digits.push(usize::try_from(rest % EMOJI_BASE).unwrap_or(0));
            rest /= EMOJI_BASE;
            if rest == 0 {
                break;
            }
        }
        digits
            .iter()
            .rev()
            .filter_map(|&digit| emoji::DIGITS.get(digit * 4..digit * 4 + 4))
            .collect()
    }
}

impl fmt::Display for JobId {
    /// Writes F58 with the prefix `ƒ`; see [`JobId::f58`] for plain terminals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.f58(false))
    }
}

impl From<u64> for JobId {
    fn from(id: u64) -> Self {
        JobId(id)
    }
}

impl From<JobId> for u64 {
    fn from(id: JobId) -> Self {
        id.0
    }
}

impl FromStr for JobId {
    type Err = JobIdError;

    /// Parses any encoding, chosen by the rules of RFC 19; surrounding white space is ignored.
    fn from_str(text: &str) -> Result<Self, JobIdError> {
        let text = text.trim();
        if text.contains('.') {
            return parse_dothex(text.strip_prefix("job.").unwrap_or(text));
        }
        if text.contains('-') {
            return parse_words(text);
        }
        if let Some(digits) = text.strip_prefix(F58_PREFIX).or_else(|| text.strip_prefix('f')) {
            return parse_f58(digits);
        }
        if text.as_bytes().starts_with(&[0xf0, 0x9f]) {
            return parse_emoji(text);
        }
        match text.strip_prefix("0x") {
            Some(digits) => parse_radix(digits, 16),
            None => parse_radix(text, 10),
        }
        .map(JobId)
    }
}

/// Parses digits without sign.
fn parse_radix(digits: &str, radix: u32) -> Result<u64, JobIdError> {
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(JobIdError::Invalid);
    }
    u64::from_str_radix(digits, radix).map_err(|_| JobIdError::Overflow)
}

fn parse_dothex(text: &str) -> Result<JobId, JobIdError> {
    let mut value = 0;
    let mut groups = 0;
    for group in text.split('.') {
        if group.len() != 4 || groups == 4 {
            return Err(JobIdError::Invalid);
        }
        value = value << 16 | parse_radix(group, 16)?;
        groups += 1;
    }
    if groups == 4 {
        Ok(JobId(value))
    } else {
        Err(JobIdError::Invalid)
    }
}

fn parse_words(text: &str) -> Result<JobId, JobIdError> {
    let mut values = [0u64; 2];
    let mut count = 0;
    for word in text.split('-').filter(|word| !word.is_empty()) {
        let base = usize::try_from(WORD_BASE).unwrap_or(0);
        let known = mnemonic::MN_WORDS.iter().take(base);
        let digit = known
            .enumerate()
            .find(|(_, known)| known.eq_ignore_ascii_case(word.as_bytes()));
        let digit = digit
            .and_then(|(digit, _)| u64::try_from(digit).ok())
            .ok_or(JobIdError::Invalid)?;
        let half = values.get_mut(count / 3).ok_or(JobIdError::Invalid)?;
        let weight = [1, u64::from(WORD_BASE), u64::from(WORD_BASE).pow(2)];
        *half += digit * weight.get(count % 3).copied().unwrap_or(0);
        count += 1;
    }
    let [low, high] = values.map(u32::try_from);
    match (count, low, high) {
        (6, Ok(low), Ok(high)) => Ok(JobId(u64::from(high) << 32 | u64::from(low))),
        (6, ..) => Err(JobIdError::Overflow),
        _ => Err(JobIdError::Invalid),
    }
}

fn parse_f58(digits: &str) -> Result<JobId, JobIdError> {
    if digits.is_empty() {
        return Err(JobIdError::Invalid);
    }
    let mut value = 0u64;
    for c in digits.bytes() {
        let digit = BASE58
            .iter()
            .position(|&known| known == c)
            .ok_or(JobIdError::Invalid)?;
        let digit = u64::try_from(digit).map_err(|_| JobIdError::Invalid)?;
        value = value
            .checked_mul(58)
            .and_then(|v| v.checked_add(digit))
            .ok_or(JobIdError::Overflow)?;
    }
    Ok(JobId(value))
}

fn parse_emoji(text: &str) -> Result<JobId, JobIdError> {
    let mut value = 0u64;
    for c in text.chars() {
        let digit = emoji::DIGITS
            .chars()
            .position(|known| known == c)
            .ok_or(JobIdError::Invalid)?;
        let digit = u64::try_from(digit).map_err(|_| JobIdError::Invalid)?;
        value = value
            .checked_mul(EMOJI_BASE)
            .and_then(|v| v.checked_add(digit))
            .ok_or(JobIdError::Overflow)?;
    }
    Ok(JobId(value))
}

/// Decides whether F58 is shown in ASCII, from the values of environment variables.
///
/// `force_ascii` is FLUX_F58_FORCE_ASCII (any value forces); the others are LC_ALL, LC_CTYPE and LANG,
/// of which the first that is not empty names the locale. ASCII unless the locale's character set is UTF-8.
pub fn ascii_f58(
    force_ascii: Option<&str>,
    lc_all: Option<&str>,
    lc_ctype: Option<&str>,
    lang: Option<&str>,
) -> bool {
    if force_ascii.is_some() {
        return true;
    }
    let locale = [lc_all, lc_ctype, lang]
        .into_iter()
        .flatten()
        .find(|value| !value.is_empty());
    let charset = locale
        .and_then(|locale| locale.split_once('.'))
        .map_or("", |(_, charset)| charset);
    let charset = charset.split('@').next().unwrap_or("");
    !charset.eq_ignore_ascii_case("UTF-8") && !charset.eq_ignore_ascii_case("UTF8")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_and_golden_vectors() {
        let id = JobId(6_731_191_091_817_518);
        for (encoding, text) in [
            (Encoding::Dec, "6731191091817518"),
            (Encoding::Hex, "0x17e9fb8df16c2e"),
            (Encoding::Dothex, "0017.e9fb.8df1.6c2e"),
            (Encoding::Kvs, "job.0017.e9fb.8df1.6c2e"),
            (Encoding::F58, "ƒuZZybuNNy"),
            (Encoding::F58Plain, "fuZZybuNNy"),
            (Encoding::Words, "reform-remote-galileo--heart-package-academy"),
        ] {
            assert_eq!(id.encode(encoding), text);
            assert_eq!(format!(" {text}\n").parse(), Ok(id), "{text}");
            assert_eq!(Encoding::from_name(encoding.name()), Some(encoding));
        }
        let golden = JobId(42_161_143_808);
        assert_eq!(golden.to_string(), "ƒ27EdtBZ");
        assert_eq!(
            golden.encode(Encoding::Words),
            "apollo-lobby-data--agent-academy-academy"
        );
        assert_eq!(golden.encode(Encoding::Emoji), "🍖🎁💨🏃");
        assert_eq!(golden.kvs_key("eventlog"), "job.0000.0009.d100.0000.eventlog");
        assert_eq!(JobId(0).f58(false), "ƒ1");
        assert_eq!(JobId(0).encode(Encoding::Emoji), "😃");
        assert_eq!(JobId::ANY.f58(true).parse(), Ok(JobId::ANY));
        assert_eq!(serde_json::to_string(&golden).unwrap(), "42161143808");
    }

    #[test]
    fn bad_ids() {
        for bad in [
            "",
            " ",
            "x",
            "f",
            "ƒ",
            "f0",
            "fl",
            "0x",
            "0xg",
            "+1",
            "1a",
            "1.2.3.4",
            "0000.0000.0000",
            "a-b-c--d-e-f",
            "0000.0000.0000.0000.0000",
            "academy-academy",
            "job.",
            "😃x",
            "18446744073709551616",
            "fzzzzzzzzzzzz",
            "0x10000000000000000",
            "-1",
            "+123.4567.89ab.cdef",
        ] {
            assert!(bad.parse::<JobId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn terminal_choice() {
        assert!(!ascii_f58(None, None, None, Some("en_US.UTF-8")));
        assert!(!ascii_f58(None, Some(""), None, Some("C.utf8")));
        assert!(ascii_f58(None, Some("C"), None, Some("en_US.UTF-8")));
        assert!(ascii_f58(Some("1"), None, None, Some("en_US.UTF-8")));
        assert!(ascii_f58(None, None, None, None));
        assert!(ascii_f58(
            None,
            None,
            Some("de_DE.ISO-8859-1@euro"),
            Some("en_US.UTF-8")
        ));
    }

    proptest! {
        #[test]
        fn round_trip(id: u64) {
            for encoding in Encoding::ALL {
                prop_assert_eq!(JobId(id).encode(encoding).parse(), Ok(JobId(id)));
            }
        }
        #[test]
        fn never_panics(text in "\\PC{0,30}") {
            let _ = text.parse::<JobId>();
        }
    }
}
