//! Which fields can a `flux jobs` format name, what are their headings, and what must be asked for to show them?

use std::sync::Mutex;

use flux_formats::jobid::{Encoding, JobId};
use flux_formats::jobstate::{JobResult, JobState};
use serde_json::Value;

use super::record::Record;
use crate::common::format::{Cell, Fields};
use crate::common::jobid::use_ascii;
use crate::common::uri::local_form;
use crate::common::user::Names;

/// A field of the table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Field {
    /// The job id in one encoding.
    Id(Encoding),
    /// A field by its name in [`SIMPLE`].
    Simple(&'static str),
    /// Something in the annotations.
    Annotation(String),
    /// Something that the job's instance tells, by the name after `instance.`.
    Instance(String),
}

/// Name, heading, attributes that job-list must send.
const SIMPLE: &[(&str, &str, &[&str])] = &[
    ("userid", "UID", &["userid"]),
    ("username", "USER", &["userid"]),
    ("urgency", "URG", &["urgency"]),
    ("priority", "PRI", &["priority"]),
    ("state", "STATE", &["state"]),
    ("state_single", "S", &["state"]),
    ("state_emoji", "STATE", &["state"]),
    ("name", "NAME", &["name"]),
    ("cwd", "CWD", &["cwd"]),
    ("queue", "QUEUE", &["queue"]),
    ("project", "PROJECT", &["project"]),
    ("bank", "BANK", &["bank"]),
    ("ntasks", "NTASKS", &["ntasks"]),
    ("ncores", "NCORES", &["ncores"]),
    ("duration", "DURATION", &["duration"]),
    ("nnodes", "NNODES", &["nnodes"]),
    ("ranks", "RANKS", &["ranks"]),
    ("nodelist", "NODELIST", &["nodelist"]),
    ("expiration", "EXPIRATION", &["expiration", "state", "result"]),
    ("t_remaining", "T_REMAINING", &["expiration", "state", "result"]),
    ("success", "SUCCESS", &["success"]),
    ("result", "RESULT", &["result"]),
    ("result_abbrev", "RS", &["result"]),
    ("result_emoji", "RESULT", &["result"]),
    ("t_submit", "T_SUBMIT", &["t_submit"]),
    ("t_depend", "T_DEPEND", &["t_depend"]),
    ("t_priority", "T_PRIORITY", &["t_priority"]),
    ("t_sched", "T_SCHED", &["t_sched"]),
    ("t_run", "T_RUN", &["t_run"]),
    ("t_cleanup", "T_CLEANUP", &["t_cleanup"]),
    ("t_inactive", "T_INACTIVE", &["t_inactive"]),
    ("runtime", "RUNTIME", &["t_run", "t_cleanup"]),
    ("status", "STATUS", &["state", "result"]),
    ("status_abbrev", "ST", &["state", "result"]),
    ("status_emoji", "STATUS", &["state", "result"]),
    ("waitstatus", "WSTATUS", &["waitstatus"]),
    (
        "returncode",
        "RC",
        &["waitstatus", "result", "exception_occurred", "state"],
    ),
    (
        "exception.occurred",
        "EXCEPTION-OCCURRED",
        &["exception_occurred"],
    ),
    (
        "exception.severity",
        "EXCEPTION-SEVERITY",
        &["exception_severity"],
    ),
    ("exception.type", "EXCEPTION-TYPE", &["exception_type"]),
    ("exception.note", "EXCEPTION-NOTE", &["exception_note"]),
    ("dependencies", "DEPENDENCIES", &["dependencies"]),
    (
        "contextual_info",
        "INFO",
        &[
            "state",
            "nodelist",
            "dependencies",
            "annotations",
            "urgency",
            "priority",
        ],
    ),
    (
        "contextual_time",
        "TIME",
        &["state", "t_run", "t_cleanup", "duration"],
    ),
    (
        "inactive_reason",
        "INACTIVE-REASON",
        &[
            "state",
            "result",
            "waitstatus",
            "exception_occurred",
            "exception_severity",
            "exception_type",
            "exception_note",
        ],
    ),
    ("uri", "URI", &["annotations"]),
    ("uri.local", "URI", &["annotations"]),
];

/// Returns true when instances must be asked to show some fields.
pub(crate) fn needs_instance<'f>(mut fields: impl Iterator<Item = &'f Field>) -> bool {
    fields.any(|field| matches!(field, Field::Instance(_)))
}

/// Returns the attributes that job-list must send for some fields, each once.
pub(crate) fn attrs<'f>(fields: impl Iterator<Item = &'f Field>, colored: bool) -> Vec<&'static str> {
    // Colours follow from the result, and whether the job is an instance.
    let mut attrs: Vec<&'static str> = if colored {
        vec!["state", "result", "annotations"]
    } else {
        Vec::new()
    };
    for field in fields {
        let needed: &[&'static str] = match field {
            Field::Id(_) => &[],
            Field::Annotation(_) => &["annotations"],
            Field::Instance(_) => &["annotations", "state", "userid"],
            Field::Simple(name) => SIMPLE
                .iter()
                .find(|(known, _, _)| known == name)
                .map_or(&[], |(_, _, attrs)| *attrs),
        };
        for attr in needed {
            if !attrs.contains(attr) {
                attrs.push(attr);
            }
        }
    }
    attrs
}

/// The fields of jobs at one moment.
#[derive(Debug)]
pub(crate) struct JobFields {
    now: f64,
    ascii: bool,
    names: Mutex<Names>,
}

impl JobFields {
    /// Returns the fields as they are at `now`.
    pub(crate) fn new(now: f64) -> Self {
        JobFields {
            now,
            ascii: use_ascii(),
            names: Mutex::default(),
        }
    }

    /// Returns the moment.
    pub(crate) fn now(&self) -> f64 {
        self.now
    }

    fn username(&self, uid: u32) -> Cell {
        match self.names.lock() {
            Ok(mut names) => names.get(uid).into(),
            // a thread has panicked while it looked a name up
            Err(_) => uid.to_string().into(),
        }
    }

    fn simple(&self, name: &str, job: &Record) -> Cell {
        match name {
            "userid" => int(job.userid.map(i64::from)),
            "username" => job.userid.map_or(Cell::None, |uid| self.username(uid)),
            "urgency" => int(job.urgency),
            "priority" => int(job.priority),
            "state" => job.job_state().map_or(Cell::None, |state| state.name().into()),
            "state_single" => job
                .job_state()
                .map_or(Cell::None, |state| state.letter().to_string().into()),
            "state_emoji" => job
                .job_state()
                .map_or(Cell::None, |state| state_emoji(state).into()),
            "name" => text(&job.name),
            "cwd" => text(&job.cwd),
            "queue" => text(&job.queue),
            "project" => text(&job.project),
            "bank" => text(&job.bank),
            "ntasks" => int(job.ntasks),
            "ncores" => int(job.ncores),
            "duration" => float(job.duration),
            "nnodes" => int(job.nnodes),
            "ranks" => text(&job.ranks),
            "nodelist" => text(&job.nodelist),
            "expiration" => float(job.expiration),
            "t_remaining" => Cell::Float(job.t_remaining(self.now)),
            "success" => job.success.map_or(Cell::None, boolean),
            "result" => job.job_result().map_or(Cell::None, |result| result.name().into()),
            "result_abbrev" => job
                .job_result()
                .map_or(Cell::None, |result| result.abbreviation().into()),
            "result_emoji" => job
                .job_result()
                .map_or(Cell::None, |result| result_emoji(result).into()),
            "t_submit" => time(job.t_submit),
            "t_depend" => time(job.t_depend),
            "t_priority" => time(job.t_priority),
            "t_sched" => time(job.t_sched),
            "t_run" => time(job.t_run),
            "t_cleanup" => time(job.t_cleanup),
            "t_inactive" => time(job.t_inactive),
            "runtime" => Cell::Float(job.runtime(self.now)),
            "status" => job.status().into(),
            "status_abbrev" => job.status_abbrev().into(),
            "status_emoji" => match (job.job_state(), job.job_result()) {
                (Some(JobState::Inactive), Some(result)) => result_emoji(result).into(),
                (Some(state), _) => state_emoji(state).into(),
                (None, _) => Cell::None,
            },
            "waitstatus" => int(job.waitstatus.map(i64::from)),
            "returncode" => int(job.returncode()),
            "exception.occurred" => job.exception_occurred.map_or(Cell::None, boolean),
            "exception.severity" => int(job.exception_severity),
            "exception.type" => text(&job.exception_type),
            "exception.note" => text(&job.exception_note),
            "dependencies" => job.dependency_text(self.now).into(),
            "contextual_info" => job.contextual_info(self.now).into(),
            "contextual_time" => Cell::Float(job.contextual_time(self.now)),
            "inactive_reason" => job.inactive_reason().into(),
            "uri" => uri(job, false),
            "uri.local" => uri(job, true),
            _ => Cell::None,
        }
    }
}

fn text(value: &Option<String>) -> Cell {
    value.as_deref().map_or(Cell::None, Cell::from)
}

fn int(value: Option<i64>) -> Cell {
    value.map_or(Cell::None, Cell::Int)
}

fn float(value: Option<f64>) -> Cell {
    value.map_or(Cell::None, Cell::Float)
}

/// A time that has not come yet is 0, as conversions expect it.
fn time(value: Option<f64>) -> Cell {
    Cell::Float(value.unwrap_or(0.0))
}

fn boolean(value: bool) -> Cell {
    if value { "True".into() } else { "False".into() }
}

fn annotation(job: &Record, path: &str) -> Cell {
    match job.annotation(path) {
        None | Some(Value::Null) => Cell::None,
        Some(Value::String(text)) => text.as_str().into(),
        Some(Value::Number(number)) => match number.as_i64() {
            Some(whole) => Cell::Int(whole),
            None => float(number.as_f64()),
        },
        Some(other) => other.to_string().into(),
    }
}

fn uri(job: &Record, local: bool) -> Cell {
    let Some(uri) = job.annotation("user.uri").and_then(Value::as_str) else {
        return Cell::None;
    };
    if local || std::env::var_os("FLUX_URI_RESOLVE_LOCAL").is_some() {
        local_form(uri).map_or(Cell::None, Cell::from)
    } else {
        uri.into()
    }
}

fn state_emoji(state: JobState) -> &'static str {
    match state {
        JobState::New | JobState::Depend => "🔵",
        JobState::Priority => "🟣",
        JobState::Sched => "📅",
        JobState::Run => "🏃",
        JobState::Cleanup => "🧹",
        JobState::Inactive => "💀",
    }
}

fn result_emoji(result: JobResult) -> &'static str {
    match result {
        JobResult::Completed => "✅",
        JobResult::Failed => "❌",
        JobResult::Canceled => "🗑️",
        JobResult::Timeout => "⌛",
    }
}

impl Fields for JobFields {
    type Field = Field;
    type Row = Record;

    fn resolve(&self, name: &str) -> Option<(Field, String)> {
        if let Some(encoding) = name.strip_prefix("id.").and_then(Encoding::from_name) {
            return Some((Field::Id(encoding), "JOBID".to_owned()));
        }
        if name == "id" {
            return Some((Field::Id(Encoding::F58), "JOBID".to_owned()));
        }
        if let Some((known, heading, _)) = SIMPLE.iter().find(|(known, _, _)| *known == name) {
            return Some((Field::Simple(known), (*heading).to_owned()));
        }
        if let Some(rest) = name.strip_prefix("instance.") {
            let heading = super::instance::heading(rest)?;
            return Some((Field::Instance(rest.to_owned()), heading.to_owned()));
        }
        let path = name.strip_prefix("annotations.").unwrap_or(name);
        let known = ["sched", "user"]
            .iter()
            .any(|root| path == *root || path.starts_with(&format!("{root}.")));
        if !known && path == name {
            return None;
        }
        let heading = match path {
            "sched.t_estimate" => "T_ESTIMATE".to_owned(),
            "sched.reason_pending" => "REASON".to_owned(),
            "sched.resource_summary" => "RESOURCES".to_owned(),
            other => other.to_uppercase(),
        };
        Some((Field::Annotation(path.to_owned()), heading))
    }

    fn value(&self, field: &Field, job: &Record) -> Cell {
        match field {
            // the enclosing instance in a tree has no id when it is no job
            Field::Id(_) if job.id == 0 => ".".into(),
            Field::Id(Encoding::F58) => JobId(job.id).f58(self.ascii).into(),
            Field::Id(encoding) => JobId(job.id).encode(*encoding).into(),
            Field::Simple(name) => self.simple(name, job),
            Field::Annotation(path) => annotation(job, path),
            Field::Instance(name) => job
                .instance
                .as_ref()
                .map_or(Cell::None, |instance| instance.field(name)),
        }
    }

    fn paint(&self, job: &Record) -> Option<&'static str> {
        if job.job_state() != Some(JobState::Inactive) {
            return job.annotation("user.uri").map(|_| "\x1b[01;34m");
        }
        Some(match job.job_result()? {
            JobResult::Completed => "\x1b[01;32m",
            JobResult::Canceled => "\x1b[37m",
            JobResult::Failed | JobResult::Timeout => "\x1b[01;31m",
        })
    }
}
