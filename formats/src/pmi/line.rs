//! How is a line of `key=value` words taken apart?

use std::str::FromStr;

use super::LINE_MAX;

/// Why a line is not a PMI-1 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PmiError {
    /// The line is longer than [`LINE_MAX`].
    #[error("PMI line is too long")]
    TooLong,
    /// The line holds a control character.
    #[error("PMI line holds a control character")]
    Character,
    /// The command is unknown.
    #[error("unknown PMI command")]
    Command,
    /// A key is absent.
    #[error("PMI message lacks {0}")]
    Missing(&'static str),
    /// A value is not a number.
    #[error("PMI value of {0} is not a number")]
    Number(&'static str),
    /// A name, key or value exceeds its limit.
    #[error("PMI name, key or value is too long")]
    Limit,
}

/// One line: words `key=value` in any order with any white space between them.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a>(&'a str);

impl<'a> Line<'a> {
    /// Takes a line, with or without its newline.
    ///
    /// # Errors
    /// [`PmiError::TooLong`], [`PmiError::Character`].
    pub fn new(text: &'a str) -> Result<Self, PmiError> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        if text.len() >= LINE_MAX {
            return Err(PmiError::TooLong);
        }
        if text.bytes().any(|c| c.is_ascii_control() && c != b'\t') {
            return Err(PmiError::Character);
        }
        Ok(Line(text))
    }

    /// Returns true when the whole line is `word`.
    pub fn is_word(&self, word: &str) -> bool {
        self.0.trim() == word
    }

    /// Returns the place after `key=`, where `key` begins a word.
    fn after(&self, key: &str) -> Option<&'a str> {
        let mut rest = self.0.trim_start();
        while !rest.is_empty() {
            if let Some(value) = rest.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')) {
                return Some(value);
            }
            let end = rest.find([' ', '\t']).unwrap_or(rest.len());
            rest = rest.get(end..).unwrap_or("").trim_start();
        }
        None
    }

    /// Returns the value of `key` up to white space.
    pub fn word(&self, key: &str) -> Option<&'a str> {
        self.after(key).and_then(|value| value.split([' ', '\t']).next())
    }

    /// Returns the value of `key` up to the end of the line.
    pub fn string(&self, key: &str) -> Option<&'a str> {
        self.after(key)
    }

    /// Returns the value of `key` as a number.
    ///
    /// # Errors
    /// [`PmiError::Number`].
    pub fn number<T: FromStr>(&self, key: &'static str) -> Result<Option<T>, PmiError> {
        self.word(key)
            .map(|word| word.parse().map_err(|_| PmiError::Number(key)))
            .transpose()
    }

    pub(super) fn require(&self, key: &'static str) -> Result<&'a str, PmiError> {
        self.word(key).ok_or(PmiError::Missing(key))
    }

    pub(super) fn require_string(&self, key: &'static str) -> Result<&'a str, PmiError> {
        self.string(key).ok_or(PmiError::Missing(key))
    }

    pub(super) fn require_number<T: FromStr>(&self, key: &'static str) -> Result<T, PmiError> {
        self.number(key)?.ok_or(PmiError::Missing(key))
    }
}

/// Checks that a text and its NUL fit.
pub(super) fn limited(text: &str, size_max: usize) -> Result<&str, PmiError> {
    if text.len() < size_max {
        Ok(text)
    } else {
        Err(PmiError::Limit)
    }
}
