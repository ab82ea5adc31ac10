//! Which jobs does a constraint match? (RFC 31, with the operators of RFC 43.)

use super::job::{Alloc, Job};
use crate::service::RpcError;
use flux_formats::errno;
use flux_formats::hostlist::Hostlist;
use flux_formats::idset::IdSet;
use flux_formats::jobstate::{JobResult, JobState};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Deepest nesting accepted.
const DEPTH_MAX: usize = 32;
/// Most hosts or ranks in one operator.
const MEMBERS_MAX: u64 = 1024;

/// A time of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    Submit,
    Depend,
    Run,
    Cleanup,
    Inactive,
}

/// How a time is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
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
    Userid(Vec<u32>),
    Name(Vec<String>),
    Queue(Vec<String>),
    States(u32),
    Results(u32),
    Hosts(Hosts),
    Ranks(Hosts),
    #[expect(private_interfaces, reason = "built by the parser only")]
    Time(Time, Comparison, f64),
}

/// Nodes to look for in allocations; the answer is kept per allocation, which many jobs share.
#[derive(Debug)]
pub(super) struct Hosts {
    hosts: Hostlist,
    ranks: IdSet,
    known: RefCell<HashMap<*const Alloc, bool>>,
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
        Self::parse_at(value, 0)
    }

    fn parse_at(value: &Value, depth: usize) -> Result<Self, RpcError> {
        let object = value
            .as_object()
            .ok_or_else(|| invalid("constraint must be JSON object"))?;
        if depth > DEPTH_MAX {
            return Err(invalid("constraint is nested too deeply"));
        }
        let mut all = object
            .iter()
            .map(|(op, values)| Self::operator(op, values, depth))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(match (all.pop(), all.is_empty()) {
            (Some(only), true) => only,
            (last, _) => {
                all.extend(last);
                Constraint::And(all)
            }
        })
    }

    fn operator(op: &str, values: &Value, depth: usize) -> Result<Self, RpcError> {
        let values = values
            .as_array()
            .ok_or_else(|| invalid(format!("operator {op} values not an array")))?;
        let nested = || {
            values
                .iter()
                .map(|value| Self::parse_at(value, depth + 1))
                .collect::<Result<Vec<_>, _>>()
        };
        let texts = || {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let list: Option<Vec<String>> = values.iter().map(text).collect();
            list.ok_or_else(|| invalid(format!("{op} value must be a string")))
        };
        Ok(match op {
            "and" => Constraint::And(nested()?),
            "or" => Constraint::Or(nested()?),
            "not" => Constraint::Not(nested()?),
            "userid" => {
                let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
                let ids: Option<Vec<u32>> = values.iter().map(id).collect();
                Constraint::Userid(ids.ok_or_else(|| invalid("userid value must be an integer"))?)
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
                    hosts,
                    ranks: IdSet::default(),
                    known: RefCell::default(),
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
                    hosts: Hostlist::new(),
                    ranks,
                    known: RefCell::default(),
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
    pub(super) fn matches(&self, job: &Job) -> bool {
        match self {
            Constraint::And(all) => all.iter().all(|one| one.matches(job)),
            Constraint::Or(any) => any.is_empty() || any.iter().any(|one| one.matches(job)),
            Constraint::Not(all) => !all.iter().all(|one| one.matches(job)),
            Constraint::Userid(ids) => ids.contains(&job.userid),
            Constraint::Name(names) => names.iter().any(|name| **name == *job.spec.name),
            Constraint::Queue(names) => job
                .spec
                .queue
                .as_deref()
                .is_some_and(|queue| names.iter().any(|name| name == queue)),
            Constraint::States(mask) => job.state.in_mask(*mask),
            Constraint::Results(mask) => job.is_inactive() && job.result().bit() & mask != 0,
            Constraint::Hosts(hosts) => hosts.on(job.alloc.as_ref(), |hosts, alloc| {
                let list: Hostlist = alloc.nodelist.parse().unwrap_or_default();
                list.expand()
                    .unwrap_or_default()
                    .iter()
                    .any(|name| hosts.hosts.contains(name))
            }),
            Constraint::Ranks(hosts) => hosts.on(job.alloc.as_ref(), |hosts, alloc| {
                alloc
                    .ranks
                    .parse::<IdSet>()
                    .is_ok_and(|ranks| ranks.intersects(&hosts.ranks))
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
    fn on(&self, alloc: Option<&Rc<Alloc>>, look: impl Fn(&Hosts, &Alloc) -> bool) -> bool {
        let Some(alloc) = alloc else { return false };
        // allocations outlive the one call in which a constraint is used
        let mut known = self.known.borrow_mut();
        *known
            .entry(Rc::as_ptr(alloc))
            .or_insert_with(|| look(self, alloc))
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
    if let Some(userid) = request.userid.filter(|userid| *userid != u32::MAX) {
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
mod tests {
    use super::super::apply::tests::{job, life};
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn matches(constraint: Value, job: &Job) -> bool {
        Constraint::parse(&constraint).unwrap().matches(job)
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
    }

    fn arbitrary() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            (0u32..128).prop_map(|mask| json!({"states": [mask]})),
            (0u32..16).prop_map(|mask| json!({"results": [mask]})),
            (6u32..9).prop_map(|id| json!({"userid": [id]})),
            (0.0..12.0f64).prop_map(|t| json!({"t_inactive": [format!(">{t}")]})),
            (0u32..3).prop_map(|rank| json!({"ranks": [rank.to_string()]})),
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
            if constraint.matches(&job) {
                prop_assert!(job.state.in_mask(constraint.possible_states() | 1));
            }
        }
    }
}
