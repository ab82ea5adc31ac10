//! What of the site's configuration does the trusted side follow? (Where jobs are placed; what users are told.)

use std::collections::HashMap;

use serde_json::Value;

use crate::pool::Placement;

/// Keys of `[sched-fluxion-resource]` that only make Fluxion's graph faster.
const WITHOUT_MEANING: &[&str] = &[
    "load-allowlist",
    "reserve-vtx-vec",
    "prune-filters",
    "load-file",
    "load-format",
];

/// The settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Settings {
    placement: Placement,
    of_queues: HashMap<Box<str>, Placement>,
    /// Tell waiting jobs their place.
    pub(super) annotate_pending: bool,
}

impl Settings {
    /// Reads `sched-simple.{match-policy,annotate-pending,queues.NAME.match-policy}` and `sched-fluxion-resource.*`; the former go first.
    /// `notes` takes what the site should know.
    ///
    /// # Errors
    /// Which key has which bad value.
    pub(super) fn read(config: &Value, notes: &mut Vec<String>) -> Result<Settings, String> {
        let fluxion = fluxion(config, notes)?;
        let own = placement(config, "/sched-simple/match-policy", "sched-simple.match-policy")?;
        let mut settings = Settings {
            placement: own.or(fluxion).unwrap_or_default(),
            ..Settings::default()
        };
        let queues = config.pointer("/sched-simple/queues").and_then(Value::as_object);
        for (name, queue) in queues.into_iter().flatten() {
            let key = format!("sched-simple.queues.{name}.match-policy");
            if let Some(placement) = placement(queue, "/match-policy", &key)? {
                settings.of_queues.insert(name.as_str().into(), placement);
            }
        }
        settings.annotate_pending = match config.pointer("/sched-simple/annotate-pending") {
            None => false,
            Some(Value::Bool(wanted)) => *wanted,
            Some(other) => {
                return Err(format!(
                    "sched-simple.annotate-pending must be true or false, not {other}"
                ));
            }
        };
        Ok(settings)
    }

    /// Returns where jobs of a queue are placed.
    pub(super) fn placement(&self, queue: &str) -> Placement {
        self.of_queues.get(queue).copied().unwrap_or(self.placement)
    }

    /// Returns where jobs are placed whose queue says nothing else.
    pub(super) fn default_placement(&self) -> Placement {
        self.placement
    }
}

fn placement(config: &Value, pointer: &str, key: &str) -> Result<Option<Placement>, String> {
    match config.pointer(pointer) {
        None => Ok(None),
        Some(Value::String(name)) => parse(name).map(Some).map_err(|error| format!("{key}: {error}")),
        Some(other) => Err(format!("{key} must be the name of a match policy, not {other}")),
    }
}

/// Reads a name, or Fluxion's list of attributes (`policy=high node_exclusive=true`).
fn parse(text: &str) -> Result<Placement, String> {
    if !text.contains('=') {
        return text
            .parse()
            .map_err(|error: crate::pool::UnknownPlacement| error.to_string());
    }
    let (mut high, mut exclusive) = (false, false);
    for word in text.split_whitespace() {
        match word.split_once('=') {
            Some(("policy", "low")) => high = false,
            Some(("policy", "high")) => high = true,
            Some(("node_exclusive", value @ ("true" | "false"))) => exclusive = value == "true",
            Some(("node_centric" | "set_stop_on_1_matches", "true" | "false")) => {}
            _ => {
                return Err(format!(
                    "unknown attribute '{word}'; known are policy=low|high, node_centric=, node_exclusive= and set_stop_on_1_matches=true|false"
                ));
            }
        }
    }
    Ok(match (high, exclusive) {
        (false, false) => Placement::Lonode,
        (false, true) => Placement::Lonodex,
        (true, false) => Placement::Hinode,
        (true, true) => Placement::Hinodex,
    })
}

fn fluxion(config: &Value, notes: &mut Vec<String>) -> Result<Option<Placement>, String> {
    let Some(table) = config.get("sched-fluxion-resource").and_then(Value::as_object) else {
        return Ok(None);
    };
    for (key, value) in table {
        match key.as_str() {
            "match-policy" => {}
            "match-format" if value == "rv1_nosched" => {}
            "match-format" => notes.push(format!(
                "sched-fluxion-resource.match-format = {value} is not supported: R is written as rv1_nosched"
            )),
            key if WITHOUT_MEANING.contains(&key) => {
                notes.push(format!(
                    "sched-fluxion-resource.{key} has no meaning for this scheduler"
                ));
            }
            key => notes.push(format!("sched-fluxion-resource.{key} is not known and ignored")),
        }
    }
    placement(
        config,
        "/sched-fluxion-resource/match-policy",
        "sched-fluxion-resource.match-policy",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(config: Value) -> (Result<Settings, String>, Vec<String>) {
        let mut notes = Vec::new();
        (Settings::read(&config, &mut notes), notes)
    }

    #[test]
    fn fluxion_keys_are_understood() {
        let (settings, notes) = read(
            json!({"sched-fluxion-resource": {"match-policy": "lonodex", "match-format": "rv1_nosched"}}),
        );
        assert_eq!(settings.unwrap().placement("batch"), Placement::Lonodex);
        assert!(notes.is_empty());
        let (settings, notes) = read(
            json!({"sched-fluxion-resource": {"match-policy": "policy=high node_exclusive=true set_stop_on_1_matches=true",
            "match-format": "rv1", "prune-filters": "ALL:core", "colour": 1}}),
        );
        assert_eq!(settings.unwrap().placement(""), Placement::Hinodex);
        assert_eq!(notes.len(), 3);
        assert!(
            notes[0].contains("rv1_nosched") && notes[2].contains("colour"),
            "{notes:?}"
        );
    }

    #[test]
    fn queues_go_first_and_bad_values_are_named() {
        let (settings, _) = read(
            json!({"sched-fluxion-resource": {"match-policy": "first"}, "sched-simple":
            {"match-policy": "high", "annotate-pending": true, "queues": {"debug": {"match-policy": "low"}}}}),
        );
        let settings = settings.unwrap();
        assert_eq!(
            (settings.placement("debug"), settings.placement("x")),
            (Placement::Low, Placement::High)
        );
        assert!(settings.annotate_pending);
        for (config, key) in [
            (
                json!({"sched-simple": {"match-policy": "best"}}),
                "sched-simple.match-policy: unknown match policy 'best'",
            ),
            (
                json!({"sched-simple": {"match-policy": 7}}),
                "sched-simple.match-policy must be",
            ),
            (
                json!({"sched-simple": {"queues": {"a": {"match-policy": "x"}}}}),
                "sched-simple.queues.a.match-policy",
            ),
            (
                json!({"sched-simple": {"annotate-pending": 1}}),
                "annotate-pending",
            ),
            (
                json!({"sched-fluxion-resource": {"match-policy": "policy=up"}}),
                "policy=up",
            ),
        ] {
            let error = read(config).0.unwrap_err();
            assert!(error.contains(key), "{error}");
        }
    }
}
