//! Why is something not done? One text for the log, and an exit code.

/// Why nothing was started, or how it ended badly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What to log.
    pub text: String,
    /// Exit code.
    pub code: i32,
}

impl Refusal {
    /// Puts the words for what was refused in front.
    pub fn of(self, what: &str) -> Self {
        let text = format!("{what}: {}", self.text);
        Refusal { text, ..self }
    }
}

impl<T: std::fmt::Display> From<T> for Refusal {
    fn from(why: T) -> Self {
        let text = why.to_string();
        Refusal { text, code: 1 }
    }
}

/// Goes on only where `condition` holds.
///
/// # Errors
/// The text, where it does not.
pub fn demand(condition: bool, otherwise: impl Into<String>) -> Result<(), String> {
    if condition { Ok(()) } else { Err(otherwise.into()) }
}
