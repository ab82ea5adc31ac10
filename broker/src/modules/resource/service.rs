//! The resource module's actor.

use super::acquire::Acquire;
use super::api::Deliver;
use super::config::{Config, from_file};
use super::journal::{EVENTLOG_KEY, Journal};
use super::reduce::Reduce;
use super::state::State;
use super::topo::Topo;
use crate::modules::kvs::{Txn, local as kvs};
use crate::service::{Cx, Interface, Method, RpcError, Service};
use flux_formats::errno;
use flux_formats::idset::IdSet;
use flux_formats::msg::Message;
use flux_formats::resource_set::ResourceSet;
use flux_formats::rpc::resource as rpc;
use serde::Deserialize;
use serde_json::{Value, json};
use std::rc::Rc;

/// KVS key of R.
const R_KEY: &str = "resource.R";

const METHODS: &[Method] = &[
    Method::user("status"),
    Method::user("sched-status"),
    Method::owner("drain"),
    Method::owner("undrain"),
    Method::owner("get"),
    Method::owner("reload"),
    Method::owner("expiration-update"),
    Method::owner("acquire"),
    Method::owner("acquire-cancel"),
    Method::owner("acquire-mute"),
    Method::owner("journal"),
    Method::owner("journal-cancel"),
    Method::owner("monitor-waitup"),
    Method::owner("monitor-force-down"),
    Method::user("topo-get"),
    Method::owner("topo-reduce"),
];

/// The `resource` module.
#[derive(Debug)]
pub struct Resource {
    pub(super) config: Config,
    pub(super) state: State,
    pub(super) journal: Journal,
    pub(super) acquire: Acquire,
    pub(super) reduce: Reduce,
    pub(super) topo: Topo,
    /// Drains found before R was defined.
    pub(super) pending_drains: Vec<(u32, String)>,
    /// Where R came from (RFC 44).
    method: &'static str,
    /// The earlier eventlog has been read.
    replayed: bool,
    /// `flux start --recovery`: everything stays offline, and R may be that of more brokers than there are.
    recovery: bool,
    /// No earlier R will be used: define what the brokers report.
    dynamic: bool,
    /// Requests that need R.
    waiting: Vec<Message>,
    waitups: Vec<(Message, u64)>,
}

impl Default for Resource {
    fn default() -> Self {
        let config = Config::default();
        Resource {
            journal: Journal::new(config.journal_max),
            config,
            state: State::default(),
            acquire: Acquire::default(),
            reduce: Reduce::default(),
            topo: Topo::default(),
            pending_drains: Vec::new(),
            method: "",
            replayed: false,
            recovery: false,
            dynamic: false,
            waiting: Vec::new(),
            waitups: Vec::new(),
        }
    }
}

#[derive(Deserialize)]
struct Members {
    members: IdSet,
}

impl Resource {
    // ---- start ----------------------------------------------------------------------------------------

    fn start_leader(&mut self, cx: &mut Cx<'_>) {
        if !self.recovery {
            self.watch_group(cx, "broker.online", |me, cx, members| me.on_online(cx, members));
            self.watch_group(cx, "broker.torpid", |me, cx, members| me.on_torpid(cx, members));
        }
        kvs::lookup(cx, "primary", EVENTLOG_KEY, |me: &mut Resource, cx, result| {
            me.on_eventlog(cx, result)
        });
    }

    fn watch_group(
        &mut self,
        cx: &mut Cx<'_>,
        name: &'static str,
        mut each: impl FnMut(&mut Resource, &mut Cx<'_>, IdSet) + 'static,
    ) {
        let req = cx.request_any("groups.get", &json!({ "name": name }));
        cx.rpc_stream(req, move |me: &mut Resource, cx, result| {
            if let Ok(body) = result.and_then(|msg| Ok(msg.payload_json::<Members>()?)) {
                each(me, cx, body.members);
            }
        });
    }

    /// Takes the eventlog of an earlier life of this instance: drains survive a restart.
    fn on_eventlog(&mut self, cx: &mut Cx<'_>, result: Result<bytes::Bytes, RpcError>) {
        let text = result
            .ok()
            .and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
            .unwrap_or_default();
        self.replay(cx, &text);
        self.replayed = true;
        let ranks = IdSet::first_n(self.state.size);
        let context = json!({
            "ranks": ranks.to_string(), "online": self.state.online.to_string(),
            "nodelist": self.state.hosts.to_string(),
        });
        self.journal.append(cx, "restart", &context, None);
        if let Some(r) = self.config.r.clone() {
            self.define(cx, r, "configuration");
        } else if !self.ask_enclosing(cx) {
            self.without_enclosing(cx);
        }
    }

    /// Looks for R where an instance that is no job, or whose job's R does not fit, finds it.
    pub(super) fn without_enclosing(&mut self, cx: &mut Cx<'_>) {
        kvs::lookup(cx, "primary", R_KEY, |me: &mut Resource, cx, result| {
            me.on_old_r(cx, result)
        });
    }

    fn on_old_r(&mut self, cx: &mut Cx<'_>, result: Result<bytes::Bytes, RpcError>) {
        let old = result.ok().and_then(|bytes| ResourceSet::decode(&bytes).ok());
        let brokers = IdSet::first_n(self.state.size);
        match old.filter(|r| r.ranks() == brokers || self.recovery) {
            Some(r) => self.define(cx, r, "kvs"),
            None => {
                self.dynamic = true;
                self.check_discovered(cx);
            }
        }
    }

    /// Defines what the brokers found, once all have reported and no other source is left.
    pub(super) fn check_discovered(&mut self, cx: &mut Cx<'_>) {
        if self.dynamic
            && self.state.r.is_none()
            && let Some(r) = self.discovered()
        {
            self.define(cx, r, "dynamic-discovery");
        }
    }

    /// Takes R, writes it to the KVS and tells everyone who waits.
    pub(super) fn define(&mut self, cx: &mut Cx<'_>, r: ResourceSet, method: &'static str) {
        let r = r.rerank(&self.state.hosts).unwrap_or(r);
        if self.recovery {
            // one broker stands for all that are not there
            let last = r.ranks().last().unwrap_or(0);
            self.state.size = self.state.size.max(last.saturating_add(1));
        }
        let value = r.to_value();
        let text = r.encode();
        self.method = method;
        self.state.r = Some(r);
        self.resolve_exclude(cx);
        let (_, line) = self
            .journal
            .append(cx, "resource-define", &json!({ "method": method }), Some(value));
        let mut txn = Txn::new();
        if method != "kvs" {
            txn.put(R_KEY, text.into_bytes());
        }
        txn.append(EVENTLOG_KEY, line.as_bytes());
        self.commit(cx, txn);
        self.apply_pending_drains(cx);
        self.changed(cx);
        for request in std::mem::take(&mut self.waiting) {
            self.on_request(cx, request);
        }
    }

    fn resolve_exclude(&mut self, cx: &mut Cx<'_>) {
        let targets = self.config.exclude.clone().filter(|text| !text.is_empty());
        self.state.exclude = match targets.map(|text| self.state.resolve(&text)) {
            None => IdSet::default(),
            Some(Ok(ranks)) => ranks,
            Some(Err(err)) => {
                cx.log_as_me(3, &format!("resource.exclude: {err}"));
                IdSet::default()
            }
        };
    }

    pub(super) fn commit(&mut self, cx: &mut Cx<'_>, txn: Txn) {
        kvs::commit(cx, "primary", txn, |_: &mut Resource, cx, result| {
            if let Err(err) = result {
                cx.log_as_me(3, &format!("cannot write {EVENTLOG_KEY}: {err}"));
            }
        });
    }

    // ---- brokers come and go ----------------------------------------------------------------------------

    fn on_online(&mut self, cx: &mut Cx<'_>, members: IdSet) {
        let came = members.difference(&self.state.online);
        let went = self.state.online.difference(&members);
        self.state.online = members;
        for (name, ranks) in [("online", &came), ("offline", &went)] {
            if !ranks.is_empty() && self.replayed {
                self.journal
                    .append(cx, name, &json!({ "idset": ranks.to_string() }), None);
            }
        }
        self.changed(cx);
    }

    fn on_torpid(&mut self, cx: &mut Cx<'_>, members: IdSet) {
        let slow = members.difference(&self.state.torpid);
        let fine = self.state.torpid.difference(&members);
        self.state.torpid = members;
        for (name, ranks) in [("torpid", &slow), ("lively", &fine)] {
            if !ranks.is_empty() {
                self.journal
                    .append(cx, name, &json!({ "idset": ranks.to_string() }), None);
            }
        }
        self.changed(cx);
    }

    /// Tells the scheduler and those who wait for brokers what follows from a change.
    pub(super) fn changed(&mut self, cx: &mut Cx<'_>) {
        if self.acquire.is_held()
            && let Some(r) = self.state.schedulable()
        {
            let up = self.state.up();
            self.acquire.update(cx, &r, &up);
        }
        if !self.waitups.is_empty() {
            let up = self.state.online().count();
            for (request, _) in self.waitups.extract_if(.., |(_, wanted)| *wanted == up) {
                cx.respond_empty(&request);
            }
        }
    }

    // ---- typed calls --------------------------------------------------------------------------------

    pub(super) fn on_acquire_local(&mut self, cx: &mut Cx<'_>, deliver: Deliver) {
        self.acquire.hold_local(cx, deliver);
        self.changed(cx);
    }

    pub(super) fn on_release_local(&mut self) {
        self.acquire = Acquire::default();
    }

    // ---- requests -------------------------------------------------------------------------------------

    fn on_sched_status(&mut self, cx: &mut Cx<'_>, req: Message) {
        let allocated = cx.request_any("job-manager.resource-status", &json!({}));
        cx.rpc(allocated, move |me: &mut Resource, cx, result| {
            let allocated = match result.and_then(|msg| Ok(msg.payload_json::<Value>()?)) {
                Ok(mut body) => body.get_mut("allocated").map(Value::take),
                // no job manager: nothing is allocated
                Err(err) if err.errnum == errno::ENOSYS => None,
                Err(err) => {
                    cx.fail_with(&req, &err);
                    return;
                }
            };
            let (all, down) = me.state.sched_status();
            let allocated = allocated.unwrap_or_else(|| ResourceSet::default().to_value());
            let body = rpc::SchedStatusResponse {
                all: all.to_value(),
                down: down.to_value(),
                allocated,
            };
            cx.respond(&req, &body);
        });
    }

    fn on_reload(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let body: rpc::ReloadRequest = req.payload_json()?;
        if self.acquire.is_held() {
            return Err(RpcError::new(
                errno::EBUSY,
                "resources are busy (unload scheduler?)",
            ));
        }
        if body.xml {
            return Err(RpcError::new(
                errno::ENOTSUP,
                "R cannot be made from hwloc XML files here: give an R file (see flux-R(1))",
            ));
        }
        let r = from_file(&body.path)?;
        let outside = r.ranks().difference(&IdSet::first_n(self.state.size));
        if !outside.is_empty() && !body.force {
            return Err(RpcError::new(
                errno::EOVERFLOW,
                format!(
                    "{}: ranks {outside} exceed the instance size: use --force to override",
                    body.path
                ),
            ));
        }
        self.define(cx, r, "reload");
        Ok(())
    }

    fn on_expiration(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let body: rpc::ExpirationUpdateRequest = req.payload_json()?;
        self.set_expiration(cx, body.expiration)
    }

    /// Changes when the resources end.
    pub(super) fn set_expiration(&mut self, cx: &mut Cx<'_>, expiration: f64) -> Result<(), RpcError> {
        if !(expiration >= 0.0 && expiration.is_finite()) {
            return Err(RpcError::new(
                errno::EINVAL,
                format!("expiration {expiration} is negative"),
            ));
        }
        let Some(r) = &mut self.state.r else {
            return Err(RpcError::bare(errno::EAGAIN));
        };
        r.expiration = expiration;
        let text = r.encode();
        let context = json!({ "expiration": expiration });
        let (_, line) = self.journal.append(cx, "resource-update", &context, None);
        let mut txn = Txn::new();
        txn.put(R_KEY, text.into_bytes())
            .append(EVENTLOG_KEY, line.as_bytes());
        self.commit(cx, txn);
        self.changed(cx);
        Ok(())
    }

    fn on_force_down(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let body: rpc::ForceDownRequest = req.payload_json()?;
        let online = self.state.online();
        self.state.forced_down = self.state.forced_down.union(&body.ranks);
        let went = online.intersection(&body.ranks);
        if !went.is_empty() {
            self.journal
                .append(cx, "offline", &json!({ "idset": went.to_string() }), None);
        }
        self.changed(cx);
        Ok(())
    }

    fn on_waitup(&mut self, cx: &mut Cx<'_>, req: Message) {
        let Some(body) = cx.decode::<rpc::WaitupRequest>(&req) else {
            return;
        };
        if body.up > self.state.size {
            cx.fail(
                &req,
                errno::EPROTO,
                "up value must be less than or equal to the instance size",
            );
        } else if u64::from(body.up) == self.state.online().count() {
            cx.respond_empty(&req);
        } else {
            self.waitups.push((req, u64::from(body.up)));
        }
    }

    fn on_acquire(&mut self, cx: &mut Cx<'_>, req: Message) {
        if !cx.require_streaming(&req) {
            return;
        }
        match self.acquire.hold_remote(req) {
            Ok(()) => self.changed(cx),
            Err(refused) => cx.fail_with(&refused.0, &refused.1),
        }
    }

    fn cancel(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let Ok(body) = req.payload_json::<rpc::CancelRequest>() else {
            return;
        };
        if req.topic.method() == "acquire-cancel" {
            self.acquire.cancel(cx, req.sender(), body.matchtag);
        } else {
            self.journal.cancel(cx, req.sender(), body.matchtag);
        }
    }

    fn request_with_r(&mut self, cx: &mut Cx<'_>, req: Message) {
        let result = match req.topic.method() {
            "status" => {
                cx.respond(&req, &self.state.status());
                return;
            }
            "sched-status" => return self.on_sched_status(cx, req),
            "get" => {
                let r = self
                    .state
                    .r
                    .as_ref()
                    .map(ResourceSet::to_value)
                    .unwrap_or_default();
                cx.respond(
                    &req,
                    &rpc::GetResponse {
                        r,
                        method: self.method.to_owned(),
                    },
                );
                return;
            }
            "drain" => return self.on_drain(cx, req),
            "undrain" => return self.on_undrain(cx, req),
            "reload" => self.on_reload(cx, &req),
            "expiration-update" => self.on_expiration(cx, &req),
            "acquire" => return self.on_acquire(cx, req),
            _ => Err(RpcError::bare(errno::ENOSYS)),
        };
        match result {
            Ok(()) => cx.respond_empty(&req),
            Err(err) => cx.fail_with(&req, &err),
        }
    }

    fn leader_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        match req.topic.method() {
            "journal" => {
                if cx.require_streaming(&req) {
                    self.journal.follow(cx, req);
                }
            }
            "journal-cancel" | "acquire-cancel" => self.cancel(cx, &req),
            "acquire-mute" => {
                self.acquire.mute();
                cx.respond_empty(&req);
            }
            "monitor-waitup" => self.on_waitup(cx, req),
            "monitor-force-down" => match self.on_force_down(cx, &req) {
                Ok(()) => cx.respond_empty(&req),
                Err(err) => cx.fail_with(&req, &err),
            },
            _ if self.state.r.is_none() => self.waiting.push(req),
            _ => self.request_with_r(cx, req),
        }
    }
}

impl Service for Resource {
    fn interfaces(&self) -> Vec<Interface> {
        vec![Interface {
            service: "resource",
            methods: METHODS,
        }]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        let config = cx.config.clone();
        self.config = Config::read(&config, cx.rank() == 0)?;
        self.recovery = cx.attrs.get("broker.recovery-mode").is_some();
        if self.recovery {
            self.config.verify_nothing();
        }
        self.journal.set_max(self.config.journal_max);
        self.state.size = cx.size();
        let hosts = cx
            .attrs
            .get("hostlist")
            .or_else(|| cx.attrs.get("hostname"))
            .unwrap_or("localhost");
        self.state.hosts = hosts
            .parse()
            .map_err(|err| RpcError::new(errno::EINVAL, format!("attribute hostlist \"{hosts}\": {err}")))?;
        self.discover_local(cx)?;
        if cx.rank() == 0 {
            self.start_leader(cx);
        }
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        match req.topic.method() {
            "topo-get" => self.on_topo_get(cx, req),
            "topo-reduce" => self.on_topo_reduce(cx, &req),
            _ if cx.rank() != 0 => cx.fail(&req, errno::EPROTO, "this RPC only works on rank 0"),
            _ => self.leader_request(cx, req),
        }
    }

    fn on_disconnect(&mut self, _cx: &mut Cx<'_>, msg: &Message) {
        let sender = msg.sender();
        self.journal.disconnect(sender);
        self.acquire.disconnect(sender);
        self.waiting.retain(|request| request.sender() != sender);
        self.waitups.retain(|(request, _)| request.sender() != sender);
    }

    fn config_prepare(&mut self, cx: &mut Cx<'_>, config: &Rc<Value>) -> Result<(), RpcError> {
        let config = Config::read(config, cx.rank() == 0)?;
        if let Some(exclude) = config.exclude.filter(|text| !text.is_empty() && cx.rank() == 0) {
            self.state
                .resolve(&exclude)
                .map_err(|err| RpcError::new(err.errnum, format!("resource.exclude: {err}")))?;
        }
        Ok(())
    }

    fn config_commit(&mut self, cx: &mut Cx<'_>) {
        let config = cx.config.clone();
        // R itself is taken at start; exclude, verify and journal-max are live
        if let Ok(new) = Config::read(&config, false) {
            self.config = Config {
                r: self.config.r.take(),
                ..new
            };
            self.journal.set_max(self.config.journal_max);
            self.resolve_exclude(cx);
            self.changed(cx);
        }
    }

    fn stop(&mut self, cx: &mut Cx<'_>) -> bool {
        self.journal.close(cx);
        self.acquire.end(cx, errno::ECANCELED);
        true
    }
}
