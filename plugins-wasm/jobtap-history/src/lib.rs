//! `flux job last`: which jobs did a user submit, newest first? (`job-manager.history.get`)

mod ids;
mod slice;

use flux_policy_sdk::json::{self, Object};
use flux_policy_sdk::{Job, Jobtap, JobtapHost, Refusal, Request, export_jobtap};

use ids::History;

/// Malformed message.
const EPROTO: u32 = 71;
/// Argument list too long.
const E2BIG: u32 = 7;
/// Jobs in an answer; more would not fit into a message.
const ANSWER_MAX: usize = 500_000;

/// The plugin.
#[derive(Debug)]
pub struct Plugin {
    history: History,
}

impl Jobtap for Plugin {
    fn configure(_: &dyn JobtapHost) -> Result<Self, Refusal> {
        Ok(Plugin {
            history: History::default(),
        })
    }

    fn topics(&self) -> Vec<String> {
        let topics = ["job.new", "job.known", "job.inactive-remove", "service.get user"];
        topics.map(str::to_owned).to_vec()
    }

    fn new_job(&mut self, _: &dyn JobtapHost, job: &dyn Job, _: bool) {
        self.history.add(job.userid(), job.id());
    }

    fn known(&mut self, _: &dyn JobtapHost, jobs: &[(u64, u32)]) {
        for (id, userid) in jobs {
            self.history.add(*userid, *id);
        }
    }

    fn removed(&mut self, _: &dyn JobtapHost, job: u64) {
        self.history.forget(job);
    }

    fn request(&mut self, _: &dyn JobtapHost, request: &Request<'_>) -> Result<String, Refusal> {
        let payload = Object::parse(request.payload);
        let slice = payload
            .as_ref()
            .and_then(|payload| payload.get("slice"))
            .and_then(json::string);
        let slice = slice.ok_or_else(|| Refusal {
            errnum: EPROTO,
            text: "history.get: slice must be a string".to_owned(),
        })?;
        let indices = slice::indices(&slice, self.history.len(request.userid))
            .ok_or_else(|| Refusal::invalid("could not parse python-style slice expression"))?;
        let ids: Vec<String> = indices
            .take(ANSWER_MAX + 1)
            .filter_map(|index| self.history.newest(request.userid, index))
            .map(|id| id.to_string())
            .collect();
        if ids.len() > ANSWER_MAX {
            return Err(Refusal {
                errnum: E2BIG,
                text: format!("the slice has more than {ANSWER_MAX} jobs: ask for a part of it"),
            });
        }
        Ok(format!("{{\"jobs\":[{}]}}", ids.join(",")))
    }
}

export_jobtap!(Plugin);

#[cfg(test)]
mod tests {
    use super::*;
    use flux_policy_sdk::fake::{FakeHost, FakeJob};

    #[test]
    fn own_jobs_newest_first() {
        let host = FakeHost::default();
        let mut plugin = Plugin::configure(&host).unwrap();
        plugin.known(&host, &[(1, 7), (5, 7), (6, 8)]);
        let job = FakeJob {
            id: 9,
            userid: 7,
            ..FakeJob::default()
        };
        plugin.new_job(&host, &job, false);
        plugin.new_job(&host, &job, true);
        let ask = |plugin: &mut Plugin, userid: u32, payload: &str| {
            let request = Request {
                method: "get",
                payload,
                userid,
                rolemask: 2,
            };
            plugin.request(&host, &request)
        };
        assert_eq!(
            ask(&mut plugin, 7, r#"{"slice":"[:]"}"#).unwrap(),
            r#"{"jobs":[9,5,1]}"#
        );
        plugin.removed(&host, 5);
        assert_eq!(
            ask(&mut plugin, 7, r#"{"slice":"[-1:]"}"#).unwrap(),
            r#"{"jobs":[1]}"#
        );
        assert_eq!(
            ask(&mut plugin, 9, r#"{"slice":"[:]"}"#).unwrap(),
            r#"{"jobs":[]}"#
        );
        assert_eq!(ask(&mut plugin, 7, r#"{"slice":"x"}"#).unwrap_err().errnum, 22);
        assert_eq!(ask(&mut plugin, 7, "").unwrap_err().errnum, EPROTO);
    }
}
