//! Which callbacks does a plugin want, and for which jobs?

use std::fmt;
use std::sync::Arc;

use super::job::value_at;

/// Longest name of a callback.
const TOPIC_BYTES_MAX: usize = 256;
/// States in which `job.state.STATE` is called.
const STATES: [(&str, u32); 6] = [
    ("depend", 2),
    ("priority", 4),
    ("sched", 8),
    ("run", 16),
    ("cleanup", 32),
    ("inactive", 64),
];

/// A callback that a plugin wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// For example `job.state.depend`.
    pub name: Arc<str>,
    /// Only for jobs whose jobspec has a value at this dotted path; for `service.METHOD` the word `user`.
    pub only: Option<Arc<str>>,
}

/// Why a text is no callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Not in `wit/`.
    #[error("which is no callback of the world jobtap")]
    Unknown,
    /// `service.METHOD` without the grant.
    #[error("which the site did not grant: grants = [\"service\"]")]
    NotGranted,
}

impl Topic {
    /// Reads a callback as `callbacks.init` gives it.
    ///
    /// # Errors
    /// [`TopicError::Unknown`].
    pub fn parse(text: &str) -> Result<Topic, TopicError> {
        let (name, only) = match text.split_once(' ') {
            Some((name, only)) => (name, Some(only.trim())),
            None => (text, None),
        };
        if text.len() > TOPIC_BYTES_MAX || !is_callback(name) || only.is_some_and(str::is_empty) {
            return Err(TopicError::Unknown);
        }
        Ok(Topic {
            name: Arc::from(name),
            only: only.map(Arc::from),
        })
    }

    /// Returns true when the callback is wanted for a job with this jobspec.
    pub fn wants(&self, jobspec: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|path| value_at(jobspec, path).is_some())
    }

    /// Returns the bit of the state that it names.
    pub fn state(&self) -> Option<u32> {
        let state = self.name.strip_prefix("job.state.")?;
        STATES
            .iter()
            .find(|(name, _)| *name == state)
            .map(|(_, bit)| *bit)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.only {
            Some(only) => write!(f, "{} {only}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Returns the name of a state.
pub(super) fn state_name(bit: u32) -> &'static str {
    STATES
        .iter()
        .find(|(_, known)| *known == bit)
        .map_or("new", |(name, _)| name)
}

fn is_callback(name: &str) -> bool {
    const WHOLE: [&str; 9] = [
        "job.create",
        "job.validate",
        "job.new",
        "job.destroy",
        "job.priority.get",
        "job.inactive-add",
        "job.inactive-remove",
        "job.known",
        "plugin.query",
    ];
    const WITH_PARAMETER: [&str; 4] = ["job.dependency.", "job.event.", "job.update.", "service."];
    let parameter = |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty());
    let state = name.strip_prefix("job.state.");
    WHOLE.contains(&name)
        || WITH_PARAMETER.iter().any(|prefix| parameter(prefix))
        || state.is_some_and(|state| STATES.iter().any(|(known, _)| *known == state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callbacks() {
        for good in [
            "job.validate",
            "job.state.run",
            "job.dependency.afterok",
            "job.update.attributes.system.duration",
            "job.new attributes.system.job.name",
            "service.get user",
        ] {
            assert_eq!(Topic::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "job",
            "job.state.walk",
            "job.dependency.",
            "job.new ",
            "conf.update",
            &format!("job.event.{}", "x".repeat(300)),
        ] {
            assert_eq!(Topic::parse(bad), Err(TopicError::Unknown), "{bad}");
        }
        assert_eq!(Topic::parse("job.state.cleanup").unwrap().state(), Some(32));
        let named = Topic::parse("job.new attributes.system.job.name").unwrap();
        assert!(named.wants(r#"{"attributes":{"system":{"job":{"name":"x"}}}}"#));
        assert!(!named.wants(r#"{"attributes":{"system":{}}}"#));
    }
}
