//! Which checks does each wish have to pass?

use super::super::JobManager;
use super::super::annotate;
use super::super::event::{Event, Exception};
use super::super::job::{Alloc, Asked, Job, PRIORITY_MAX, URGENCY_EXPEDITE, URGENCY_HOLD};
use super::super::state::State;
use super::apply::inval;
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::eventlog::EventRef;
use flux_formats::jobid::JobId;
use flux_formats::resource_set::ResourceSet;
use serde_json::{Map, Value};
use std::rc::Rc;

/// Longest name of an event that a plugin posts.
const NAME_BYTES_MAX: usize = 64;
/// Most events that plugins post on a job: one that answers its own events would go on for ever.
const POSTS_MAX: u16 = 1000;

impl JobManager {
    pub(super) fn wish_active(&self, id: JobId) -> Result<&Job, RpcError> {
        self.find(id, errno::ENOENT, "unknown job")
            .map_err(|err| RpcError::new(err.errnum, format!("{id}: {}", err.text)))
    }

    pub(super) fn wish_event(&mut self, cx: &mut Cx<'_>, id: JobId, event: &Event) -> Result<(), RpcError> {
        self.wish_active(id)?;
        self.post(cx, id, event)
            .map_err(|err| RpcError::new(err.errnum, format!("{id}: {}", err.text)))
    }

    pub(super) fn wish_dependency(
        &mut self,
        cx: &mut Cx<'_>,
        id: JobId,
        description: String,
        add: bool,
    ) -> Result<(), RpcError> {
        let job = self.wish_active(id)?;
        let (has, state) = (job.dependencies.contains(&description), job.state);
        if add == has {
            return Ok(());
        }
        if add && !matches!(state, State::New | State::Depend) {
            return Err(inval(format!("{id}: {description}: the job is past DEPEND")));
        }
        let event = if add {
            Event::DependencyAdd { description }
        } else {
            Event::DependencyRemove { description }
        };
        self.wish_event(cx, id, &event)
    }

    /// Gives a job in PRIORITY or SCHED this priority, as far as its urgency lets it.
    pub(super) fn set_priority(&mut self, cx: &mut Cx<'_>, id: JobId, priority: u64) {
        let Some(job) = self.active.get_mut(&id) else {
            return;
        };
        let priority = match job.urgency {
            URGENCY_HOLD => 0,
            URGENCY_EXPEDITE => PRIORITY_MAX,
            _ => priority.min(PRIORITY_MAX),
        };
        match job.state {
            State::Priority => {
                job.tap.priority = Asked::Got(flux_policy::Priority::Value(priority));
                self.drive(cx, id);
            }
            State::Sched if job.priority != Some(priority) => {
                self.post_sure(cx, id, &Event::Priority { priority });
            }
            _ => {}
        }
    }

    pub(super) fn wish_annotate(&mut self, cx: &mut Cx<'_>, id: JobId, text: &str) -> Result<(), RpcError> {
        let changes: Map<String, Value> = object(text)?;
        self.wish_active(id)?;
        let Some(job) = self.active.get_mut(&id) else {
            return Ok(());
        };
        annotate::merge(&mut job.annotations, &changes);
        let quiet = job.state == State::New;
        let annotations = (!job.annotations.is_empty()).then(|| job.annotations.clone());
        // who follows the journal hears nothing of a job before its first state
        if !quiet {
            self.post_sure(cx, id, &Event::Annotations { annotations });
        }
        Ok(())
    }

    pub(super) fn wish_raise(
        &mut self,
        cx: &mut Cx<'_>,
        id: JobId,
        kind: String,
        severity: u8,
        note: String,
    ) -> Result<(), RpcError> {
        super::super::raise::check_exception(severity.into(), &kind)?;
        self.wish_active(id)?;
        let exception = Exception {
            kind,
            severity,
            note,
            userid: Some(cx.owner),
            wait_status: None,
            from_exec: false,
        };
        self.raise(cx, id, exception)
            .map_err(|err| RpcError::new(err.errnum, format!("{id}: {}", err.text)))
    }

    pub(super) fn wish_flag(&mut self, cx: &mut Cx<'_>, id: JobId, flag: String) -> Result<(), RpcError> {
        // names of RFC 21 and of flux-core; others would be lost at the next restart
        if !matches!(flag.as_str(), "debug" | "immutable" | "alloc-bypass") {
            return Err(inval(format!("unknown flag {flag:?}")));
        }
        self.wish_event(cx, id, &Event::SetFlags { flags: vec![flag] })
    }

    /// Posts an event; `as_owner` when the instance owner asked the plugin for it.
    pub(super) fn wish_post(
        &mut self,
        cx: &mut Cx<'_>,
        id: JobId,
        name: &str,
        context: &str,
        as_owner: bool,
    ) -> Result<(), RpcError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(plain) {
            return Err(inval(format!("{name:?} is no name of an event")));
        }
        let context = if context.is_empty() {
            None
        } else {
            Some(object::<Map<String, Value>>(context)?)
        };
        let other = Event::Other {
            name: name.to_owned(),
            context,
        };
        let mut line = String::new();
        other
            .write(&mut line, 1.0)
            .map_err(|err| inval(err.to_string()))?;
        let decoded = EventRef::decode(line.trim_end()).map_err(|err| inval(err.to_string()))?;
        let event = Event::parse(&decoded).map_err(|err| inval(format!("{name}: {err}")))?;
        let event = match event {
            Event::Alloc { .. } | Event::Submit { .. } | Event::Free | Event::Clean => {
                return Err(inval(format!("event {name} cannot be posted")));
            }
            Event::Urgency { urgency, .. } if !as_owner => Event::Urgency {
                userid: cx.owner,
                urgency,
            },
            Event::Exception(exception) => {
                self.wish_active(id)?;
                return self.raise(cx, id, exception);
            }
            Event::Memo { .. }
            | Event::SetFlags { .. }
            | Event::JobspecUpdate { .. }
            | Event::DependencyAdd { .. }
            | Event::DependencyRemove { .. }
            | Event::Other { .. } => event,
            event if as_owner => event,
            other => return Err(inval(format!("event {} cannot be posted", other.name()))),
        };
        self.wish_active(id)?;
        if let Some(job) = self.active.get_mut(&id) {
            if job.tap.posts >= POSTS_MAX {
                return Err(inval(format!("{id}: more than {POSTS_MAX} events of plugins")));
            }
            job.tap.posts += 1;
        }
        self.wish_event(cx, id, &event)
    }

    pub(super) fn wish_update(&mut self, cx: &mut Cx<'_>, id: JobId, updates: &str) -> Result<(), RpcError> {
        let updates: Map<String, Value> = object(updates)?;
        if !updates.keys().all(|key| key.starts_with("attributes.")) {
            return Err(inval(format!("{id}: only attributes can be changed")));
        }
        self.wish_event(cx, id, &Event::JobspecUpdate { updates })
    }

    pub(super) fn wish_prolog(
        &mut self,
        cx: &mut Cx<'_>,
        id: JobId,
        description: String,
    ) -> Result<(), RpcError> {
        let state = self.wish_active(id)?.state;
        if state.bit() > State::Run.bit() {
            return Err(inval(format!(
                "{id}: prolog-start is not possible in {}",
                state.name()
            )));
        }
        self.wish_event(cx, id, &Event::PrologStart { description })
    }

    pub(super) fn wish_epilog(
        &mut self,
        cx: &mut Cx<'_>,
        id: JobId,
        description: String,
    ) -> Result<(), RpcError> {
        let state = self.wish_active(id)?.state;
        if state != State::Cleanup {
            return Err(inval(format!(
                "{id}: epilog-start is not possible in {}",
                state.name()
            )));
        }
        self.wish_event(cx, id, &Event::EpilogStart { description })
    }

    pub(super) fn wish_finish(&mut self, cx: &mut Cx<'_>, id: JobId, event: &Event) -> Result<(), RpcError> {
        if self.wish_active(id)?.perilogs == 0 {
            return Err(inval(format!("{id}: no prolog or epilog runs")));
        }
        self.wish_event(cx, id, event)
    }

    /// Gives a job resources that the scheduler does not know of.
    pub(super) fn wish_resources(&mut self, cx: &mut Cx<'_>, id: JobId, r: String) -> Result<(), RpcError> {
        let job = self.wish_active(id)?;
        if job.userid != cx.owner {
            return Err(inval(format!(
                "{id}: only jobs of the instance owner may be given resources"
            )));
        }
        if job.state != State::Sched || job.r.is_some() || job.alloc != Alloc::None {
            return Err(inval(format!("{id}: R can be set once, in SCHED")));
        }
        let mut value: Value = serde_json::from_str(&r).map_err(|err| inval(format!("{id}: R: {err}")))?;
        ResourceSet::from_value(&value).map_err(|err| inval(format!("{id}: R: {err}")))?;
        if let Value::Object(object) = &mut value {
            object.shift_remove("scheduling");
        }
        if let Some(job) = self.active.get_mut(&id) {
            job.r = Some(Rc::new(value));
        }
        self.batch(cx).put(id, "R", r);
        let event = Event::Alloc {
            annotations: None,
            bypass: true,
        };
        self.wish_event(cx, id, &event)
    }
}

/// Reads a JSON object.
fn object<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, RpcError> {
    serde_json::from_str(text).map_err(|err| inval(format!("not a JSON object: {err}")))
}
