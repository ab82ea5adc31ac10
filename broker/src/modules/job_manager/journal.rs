//! Who hears of every event? Local services by typed calls, others by `job-manager.events-journal`.

use super::JobManager;
use super::api::{Deliver, JobEvent};
use super::commit::After;
use super::job::Job;
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use flux_formats::rpc::job_manager::{CancelRequest, EventsJournalRequest};
use serde_json::Value;
use std::fmt::Write;
use std::rc::Rc;

/// Inactive jobs read at a time for a listener that wants them all.
const WINDOW: usize = 64;

/// Subscribers and what they were sent.
#[derive(Default)]
pub(super) struct Journal {
    subscribers: Vec<Deliver>,
    listeners: Vec<Listener>,
    event_count: u64,
    /// Number of the last event that was delivered.
    delivered: u64,
}

/// Takes ids and ends of inactive jobs.
pub(super) type TakeEnds = Box<dyn FnOnce(&mut Cx<'_>, Vec<(JobId, f64)>)>;

/// A streaming request.
struct Listener {
    request: Message,
    filter: Filter,
    /// Events that wait until the backlog is sent.
    held: Option<Vec<JobEvent>>,
}

/// Which events a listener wants.
#[derive(Clone, Default)]
struct Filter {
    allow: Option<Value>,
    deny: Option<Value>,
}

impl Filter {
    fn passes(&self, name: &str) -> bool {
        self.allow.as_ref().is_none_or(|allow| allow.get(name).is_some())
            && self.deny.as_ref().is_none_or(|deny| deny.get(name).is_none())
    }
}

/// What remains of a backlog of inactive jobs.
struct Backlog {
    request: Message,
    filter: Filter,
    ids: std::vec::IntoIter<JobId>,
    /// Responses about active jobs, to be sent after those about inactive ones.
    active: Vec<Bytes>,
    outstanding: usize,
}

impl Journal {
    pub(super) fn listeners(&self) -> usize {
        self.listeners.len() + self.subscribers.len()
    }

    pub(super) fn event_count(&self) -> u64 {
        self.event_count
    }

    pub(super) fn disconnect(&mut self, sender: Option<&Bytes>) {
        self.listeners
            .retain(|listener| listener.request.sender() != sender);
    }

    /// Counts events up to this number as delivered: they were restored from the KVS.
    pub(super) fn skip_to(&mut self, sequence: u64) {
        self.delivered = sequence;
    }

    fn find(&mut self, request: &Message) -> Option<&mut Listener> {
        self.listeners.iter_mut().find(|listener| {
            listener.request.sender() == request.sender() && listener.request.matchtag() == request.matchtag()
        })
    }
}

impl JobManager {
    /// Sends committed events to everyone.
    pub(super) fn deliver(&mut self, cx: &mut Cx<'_>, events: Vec<JobEvent>) {
        let Some(last) = events.last() else { return };
        self.journal.delivered = last.sequence;
        self.journal.event_count += u64::try_from(events.len()).unwrap_or(0);
        for listener in &mut self.journal.listeners {
            match &mut listener.held {
                Some(held) => held.extend(events.iter().cloned()),
                None => send_events(cx, &listener.request, &listener.filter, &events),
            }
        }
        let events: Rc<[JobEvent]> = events.into();
        for deliver in &mut self.journal.subscribers {
            deliver(cx, events.clone());
        }
    }

    pub(super) fn on_subscribe(&mut self, cx: &mut Cx<'_>, mut deliver: Deliver) {
        self.batch(cx).after(After::Call(Box::new(move |me, cx| {
            let delivered = me.journal.delivered;
            for job in me.active.values() {
                let events: Rc<[JobEvent]> = job
                    .events
                    .iter()
                    .filter(|event| event.sequence <= delivered)
                    .cloned()
                    .collect();
                if !events.is_empty() {
                    deliver(cx, events);
                }
            }
            me.journal.subscribers.push(deliver);
        })));
    }

    /// Tells a subscriber which jobs are inactive, at the same moment as [`JobManager::on_subscribe`] begins.
    pub(super) fn on_inactive_jobs(&mut self, cx: &mut Cx<'_>, done: TakeEnds) {
        self.batch(cx).after(After::Call(Box::new(move |me, cx| {
            let ends = me.inactive.ends();
            done(cx, ends);
        })));
    }

    pub(super) fn on_events_journal(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let EventsJournalRequest { allow, deny, full } = req.payload_json_or_empty()?;
        let refuse = |text: &str| Err(RpcError::new(errno::EPROTO, text));
        if !req.is_streaming() {
            return refuse("job-manager.events requires streaming RPC flag");
        }
        if allow.as_ref().is_some_and(|allow| !allow.is_object()) {
            return refuse("job-manager.events allow should be an object");
        }
        if deny.as_ref().is_some_and(|deny| !deny.is_object()) {
            return refuse("job-manager.events deny should be an object");
        }
        let (filter, full) = (Filter { allow, deny }, full.is_some_and(|full| full.0));
        let request = req.clone();
        self.batch(cx).after(After::Call(Box::new(move |me, cx| {
            me.begin_backlog(cx, request, filter, full)
        })));
        Ok(())
    }

    fn begin_backlog(&mut self, cx: &mut Cx<'_>, request: Message, filter: Filter, full: bool) {
        let delivered = self.journal.delivered;
        let active = self
            .active
            .values()
            .filter_map(|job| active_response(job, &filter, delivered))
            .collect();
        let ids: Vec<JobId> = if full {
            self.inactive.ids().collect()
        } else {
            Vec::new()
        };
        self.journal.listeners.push(Listener {
            request: request.clone(),
            filter: filter.clone(),
            held: Some(Vec::new()),
        });
        self.next_backlog(
            cx,
            Backlog {
                request,
                filter,
                ids: ids.into_iter(),
                active,
                outstanding: 0,
            },
        );
    }

    /// Reads the next inactive jobs, one window after the other; then sends the rest and goes live.
    fn next_backlog(&mut self, cx: &mut Cx<'_>, mut backlog: Backlog) {
        if self.journal.find(&backlog.request).is_none() {
            return; // the listener left
        }
        let window: Vec<JobId> = backlog.ids.by_ref().take(WINDOW).collect();
        if window.is_empty() {
            for payload in backlog.active {
                cx.respond_payload(&backlog.request, Some(payload));
            }
            cx.respond(&backlog.request, &serde_json::json!({"id": -1, "events": []}));
            let Some(listener) = self.journal.find(&backlog.request) else {
                return;
            };
            let held = listener.held.take().unwrap_or_default();
            send_events(cx, &backlog.request, &backlog.filter, &held);
            return;
        }
        backlog.outstanding = window.len();
        let shared = Rc::new(std::cell::RefCell::new(Some(backlog)));
        for id in window {
            let shared = shared.clone();
            self.read_parts(cx, id, move |me, cx, parts| {
                let Some(mut backlog) = shared.borrow_mut().take() else {
                    return;
                };
                if let Some([eventlog, jobspec, r]) = parts {
                    let payload = stored_response(id, &backlog.filter, &eventlog, &jobspec, &r);
                    cx.respond_payload(&backlog.request, Some(payload));
                }
                backlog.outstanding -= 1;
                if backlog.outstanding == 0 {
                    me.next_backlog(cx, backlog);
                } else {
                    shared.replace(Some(backlog));
                }
            });
        }
    }

    /// Reads eventlog, jobspec and R of a job from the KVS; `None` when there is no eventlog (it was purged).
    pub(super) fn read_parts(
        &mut self,
        cx: &mut Cx<'_>,
        id: JobId,
        done: impl FnOnce(&mut JobManager, &mut Cx<'_>, Option<[String; 3]>) + 'static,
    ) {
        let text = |result: Result<Bytes, RpcError>| result.map(|b| String::from_utf8_lossy(&b).into_owned());
        self.store.lookup(
            cx,
            &id.kvs_key("eventlog"),
            Box::new(move |me, cx, eventlog| {
                let Ok(eventlog) = text(eventlog) else {
                    done(me, cx, None);
                    return;
                };
                let then: super::ports::Stored<Bytes> = Box::new(move |me, cx, jobspec| {
                    let jobspec = text(jobspec).unwrap_or_default();
                    let last: super::ports::Stored<Bytes> = Box::new(move |me, cx, r| {
                        done(me, cx, Some([eventlog, jobspec, text(r).unwrap_or_default()]));
                    });
                    me.store.lookup(cx, &id.kvs_key("R"), last);
                });
                me.store.lookup(cx, &id.kvs_key("jobspec"), then);
            }),
        );
    }

    pub(super) fn on_events_journal_cancel(
        &mut self,
        cx: &mut Cx<'_>,
        req: &Message,
    ) -> Result<(), RpcError> {
        let CancelRequest { matchtag } = req.payload_json()?;
        let found = self.journal.listeners.iter().position(|listener| {
            listener.request.sender() == req.sender() && listener.request.matchtag() == matchtag
        });
        if let Some(at) = found {
            let listener = self.journal.listeners.remove(at);
            cx.fail(&listener.request, errno::ENODATA, "");
        }
        Ok(())
    }
}

/// Sends one response per event, as flux-core does.
fn send_events(cx: &mut Cx<'_>, request: &Message, filter: &Filter, events: &[JobEvent]) {
    for event in events.iter().filter(|event| filter.passes(&event.name)) {
        let jobspec = event.jobspec.as_deref().filter(|_| &*event.name == "submit");
        let r = event.r.as_deref().filter(|_| &*event.name == "alloc");
        let payload = response(
            event.id,
            std::iter::once(&*event.line),
            text_of(jobspec),
            text_of(r),
        );
        cx.respond_payload(request, Some(payload));
    }
}

fn text_of(value: Option<&Value>) -> String {
    value.map(Value::to_string).unwrap_or_default()
}

fn active_response(job: &Job, filter: &Filter, delivered: u64) -> Option<Bytes> {
    let seen = || job.events.iter().filter(|event| event.sequence <= delivered);
    seen().next()?;
    let lines = seen()
        .filter(|event| filter.passes(&event.name))
        .map(|event| &*event.line);
    Some(response(
        job.id,
        lines,
        job.jobspec.to_string(),
        text_of(job.r.as_deref()),
    ))
}

fn stored_response(id: JobId, filter: &Filter, eventlog: &str, jobspec: &str, r: &str) -> Bytes {
    let wanted = |line: &&str| {
        let event = flux_formats::eventlog::EventRef::decode(line.trim_end());
        event.is_ok_and(|event| filter.passes(&event.name))
    };
    let valid = |text: &str| {
        serde_json::from_str::<&serde_json::value::RawValue>(text).map(|raw| raw.get().to_owned())
    };
    let lines = eventlog.split_inclusive('\n').filter(wanted);
    response(
        id,
        lines,
        valid(jobspec).unwrap_or_default(),
        valid(r).unwrap_or_default(),
    )
}

/// Builds the payload of a journal response from JSON text that exists already; empty `jobspec` and `r` are left out.
fn response<'a>(id: JobId, lines: impl Iterator<Item = &'a str>, jobspec: String, r: String) -> Bytes {
    let mut text = String::with_capacity(128 + jobspec.len() + r.len());
    // a String takes everything
    let _ = write!(text, "{{\"id\":{},\"events\":[", id.0);
    for (index, line) in lines.enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(line.trim_end());
    }
    text.push(']');
    for (key, value) in [("jobspec", jobspec), ("R", r)] {
        if !value.is_empty() {
            let _ = write!(text, ",\"{key}\":{value}");
        }
    }
    text.push_str("}\0");
    Bytes::from(text)
}
