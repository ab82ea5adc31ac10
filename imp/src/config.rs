//! What may be done, and by whom? The answer of the parser's sandbox: keys and values that [`crate::helpers::schema`] has checked and
//! written, of which every one that is used is looked at again here.

use flux_sign::kv::Kv;

/// Whether a job's processes are held in a control group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UseCgroup {
    /// They are not.
    Off,
    /// They are, where it is possible.
    Auto,
    /// They are, or the job is refused.
    Require,
}

/// The configuration: `exec.*`, `run.NAME.*` and, as they are in the file, `sign.*`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config(pub Kv);

impl Config {
    fn wrong(key: &str) -> String {
        format!("configuration: {key} is missing or wrong")
    }

    /// Returns a number.
    ///
    /// # Errors
    /// What to log.
    pub fn number(&self, key: &str) -> Result<i64, String> {
        self.0.get_int(key).ok_or(Self::wrong(key))
    }

    /// Returns true or false.
    ///
    /// # Errors
    /// What to log.
    pub fn flag(&self, key: &str) -> Result<bool, String> {
        self.0.get_bool(key).ok_or(Self::wrong(key))
    }

    /// Returns the texts of a list, `KEY.0` and so on.
    pub fn list(&self, key: &str) -> impl Iterator<Item = &str> {
        (0..).map_while(move |at| self.0.get_str(&format!("{key}.{at}")))
    }

    /// Whether a list has this very text.
    pub fn has(&self, key: &str, text: &str) -> bool {
        self.list(key).any(|element| element == text)
    }

    /// Returns what is to be done about control groups.
    ///
    /// # Errors
    /// What to log.
    pub fn cgroup(&self) -> Result<UseCgroup, String> {
        let all = [UseCgroup::Off, UseCgroup::Auto, UseCgroup::Require];
        let number = usize::try_from(self.number("exec.cgroup")?).ok();
        let found = number.and_then(|number| all.get(number).copied());
        found.ok_or(Self::wrong("exec.cgroup"))
    }

    /// Returns the path of `[run.NAME]`.
    ///
    /// # Errors
    /// What to log; the texts of the original where it has one.
    pub fn run_path(&self, name: &str) -> Result<&str, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let text = |key| self.0.get_str(&format!("run.{name}.{key}"));
        match (text("path"), text("mistake")) {
            (Some(path), None) if name.chars().all(plain) => Ok(path),
            (None, Some(mistake)) if name.chars().all(plain) => Err(mistake.to_owned()),
            _ => Err(format!("{name}: no configuration found")),
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
