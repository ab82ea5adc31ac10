//! Which environment do the tasks get? That of the job specification, and what the shell adds.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// Variables in the order of their first setting; a later setting of the same name replaces the value.
#[derive(Debug, Clone, Default)]
pub(crate) struct Env {
    variables: Vec<(String, String)>,
    index: HashMap<String, usize>,
}

impl Env {
    /// Returns the environment of a job specification; `null` leaves a variable out.
    pub(crate) fn from_jobspec(environment: &Map<String, Value>) -> Self {
        let mut env = Env::default();
        for (name, value) in environment {
            match value {
                Value::Null => {}
                Value::String(text) => env.set(name, text.as_str()),
                other => env.set(name, other.to_string()),
            }
        }
        env
    }

    /// Sets a variable.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        match self.index.get(name).and_then(|at| self.variables.get_mut(*at)) {
            Some((_, old)) => *old = value.into(),
            None => {
                self.index.insert(name.to_owned(), self.variables.len());
                self.variables.push((name.to_owned(), value.into()));
            }
        }
    }

    /// Returns a variable's value.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.index
            .get(name)
            .and_then(|at| self.variables.get(*at))
            .map(|(_, value)| value.as_str())
    }

    /// Returns all variables.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_settings_replace_and_null_leaves_out() {
        let json = r#"{"A":"1","B":null,"C":3}"#;
        let mut env = Env::from_jobspec(&serde_json::from_str(json).unwrap());
        env.set("A", "2");
        env.set("D", "4");
        assert_eq!(
            env.iter().collect::<Vec<_>>(),
            [("A", "2"), ("C", "3"), ("D", "4")]
        );
        assert_eq!(env.get("B"), None);
        assert_eq!(env.get("D"), Some("4"));
    }
}
