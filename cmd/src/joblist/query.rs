//! How are jobs chosen and asked for? `job-list.list` with a constraint (RFC 43), or one by one.

use flux_client::{Error, Handle, NODEID_ANY};
use flux_formats::errno::ENOENT;
use flux_formats::idset::IdSet;
use flux_formats::jobid::JobId;
use flux_formats::jobstate::{JobResult, JobState};
use serde::Deserialize;
use serde_json::{Value, json};

use super::record::Record;
use crate::common::error::{CmdError, usage};
use crate::common::jobid::parse;
use crate::common::user;

/// All results together.
const RESULTS_ALL: u32 = 15;
/// All states together.
const STATES_ALL: u32 = 127;

/// States and results that `--filter` selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    states: u32,
    results: u32,
}

impl Filter {
    /// Jobs that have not ended.
    pub(crate) const ACTIVE: Filter = Filter {
        states: JobState::ACTIVE,
        results: 0,
    };
    /// Jobs in RUN and CLEANUP.
    pub(crate) const RUNNING: Filter = Filter {
        states: JobState::RUNNING,
        results: 0,
    };
    /// All jobs.
    pub(crate) const ALL: Filter = Filter {
        states: STATES_ALL,
        results: 0,
    };

    /// Reads names of states and results, also several joined by commas.
    ///
    /// # Errors
    /// A usage error that names the word.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, CmdError> {
        let mut filter = Filter {
            states: 0,
            results: 0,
        };
        for name in words.iter().flat_map(|words| words.split(',')).map(str::trim) {
            let lower = name.to_ascii_lowercase();
            if let Ok(result) = lower.parse::<JobResult>() {
                filter.results |= result.bit();
            } else if let Some(mask) = JobState::mask_from_name(&lower) {
                filter.states |= mask;
            } else {
                return usage(format!(
                    "Invalid filter specified: {name} (use depend, priority, sched, run, cleanup, inactive, pending, \
                     running, active, completed, failed, canceled, timeout)"
                ));
            }
        }
        if filter.results == RESULTS_ALL {
            filter.states |= JobState::Inactive.bit();
            filter.results = 0;
        }
        Ok(filter)
    }

    /// Adds the states of another filter.
    #[must_use]
    pub(crate) fn or(self, other: Filter) -> Filter {
        Filter {
            states: self.states | other.states,
            results: self.results | other.results,
        }
    }

    fn constraint(self) -> Value {
        match (self.states, self.results) {
            (states, 0) => json!({ "states": [states] }),
            (0, results) => json!({ "results": [results] }),
            (states, results) => json!({ "or": [{ "states": [states] }, { "results": [results] }] }),
        }
    }
}

/// Which jobs are wanted.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    /// States and results.
    pub(crate) filter: Filter,
    /// User; [`user::USERID_ALL`] is everyone.
    pub(crate) userid: u32,
    /// Name of the job.
    pub(crate) name: Option<String>,
    /// Queues; none is every queue.
    pub(crate) queues: Vec<String>,
    /// Hosts or ranks that the job was given.
    pub(crate) include: Option<String>,
    /// Leaves out jobs that were inactive by then.
    pub(crate) since: f64,
    /// Most jobs; 0 is no limit.
    pub(crate) max_entries: u64,
}

impl Default for Query {
    fn default() -> Self {
        Query {
            filter: Filter::ACTIVE,
            userid: user::own(),
            name: None,
            queues: Vec::new(),
            include: None,
            since: 0.0,
            max_entries: 0,
        }
    }
}

impl Query {
    /// Returns the constraint (RFC 43).
    pub(crate) fn constraint(&self) -> Value {
        let mut terms = Vec::new();
        if let Some(include) = &self.include {
            let key = if include.parse::<IdSet>().is_ok() {
                "ranks"
            } else {
                "hostlist"
            };
            terms.push(json!({ key: [include] }));
        }
        if self.userid != user::USERID_ALL {
            terms.push(json!({ "userid": [self.userid] }));
        }
        if let Some(name) = &self.name {
            terms.push(json!({ "name": [name] }));
        }
        if !self.queues.is_empty() {
            terms.push(json!({ "queue": self.queues }));
        }
        terms.push(self.filter.constraint());
        json!({ "and": terms })
    }
}

/// Returns the jobs of a query with the attributes wanted.
///
/// # Errors
/// Those of the RPC.
pub(crate) fn list(handle: &mut Handle, query: &Query, wanted: &[&str]) -> Result<Vec<Record>, Error> {
    let mut records = Vec::new();
    list_each(handle, query, wanted, |more| {
        records.extend(more);
        Ok::<(), Error>(())
    })?;
    Ok(records)
}

/// Gives the jobs of a query to `take` as they come, with the attributes wanted.
///
/// # Errors
/// Those of the RPC and of `take`.
pub(crate) fn list_each<E: From<Error>>(
    handle: &mut Handle,
    query: &Query,
    wanted: &[&str],
    mut take: impl FnMut(Vec<Record>) -> Result<(), E>,
) -> Result<(), E> {
    #[derive(Deserialize)]
    struct Response {
        #[serde(default)]
        jobs: Vec<Record>,
        #[serde(default)]
        version: u32,
    }
    let request = json!({
        "max_entries": query.max_entries, "attrs": wanted, "since": query.since,
        "constraint": query.constraint(),
    });
    let stream = handle.stream("job-list.list", NODEID_ANY, &request)?;
    let mut first = true;
    while let Some(Response { jobs, version }) = handle.next_json(&stream)? {
        take(jobs)?;
        // an older instance answers once
        if first && version == 0 {
            handle.forget(stream);
            break;
        }
        first = false;
    }
    Ok(())
}

/// Returns jobs by id, and what to say of those that are not there.
///
/// # Errors
/// A malformed id, and those of the connection.
pub(crate) fn fetch_ids(
    handle: &mut Handle,
    ids: &[&str],
    wanted: &[&str],
) -> Result<(Vec<Record>, Vec<String>), CmdError> {
    #[derive(Deserialize)]
    struct Response {
        job: Record,
    }
    let mut pending = Vec::with_capacity(ids.len());
    for name in ids {
        let id: JobId = parse(name)?;
        let request = json!({ "id": id.0, "attrs": wanted });
        pending.push((name, handle.rpc("job-list.list-id", NODEID_ANY, &request)?));
    }
    let (mut records, mut errors) = (Vec::new(), Vec::new());
    for (name, rpc) in &pending {
        match handle.get::<Response>(rpc) {
            Ok(response) => records.push(response.job),
            Err(Error::Rpc(err)) if err.errnum == ENOENT => errors.push(format!("JobID {name} unknown")),
            Err(Error::Rpc(err)) => errors.push(format!("{name}: {}", err.message())),
            Err(err) => return Err(err.into()),
        }
    }
    Ok((records, errors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints() {
        let own = user::own();
        assert_eq!(
            Query::default().constraint().to_string(),
            format!(r#"{{"and":[{{"userid":[{own}]}},{{"states":[62]}}]}}"#)
        );
        let all = Query {
            userid: user::USERID_ALL,
            filter: Filter::ALL,
            ..Query::default()
        };
        assert_eq!(all.constraint().to_string(), r#"{"and":[{"states":[127]}]}"#);
        let some = Query {
            filter: Filter::parse(&["pending,failed"]).unwrap(),
            queues: vec!["a".to_owned(), "b".to_owned()],
            name: Some("x".to_owned()),
            include: Some("0-3".to_owned()),
            ..all.clone()
        };
        assert_eq!(
            some.constraint().to_string(),
            r#"{"and":[{"ranks":["0-3"]},{"name":["x"]},{"queue":["a","b"]},{"or":[{"states":[14]},{"results":[2]}]}]}"#
        );
        let hosts = Query {
            include: Some("node[1-2]".to_owned()),
            ..all
        };
        assert!(
            hosts
                .constraint()
                .to_string()
                .contains(r#"{"hostlist":["node[1-2]"]}"#)
        );
        assert!(Filter::parse(&["zz"]).is_err());
        let results = Filter::parse(&["completed,failed", "canceled,timeout"]).unwrap();
        assert_eq!(
            results,
            Filter {
                states: 64,
                results: 0
            }
        );
    }
}
