//! Which jobs does a constraint match? (RFC 31, with the operators of RFC 43.)

use super::view::View;
use crate::service::RpcError;
use flux_formats::errno;
use flux_formats::hostlist::Hostlist;
use flux_formats::idset::IdSet;
use flux_formats::jobstate::{JobResult, JobState};
use flux_formats::msg::{USERID_UNKNOWN, userid_from_json};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

/// Deepest nesting accepted.
const DEPTH_MAX: usize = 32;
/// Most hosts or ranks in one operator.
const MEMBERS_MAX: u64 = 1024;
/// Most operators in a constraint: each of them may be asked for each job.
const OPERATORS_MAX: usize = 4096;
/// Answers kept per host or rank operator.
const KNOWN_MAX: usize = 4096;

/// A time of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    Submit,
    Depend,
    Run,
    Cleanup,
    Inactive,
}

/// How a time is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// A checked constraint.
#[derive(Debug)]
pub(super) enum Constraint {
    And(Vec<Constraint>),
    Or(Vec<Constraint>),
    Not(Vec<Constraint>),
    Userid(HashSet<u32>),
    Name(HashSet<String>),
    Queue(HashSet<String>),
    States(u32),
    Results(u32),
    Hosts(Hosts),
    Ranks(Hosts),
    Time(Time, Comparison, f64),
}

/// Nodes to look for in allocations; the answer is kept per allocation, of which many jobs have equal ones.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    hosts: HashSet<String>,
    ranks: IdSet,
    known: RefCell<HashMap<Box<str>, bool>>,
}

fn invalid(text: impl Into<String>) -> RpcError {
    RpcError::new(errno::EINVAL, text)
}

impl Constraint {
    /// Reads a constraint object; an empty one matches everything.
    ///
    /// # Errors
    /// EINVAL with what is wrong.
    pub(super) fn parse(value: &Value) -> Result<Self, RpcError> {
        Self::parse_at(value, 0, &mut 0)
    }

    fn parse_at(value: &Value, depth: usize, count: &mut usize) -> Result<Self, RpcError> {
        let object = value
            .as_object()
            .ok_or_else(|| invalid("constraint must be JSON object"))?;
        if depth > DEPTH_MAX {
            return Err(invalid("constraint is nested too deeply"));
        }
        *count += object.len().max(1);
        if *count > OPERATORS_MAX {
            return Err(invalid(format!(
                "constraint has more than {OPERATORS_MAX} operators"
            )));
        }
        let mut all = object
            .iter()
            .map(|(op, values)| Self::operator(op, values, depth, count))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(match (all.pop(), all.is_empty()) {
            (Some(only), true) => only,
            (last, _) => {
                all.extend(last);
                Constraint::And(all)
            }
        })
    }

    fn operator(op: &str, values: &Value, depth: usize, count: &mut usize) -> Result<Self, RpcError> {
        let values = values
            .as_array()
            .ok_or_else(|| invalid(format!("operator {op} values not an array")))?;
        let mut nested = || {
            values
                .iter()
                .map(|value| Self::parse_at(value, depth + 1, count))
                .collect::<Result<Vec<_>, _>>()
        };
        let texts = || {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let list: Option<HashSet<String>> = values.iter().map(text).collect();
            list.ok_or_else(|| invalid(format!("{op} value must be a string")))
        };
        Ok(match op {
            "and" => Constraint::And(nested()?),
            "or" => Constraint::Or(nested()?),
            "not" => Constraint::Not(nested()?),
            "userid" => {
                let id = |value: &Value| value.as_i64().and_then(userid_from_json);
                let ids: Option<HashSet<u32>> = values.iter().map(id).collect();
                match ids.ok_or_else(|| invalid("userid value must be an integer"))? {
                    ids if ids.contains(&USERID_UNKNOWN) => Constraint::And(Vec::new()),
                    ids => Constraint::Userid(ids),
                }
            }
            "name" => Constraint::Name(texts()?),
            "queue" => Constraint::Queue(texts()?),
            "states" => Constraint::States(mask(values, "states", JobState::mask_from_name)?),
            "results" => {
                let bit = |name: &str| name.parse().ok().map(JobResult::bit);
                Constraint::Results(mask(values, "results", bit)?)
            }
            "hostlist" => {
                let mut hosts = Hostlist::new();
                for text in texts()? {
                    hosts
                        .append(&text)
                        .map_err(|err| invalid(format!("invalid hostlist value '{text}': {err}")))?;
                }
                check_size(hosts.count(), "hostlist")?;
                Constraint::Hosts(Hosts {
                    hosts: hosts.expand().unwrap_or_default().into_iter().collect(),
                    ..Hosts::default()
                })
            }
            "ranks" => {
                let mut ranks = IdSet::default();
                for text in texts()? {
                    let more: IdSet = text
                        .parse()
                        .map_err(|err| invalid(format!("invalid ranks value '{text}': {err}")))?;
                    ranks = ranks.union(&more);
                }
                Constraint::Ranks(Hosts {
                    ranks,
                    ..Hosts::default()
                })
            }
            _ => return Self::time(op, values),
        })
    }

    fn time(op: &str, values: &[Value]) -> Result<Self, RpcError> {
        let which = match op {
            "t_submit" => Time::Submit,
            "t_depend" => Time::Depend,
            "t_run" => Time::Run,
            "t_cleanup" => Time::Cleanup,
            "t_inactive" => Time::Inactive,
            _ => return Err(invalid(format!("unknown constraint operator: {op}"))),
        };
        let text = values.first().and_then(Value::as_str);
        let text = text.ok_or_else(|| invalid(format!("{op} value must be a string")))?;
        let (comparison, number) = if let Some(rest) = text.strip_prefix(">=") {
            (Comparison::GreaterEqual, rest)
        } else if let Some(rest) = text.strip_prefix("<=") {
            (Comparison::LessEqual, rest)
        } else if let Some(rest) = text.strip_prefix('>') {
            (Comparison::Greater, rest)
        } else if let Some(rest) = text.strip_prefix('<') {
            (Comparison::Less, rest)
        } else {
            return Err(invalid(format!(
                "invalid timestamp value '{text}': no comparison operator"
            )));
        };
        let number = number.trim().parse::<f64>().ok().filter(|number| *number >= 0.0);
        let number = number.ok_or_else(|| invalid(format!("invalid timestamp value '{text}'")))?;
        Ok(Constraint::Time(which, comparison, number))
    }

    /// Returns true for a job that matches.
    pub(super) fn matches(&self, job: &View<'_>) -> bool {
        match self {
            Constraint::And(all) => all.iter().all(|one| one.matches(job)),
            Constraint::Or(any) => any.is_empty() || any.iter().any(|one| one.matches(job)),
            Constraint::Not(all) => !all.iter().all(|one| one.matches(job)),
            Constraint::Userid(ids) => ids.contains(&job.userid),
            Constraint::Name(names) => names.contains(job.name),
            Constraint::Queue(names) => job.queue.is_some_and(|queue| names.contains(queue)),
            Constraint::States(mask) => job.state.in_mask(*mask),
            Constraint::Results(mask) => job.result.is_some_and(|result| result.bit() & mask != 0),
            Constraint::Hosts(hosts) => hosts.known(job.place.map(|place| place.nodelist), |hosts, list| {
                let list: Hostlist = list.parse().unwrap_or_default();
                let names = list.expand().unwrap_or_default();
                names.iter().any(|name| hosts.hosts.contains(name))
            }),
            Constraint::Ranks(hosts) => hosts.known(job.place.map(|place| place.ranks), |hosts, list| {
                let ranks = list.parse::<IdSet>();
                ranks.is_ok_and(|ranks| ranks.intersects(&hosts.ranks))
            }),
            Constraint::Time(which, comparison, wanted) => {
                let time = match which {
                    Time::Submit => job.t_submit,
                    Time::Depend => job.t_depend,
                    Time::Run => job.t_run,
                    Time::Cleanup => job.t_cleanup,
                    Time::Inactive => job.t_inactive,
                };
                time > 0.0
                    && match comparison {
                        Comparison::Less => time < *wanted,
                        Comparison::LessEqual => time <= *wanted,
                        Comparison::Greater => time > *wanted,
                        Comparison::GreaterEqual => time >= *wanted,
                    }
            }
        }
    }

    /// Returns the states of jobs that can match at all, so that others need not be looked at.
    pub(super) fn possible_states(&self) -> u32 {
        const ALL: u32 = 0x7f;
        match self {
            Constraint::And(all) => all.iter().fold(ALL, |mask, one| mask & one.possible_states()),
            Constraint::Or(any) if any.is_empty() => ALL,
            Constraint::Or(any) => any.iter().fold(0, |mask, one| mask | one.possible_states()),
            Constraint::States(mask) => *mask,
            Constraint::Results(_) | Constraint::Time(Time::Inactive, ..) => JobState::Inactive.bit(),
            Constraint::Hosts(_) | Constraint::Ranks(_) | Constraint::Time(Time::Run, ..) => {
                JobState::RUNNING | JobState::Inactive.bit()
            }
            _ => ALL,
        }
    }
}

impl Hosts {
    /// Returns what `look` says of a list of hosts or ranks, which is asked once for equal ones.
    fn known(&self, list: Option<&str>, look: impl Fn(&Hosts, &str) -> bool) -> bool {
        let Some(list) = list else { return false };
        let mut known = self.known.borrow_mut();
        if let Some(answer) = known.get(list) {
            return *answer;
        }
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        let answer = look(self, list);
        known.insert(list.into(), answer);
        answer
    }
}

fn check_size(count: u64, op: &str) -> Result<(), RpcError> {
    if count > MEMBERS_MAX {
        return Err(invalid(format!(
            "too many hosts specified in {op} constraint: {count} > {MEMBERS_MAX}"
        )));
    }
    Ok(())
}

fn mask(values: &[Value], op: &str, by_name: impl Fn(&str) -> Option<u32>) -> Result<u32, RpcError> {
    let mut mask = 0;
    for value in values {
        let bits = match value {
            Value::String(name) => by_name(name),
            other => other.as_u64().and_then(|bits| u32::try_from(bits).ok()),
        };
        mask |= bits.ok_or_else(|| invalid(format!("invalid {op} value {value}")))?;
    }
    Ok(mask)
}

/// Returns the constraint that the keys of an old-style request stand for.
pub(super) fn legacy(request: &flux_formats::rpc::job_list::ListRequest) -> Map<String, Value> {
    let mut all = Vec::new();
    let mut add = |op: &str, value: Value| all.push(serde_json::json!({ op: [value] }));
    if let Some(userid) = request.userid {
        add("userid", userid.into());
    }
    if let Some(states) = request.states.filter(|states| *states != 0) {
        add("states", states.into());
    }
    if let Some(results) = request.results.filter(|results| *results != 0) {
        add("results", results.into());
    }
    if let Some(name) = &request.name {
        add("name", name.as_str().into());
    }
    if let Some(queue) = &request.queue {
        add("queue", queue.as_str().into());
    }
    let mut out = Map::new();
    if !all.is_empty() {
        out.insert("and".to_owned(), Value::Array(all));
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::apply::tests::{job, life};
    use super::super::job::Job;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn matches(constraint: Value, job: &Job) -> bool {
        Constraint::parse(&constraint).unwrap().matches(&job.view())
    }

    #[test]
    fn operators() {
        let done = job(1, &life());
        let new = job(2, &[("validate", json!({}))]);
        for (constraint, on_done, on_new) in [
            (json!({}), true, true),
            (json!({"or": []}), true, true),
            (json!({"not": []}), false, false),
            (json!({"userid": [7]}), true, true),
            (json!({"userid": [8]}), false, false),
            (json!({"name": ["sleep"]}), true, true),
            (json!({"queue": ["q"]}), false, false),
            (json!({"states": ["inactive", "sched"]}), true, false),
            (json!({"states": [14]}), false, true),
            (json!({"results": ["completed"]}), true, false),
            (json!({"results": [2]}), false, false),
            (json!({"hostlist": ["n[0-2]"]}), true, false),
            (json!({"hostlist": ["m1"]}), false, false),
            (json!({"ranks": ["0-1"]}), true, false),
            (json!({"t_submit": [">=1"]}), true, true),
            (json!({"t_inactive": [">9.5"]}), true, false),
            (
                json!({"and": [{"userid": [7]}, {"not": [{"states": ["inactive"]}]}]}),
                false,
                true,
            ),
        ] {
            assert_eq!(
                matches(constraint.clone(), &done),
                on_done,
                "{constraint} on a finished job"
            );
            assert_eq!(
                matches(constraint.clone(), &new),
                on_new,
                "{constraint} on a new job"
            );
        }
    }

    #[test]
    fn mistakes() {
        let text = |value: Value| Constraint::parse(&value).unwrap_err().text;
        assert_eq!(text(json!([])), "constraint must be JSON object");
        assert_eq!(text(json!({"x": []})), "unknown constraint operator: x");
        assert_eq!(text(json!({"userid": 1})), "operator userid values not an array");
        assert!(text(json!({"states": ["nope"]})).contains("nope"));
        assert!(text(json!({"t_run": ["5"]})).contains("no comparison operator"));
        let wide = json!({"or": vec![json!({"userid": [1]}); OPERATORS_MAX]});
        assert!(text(wide).contains("operators"));
    }

    /// Returns constraints that the jobs of [`super::super::apply::tests`] match or miss.
    pub(in super::super) fn arbitrary() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            (0u32..128).prop_map(|mask| json!({"states": [mask]})),
            (0u32..16).prop_map(|mask| json!({"results": [mask]})),
            (6u32..9).prop_map(|id| json!({"userid": [id]})),
            (0.0..12.0f64).prop_map(|t| json!({"t_inactive": [format!(">{t}")]})),
            (0u32..3).prop_map(|rank| json!({"ranks": [rank.to_string()]})),
            (0u32..3).prop_map(|host| json!({"hostlist": [format!("n{host}")]})),
            prop::collection::vec("sleep|true|x'y", 0..3).prop_map(|names| json!({ "name": names })),
            prop::collection::vec("batch|debug", 0..3).prop_map(|names| json!({ "queue": names })),
            (
                "t_submit|t_depend|t_run|t_cleanup|t_inactive",
                "<|<=|>|>=",
                0u32..12
            )
                .prop_map(|(which, op, t)| json!({ which: [format!("{op}{t}")] })),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            (
                prop_oneof![Just("and"), Just("or"), Just("not")],
                prop::collection::vec(inner, 0..4),
            )
                .prop_map(|(op, list)| json!({ op: list }))
        })
    }

    proptest! {
        /// A job that matches is in a state that the constraint says can match.
        #[test]
        fn possible_states_hold(value in arbitrary(), steps in 0usize..10) {
            let constraint = Constraint::parse(&value).unwrap();
            let job = job(1, &life()[..steps.min(9)]);
            if constraint.matches(&job.view()) {
                prop_assert!(job.state.in_mask(constraint.possible_states() | 1));
            }
        }
    }
}
