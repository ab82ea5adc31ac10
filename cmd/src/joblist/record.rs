//! What does job-list tell about a job, and what follows from it? (RFC 43)

use flux_formats::jobid::JobId;
use flux_formats::jobstate::{JobResult, JobState, exit_code};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::common::jobid::f58;
use crate::common::user::Names;

/// A job as job-list sends it; keys that were not asked for, or do not apply yet, are absent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    pub(crate) id: u64,
    pub(crate) userid: Option<u32>,
    pub(crate) urgency: Option<i64>,
    pub(crate) priority: Option<i64>,
    pub(crate) t_submit: Option<f64>,
    pub(crate) t_depend: Option<f64>,
    pub(crate) t_priority: Option<f64>,
    pub(crate) t_sched: Option<f64>,
    pub(crate) t_run: Option<f64>,
    pub(crate) t_cleanup: Option<f64>,
    pub(crate) t_inactive: Option<f64>,
    pub(crate) state: Option<u32>,
    pub(crate) name: Option<String>,
    pub(crate) cwd: Option<String>,
    pub(crate) queue: Option<String>,
    pub(crate) project: Option<String>,
    pub(crate) bank: Option<String>,
    pub(crate) ntasks: Option<i64>,
    pub(crate) ncores: Option<i64>,
    pub(crate) nnodes: Option<i64>,
    pub(crate) duration: Option<f64>,
    pub(crate) ranks: Option<String>,
    pub(crate) nodelist: Option<String>,
    pub(crate) expiration: Option<f64>,
    pub(crate) waitstatus: Option<i32>,
    pub(crate) success: Option<bool>,
    pub(crate) exception_occurred: Option<bool>,
    pub(crate) exception_severity: Option<i64>,
    pub(crate) exception_type: Option<String>,
    pub(crate) exception_note: Option<String>,
    pub(crate) result: Option<u32>,
    pub(crate) annotations: Option<Map<String, Value>>,
    pub(crate) dependencies: Option<Vec<String>>,
    /// What the instance that the job runs tells, when it was asked.
    #[serde(skip)]
    pub(crate) instance: Option<super::instance::Instance>,
}

impl Record {
    pub(crate) fn job_state(&self) -> Option<JobState> {
        JobState::from_bit(self.state?)
    }

    pub(crate) fn job_result(&self) -> Option<JobResult> {
        JobResult::from_bit(self.result?)
    }

    fn is_in(&self, mask: u32) -> bool {
        self.state.is_some_and(|state| state & mask != 0)
    }

    /// Returns the result of an inactive job, else the state.
    pub(crate) fn status(&self) -> &'static str {
        match (self.job_state(), self.job_result()) {
            (Some(JobState::Inactive), Some(result)) => result.name(),
            (Some(state), _) => state.name(),
            (None, _) => "",
        }
    }

    /// Returns the abbreviation of [`Record::status`].
    pub(crate) fn status_abbrev(&self) -> String {
        match (self.job_state(), self.job_result()) {
            (Some(JobState::Inactive), Some(result)) => result.abbreviation().to_owned(),
            (Some(state), _) => state.letter().to_string(),
            (None, _) => String::new(),
        }
    }

    /// Returns how long the job has run, in seconds.
    pub(crate) fn runtime(&self, now: f64) -> f64 {
        let Some(begin) = self.t_run else { return 0.0 };
        match self.t_cleanup {
            Some(end) => end - begin,
            None => (now - begin).max(0.0),
        }
    }

    /// Returns the requested duration of a pending job, else the time it has run.
    pub(crate) fn contextual_time(&self, now: f64) -> f64 {
        if self.is_in(JobState::PENDING) {
            self.duration.unwrap_or(0.0)
        } else {
            self.runtime(now)
        }
    }

    /// Returns the time left before a running job ends.
    pub(crate) fn t_remaining(&self, now: f64) -> f64 {
        let expiration = self.expiration.unwrap_or(0.0);
        if self.is_in(JobState::RUNNING) && expiration > 0.0 {
            (expiration - now).max(0.0)
        } else {
            0.0
        }
    }

    /// Returns the exit code; -128 for a job that ended by an exception before it ran.
    pub(crate) fn returncode(&self) -> Option<i64> {
        if !self.is_in(JobState::Inactive.bit()) {
            return None;
        }
        match self.waitstatus {
            Some(status) => Some(i64::from(exit_code(status))),
            None if self.exception_occurred == Some(true) => Some(-128),
            None => None,
        }
    }

    /// Returns the URI of the instance that a running job is.
    pub(crate) fn instance_uri(&self) -> Option<String> {
        let uri = self.annotation("user.uri")?.as_str()?;
        self.is_in(JobState::Run.bit()).then(|| uri.to_owned())
    }

    /// Returns the value at a dotted path of the annotations.
    pub(crate) fn annotation(&self, path: &str) -> Option<&Value> {
        let mut keys = path.split('.');
        let first = self.annotations.as_ref()?.get(keys.next()?)?;
        keys.try_fold(first, |value, key| value.get(key))
    }

    /// Returns what a reader wants to know next: where the job runs, or why it does not.
    pub(crate) fn contextual_info(&self, now: f64) -> String {
        match self.job_state() {
            Some(JobState::Priority) => "priority-wait".to_owned(),
            Some(JobState::Depend) => format!("depends:{}", self.dependency_text(now)),
            Some(JobState::Sched) => self.sched_info(now),
            Some(_) => self.nodelist.clone().unwrap_or_default(),
            None => String::new(),
        }
    }

    /// Returns the dependencies for people: a begin time is shown as such.
    pub(crate) fn dependency_text(&self, now: f64) -> String {
        let list = self.dependencies.as_deref().unwrap_or(&[]);
        let shown: Vec<String> = list
            .iter()
            .map(|dependency| {
                let time = dependency
                    .strip_prefix("begin-time=")
                    .and_then(|time| time.parse::<f64>().ok());
                time.map_or_else(|| dependency.clone(), |time| begin_time(time, now))
            })
            .collect();
        shown.join(",")
    }

    fn sched_info(&self, now: f64) -> String {
        if self.urgency == Some(0) || self.priority == Some(0) {
            return "held".to_owned();
        }
        if let Some(estimate) = self.annotation("sched.t_estimate").and_then(Value::as_f64) {
            let wait = estimate - now;
            let eta = if wait < 0.0 {
                "now".to_owned()
            } else {
                crate::common::format::short_fsd(wait)
            };
            return format!("eta:{eta}");
        }
        match self.annotation("sched.reason_pending") {
            Some(Value::String(reason)) => reason.clone(),
            _ => String::new(),
        }
    }

    /// Returns in a few words why the job ended.
    pub(crate) fn inactive_reason(&self) -> String {
        if !self.is_in(JobState::Inactive.bit()) {
            return String::new();
        }
        let note = self.exception_note.as_deref().unwrap_or("");
        match self.job_result() {
            Some(JobResult::Canceled) if note.is_empty() => return "Canceled".to_owned(),
            Some(JobResult::Canceled) => return format!("Canceled: {note}"),
            Some(JobResult::Timeout) => return "Timeout".to_owned(),
            _ => {}
        }
        let Some(status) = self.waitstatus else {
            let kind = self.exception_type.as_deref().unwrap_or("");
            return if kind.is_empty() {
                String::new()
            } else {
                format!("Exception: type={kind} {note}")
            };
        };
        match exit_code(status) {
            126 => "permission denied".to_owned(),
            127 => "command not found".to_owned(),
            code if code > 128 => {
                flux_formats::signal::text(code - 128).map_or_else(|| format!("Exit {code}"), str::to_owned)
            }
            code => format!("Exit {code}"),
        }
    }

    /// Returns the job as `--json` shows it.
    pub(crate) fn to_json(&self, now: f64, names: &mut Names) -> Value {
        let mut map = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(key.to_owned(), value);
            }
        };
        let float = |value: Option<f64>| value.filter(|value| *value > 0.0).map(Value::from);
        let text = |value: &Option<String>| value.clone().filter(|text| !text.is_empty()).map(Value::from);
        let int = |value: Option<i64>| value.map(Value::from);
        put("t_depend", float(self.t_depend));
        put("t_priority", float(self.t_priority));
        put("t_sched", float(self.t_sched));
        put("t_run", float(self.t_run));
        put("t_cleanup", float(self.t_cleanup));
        put("t_inactive", float(self.t_inactive));
        put("duration", self.duration.map(Value::from));
        put("expiration", float(self.expiration));
        put("name", text(&self.name));
        put("cwd", text(&self.cwd));
        put("queue", text(&self.queue));
        put("project", text(&self.project));
        put("bank", text(&self.bank));
        put("ntasks", int(self.ntasks));
        put("ncores", int(self.ncores));
        put("nnodes", int(self.nnodes));
        put("priority", int(self.priority));
        put("ranks", text(&self.ranks));
        put("nodelist", text(&self.nodelist));
        put("success", self.success.map(Value::from));
        put(
            "result",
            self.job_result().map(|result| Value::from(result.name())),
        );
        put("waitstatus", self.waitstatus.map(Value::from));
        put("id", Some(Value::from(self.id)));
        put("t_submit", self.t_submit.map(Value::from));
        put("state", self.job_state().map(|state| Value::from(state.name())));
        put("username", self.userid.map(|uid| Value::from(names.get(uid))));
        put("userid", self.userid.map(Value::from));
        put("urgency", int(self.urgency));
        put("runtime", self.t_run.map(|_| Value::from(self.runtime(now))));
        put("status", Some(Value::from(self.status())));
        put("returncode", int(self.returncode()));
        put(
            "dependencies",
            Some(json!(self.dependencies.as_deref().unwrap_or(&[]))),
        );
        put("jobid", Some(Value::from(f58(JobId(self.id)))));
        put(
            "annotations",
            Some(Value::Object(self.annotations.clone().unwrap_or_default())),
        );
        let mut exception = json!({ "occurred": self.exception_occurred.unwrap_or(false) });
        if let (Some(true), Some(object)) = (self.exception_occurred, exception.as_object_mut()) {
            object.insert("severity".to_owned(), json!(self.exception_severity));
            object.insert("type".to_owned(), json!(self.exception_type));
            object.insert("note".to_owned(), json!(self.exception_note));
        }
        put("exception", Some(exception));
        Value::Object(map)
    }
}

/// Shows when a job may begin; the day only when it is not today.
fn begin_time(time: f64, now: f64) -> String {
    use crate::common::time::strftime;
    let today = strftime(time, "%F") == strftime(now, "%F");
    let text = strftime(time, if today { "begin@%H:%M" } else { "begin@%b%d-%H:%M" });
    match strftime(time, "%S") {
        seconds if seconds == "00" => text,
        seconds => format!("{text}:{seconds}"),
    }
}
