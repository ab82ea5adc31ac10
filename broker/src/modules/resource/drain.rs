//! How are ranks drained and undrained? Events in `resource.eventlog`, read back after a restart.

use super::Resource;
use super::journal::EVENTLOG_KEY;
use super::state::DrainMode;
use crate::modules::kvs::{Txn, local as kvs};
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::eventlog;
use flux_formats::hostlist::Hostlist;
use flux_formats::idset::IdSet;
use flux_formats::msg::Message;
use flux_formats::rpc::resource as rpc;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Context of `drain` and `undrain`.
#[derive(Debug, Serialize, Deserialize)]
struct DrainContext {
    idset: IdSet,
    #[serde(default)]
    nodelist: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default)]
    overwrite: u8,
}

impl Resource {
    /// Handles `resource.drain`; the answer follows when the event is durable.
    pub(super) fn on_drain(&mut self, cx: &mut Cx<'_>, req: Message) {
        let checked = (|| {
            let body: rpc::DrainRequest = req.payload_json()?;
            let mode = DrainMode::parse(body.mode.as_deref())?;
            let ranks = self.state.resolve(&body.targets)?;
            let reason = body.reason.unwrap_or_default();
            Ok((self.state.check_drain(&ranks, mode, &reason)?, reason, mode))
        })();
        match checked {
            Err(err) => cx.fail_with(&req, &err),
            Ok((ranks, _, _)) if ranks.is_empty() => cx.respond_empty(&req),
            Ok((ranks, reason, mode)) => {
                let line = self.post_drain(cx, &ranks, &reason, mode);
                self.commit_and_answer(cx, &line, req);
            }
        }
    }

    /// Handles `resource.undrain`; the answer follows when the event is durable.
    pub(super) fn on_undrain(&mut self, cx: &mut Cx<'_>, req: Message) {
        let checked = (|| {
            let body: rpc::UndrainRequest = req.payload_json()?;
            let force = match body.mode.as_deref() {
                None => false,
                Some("force" | "update" | "overwrite" | "force-overwrite") => true,
                Some(other) => {
                    let text = format!("invalid undrain mode '{other}' specified");
                    return Err(RpcError::new(errno::EINVAL, text));
                }
            };
            let ranks = self.state.resolve(&body.targets)?;
            Ok((self.state.check_undrain(&ranks, force)?, body.reason))
        })();
        match checked {
            Err(err) => cx.fail_with(&req, &err),
            Ok((ranks, _)) if ranks.is_empty() => cx.respond_empty(&req),
            Ok((ranks, reason)) => {
                let nodelist = self.state.hosts_of(&ranks).to_string();
                self.state.apply_undrain(&ranks);
                let context = context_value(&DrainContext {
                    idset: ranks,
                    nodelist,
                    reason,
                    overwrite: 0,
                });
                let (_, line) = self.journal.append(cx, "undrain", &context, None);
                self.changed(cx);
                self.commit_and_answer(cx, &line, req);
            }
        }
    }

    fn commit_and_answer(&mut self, cx: &mut Cx<'_>, line: &str, req: Message) {
        let mut txn = Txn::new();
        txn.append(EVENTLOG_KEY, line.as_bytes());
        kvs::commit_durable(
            cx,
            "primary",
            txn,
            move |_: &mut Resource, cx, result| match result {
                Ok(_) => cx.respond_empty(&req),
                Err(err) => cx.fail_with(&req, &err),
            },
        );
    }

    fn post_drain(&mut self, cx: &mut Cx<'_>, ranks: &IdSet, reason: &str, mode: DrainMode) -> String {
        let nodelist = self.state.hosts_of(ranks).to_string();
        let text = Some(reason.to_owned()).filter(|text| !text.is_empty());
        let context = context_value(&DrainContext {
            idset: ranks.clone(),
            nodelist,
            reason: text,
            overwrite: mode.overwrite(),
        });
        let (timestamp, line) = self.journal.append(cx, "drain", &context, None);
        self.state.apply_drain(ranks, reason, timestamp, mode.overwrite());
        self.changed(cx);
        line
    }

    /// Drains ranks on behalf of another service; those drained already keep their reason.
    pub(super) fn on_drain_local(&mut self, cx: &mut Cx<'_>, ranks: &IdSet, reason: &str) {
        let known = ranks.intersection(&self.state.ranks());
        let Ok(ranks) = self.state.check_drain(&known, DrainMode::Update, reason) else {
            return;
        };
        if ranks.is_empty() {
            return;
        }
        let line = self.post_drain(cx, &ranks, reason, DrainMode::Update);
        let mut txn = Txn::new();
        txn.append(EVENTLOG_KEY, line.as_bytes());
        self.commit(cx, txn);
    }

    /// Drains what verification found, once the earlier eventlog is known.
    pub(super) fn apply_pending_drains(&mut self, cx: &mut Cx<'_>) {
        if self.state.r.is_none() {
            return;
        }
        for (rank, reason) in std::mem::take(&mut self.pending_drains) {
            self.on_drain_local(cx, &IdSet::from(rank), &reason);
        }
    }

    /// Takes over the events of an earlier life; ranks follow their hosts where names are unique.
    pub(super) fn replay(&mut self, cx: &mut Cx<'_>, log: &str) {
        for event in eventlog::decode_iter(log) {
            let Ok(event) = event else {
                cx.log_as_me(
                    3,
                    &format!("{EVENTLOG_KEY}: an event cannot be read and is ignored"),
                );
                continue;
            };
            if let Ok(context) = event.context_as::<DrainContext>() {
                let ranks = self.ranks_now(&context);
                match event.name.as_ref() {
                    "drain" => {
                        let reason = context.reason.unwrap_or_default();
                        self.state
                            .apply_drain(&ranks, &reason, event.timestamp, context.overwrite);
                    }
                    "undrain" => self.state.apply_undrain(&ranks),
                    _ => {}
                }
            }
            let line = event.into_owned();
            self.journal
                .push(cx, line.encode().trim_end(), line.timestamp, None);
        }
    }

    fn ranks_now(&self, context: &DrainContext) -> IdSet {
        let brokers = IdSet::first_n(self.state.size);
        let wanted: Hostlist = context.nodelist.parse().unwrap_or_default();
        let unique = self
            .state
            .hosts
            .unique()
            .is_ok_and(|unique| unique.count() == self.state.hosts.count());
        if unique && !wanted.is_empty() {
            let names = wanted.expand().unwrap_or_default();
            let found = names.iter().filter_map(|name| self.state.hosts.find(name));
            return found.filter_map(|at| u32::try_from(at).ok()).collect();
        }
        context.idset.intersection(&brokers)
    }
}

fn context_value(context: &DrainContext) -> Value {
    serde_json::to_value(context).unwrap_or_else(|_| json!({}))
}
