//! The actor: takes events, enters states, answers those who wait for them.

use super::notify::Notify;
use super::program::InitialProgram;
use crate::service::{Cx, Interface, Mailbox, Method, RpcError, Service, TimerId};
use crate::state_machine::{State, next};
use flux_formats::errno;
use flux_formats::fsd::Fsd;
use flux_formats::hostlist::Hostlist;
use flux_formats::idset::IdSet;
use flux_formats::msg::{Message, NODEID_UPSTREAM};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::signal::unix::{self, SignalKind};

/// How long a shutdown waits for the end of an initial program that was told of it. One that ends in time gives the
/// instance its exit code; after that jobs are cancelled while it still runs.
const PROGRAM_PATIENCE: Duration = Duration::from_secs(10);

/// The scheduler's module.
const SCHEDULER: &str = "sched-simple";
/// How long the initial program is held back for a scheduler that takes no jobs yet: a user's first command should not find it missing.
const SCHEDULER_PATIENCE: Duration = Duration::from_secs(2);

/// What the command line decided.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Initial program; empty means an interactive shell.
    pub initial_program: Vec<String>,
    /// Standard modules are not loaded (`-Sbroker.rc1_path=`).
    pub bare: bool,
}

/// The lifecycle driver.
#[derive(Debug)]
pub struct Lifecycle {
    pub(super) options: Options,
    state: State,
    pub(super) since: Instant,
    pub(super) exit_code: i32,
    waiters: Vec<Message>,
    monitors: Vec<(Message, u32)>,
    shutdowns: Vec<Message>,
    pub(super) cleanup: Vec<Vec<String>>,
    /// Cleanup commands run so far.
    pub(super) cleanup_count: usize,
    pub(super) rc2: Option<InitialProgram>,
    /// The scheduler takes jobs, or is known not to.
    scheduler_settled: bool,
    /// The initial program is to be started.
    program_waits: bool,
    /// The initial program was told that the instance ends.
    told_program: bool,
    online: IdSet,
    quorum: u64,
    quorum_warning: Option<TimerId>,
    /// The log says that brokers are missing.
    quorum_warned: bool,
    had_children: bool,
    pub(super) loaded: Vec<String>,
    /// A step of rc1 failed and was passed over.
    pub(super) rc1_failed: bool,
    /// Archive to be loaded before the KVS starts.
    pub(super) restore: Option<super::dump::Source>,
    /// The archive of the end has been written, if one was asked for.
    pub(super) dumped: bool,
    notify: Notify,
}

#[derive(Deserialize)]
struct MonitorRequest {
    r#final: u32,
}

#[derive(Deserialize)]
struct PostRequest {
    event: String,
    #[serde(default)]
    error: bool,
}

#[derive(Deserialize)]
struct SdNotifyRequest {
    status: Option<String>,
}

#[derive(Deserialize)]
struct PushRequest {
    name: String,
    commands: Vec<String>,
}

/// Posts a state machine event from another service of this broker.
pub fn post(cx: &mut Cx<'_>, event: &'static str) {
    cx.to::<Lifecycle>("state-machine", move |me, cx| me.post(cx, event));
}

/// The scheduler takes jobs, or it is known that it does not: the initial program need not wait for it any longer.
pub fn scheduler_settled(cx: &mut Cx<'_>) {
    cx.to::<Lifecycle>("state-machine", |me, cx| {
        me.scheduler_settled = true;
        me.begin_program(cx);
    });
}

impl Lifecycle {
    /// Returns the driver in its first state.
    pub fn new(options: Options) -> Self {
        Lifecycle {
            options,
            state: State::LoadBuiltins,
            since: Instant::now(),
            exit_code: 0,
            waiters: Vec::new(),
            monitors: Vec::new(),
            shutdowns: Vec::new(),
            cleanup: Vec::new(),
            cleanup_count: 0,
            rc2: None,
            scheduler_settled: false,
            program_waits: false,
            told_program: false,
            online: IdSet::default(),
            quorum: 1,
            quorum_warning: None,
            quorum_warned: false,
            had_children: false,
            loaded: Vec::new(),
            rc1_failed: false,
            restore: None,
            dumped: false,
            notify: Notify::default(),
        }
    }

    /// Takes an event; one that means nothing in this state is ignored.
    pub fn post(&mut self, cx: &mut Cx<'_>, event: &str) {
        let Some(to) = next(self.state, event) else { return };
        let from = self.state;
        let spent = Fsd::from(self.since.elapsed());
        let text = format!("{event}: {}->{} {spent}", from.name(), to.name());
        cx.log(6, "broker", &text);
        self.tell_shutdowns(cx, &text);
        if from == to {
            return;
        }
        (self.state, self.since) = (to, Instant::now());
        self.tell_monitors(cx);
        let parent = cx.attrs.get("tbon.parent-endpoint").unwrap_or("?");
        self.notify.entered(to, cx.rank(), cx.size(), parent);
        self.enter(cx, event);
    }

    fn enter(&mut self, cx: &mut Cx<'_>, event: &str) {
        match self.state {
            State::LoadBuiltins => {}
            State::Join => self.join(cx),
            State::ConfigSync => self.config_sync(cx),
            State::Init => {
                self.announce(cx);
                crate::overlay::accept(cx);
                self.load_modules(cx);
            }
            State::Quorum => self.enter_quorum(cx),
            State::Run => self.run(cx),
            State::Cleanup => self.begin_cleanup(cx),
            State::Shutdown => {
                if event.ends_with("-fail") && self.exit_code == 0 {
                    self.exit_code = 1;
                }
                self.stop_rc2();
                self.children_changed(cx);
            }
            State::Finalize => self.unload_modules(cx),
            State::Goodbye => self.goodbye(cx),
            State::UnloadBuiltins => {
                for request in std::mem::take(&mut self.shutdowns) {
                    cx.fail(&request, errno::ENODATA, "");
                }
                self.unload_builtins(cx);
            }
            State::Exit => {
                let code = self.exit_code;
                cx.request_exit(code);
            }
        }
    }

    fn join(&mut self, cx: &mut Cx<'_>) {
        if cx.rank() == 0 {
            self.post(cx, "parent-none");
        } else {
            // the overlay posts parent-ready or parent-fail
            crate::overlay::join(cx);
        }
    }

    fn config_sync(&mut self, cx: &mut Cx<'_>) {
        if cx.rank() == 0 {
            self.post(cx, "sync-none");
            return;
        }
        self.follow_parent(cx);
        crate::modules::config::sync(cx, |cx, result| match result {
            Ok(()) => post(cx, "sync-success"),
            Err(err) => {
                cx.log(3, "broker", &format!("configuration of the leader: {err}"));
                post(cx, "sync-fail");
            }
        });
    }

    /// Shuts down when the parent does.
    fn follow_parent(&mut self, cx: &mut Cx<'_>) {
        let body = json!({ "final": State::Shutdown as u32 });
        let req = cx.request("state-machine.monitor", NODEID_UPSTREAM, &body);
        cx.rpc_stream_upstream(req, |me: &mut Lifecycle, cx, result| {
            let state = result.ok().and_then(|msg| msg.payload_json::<Value>().ok());
            let state = state
                .and_then(|body| body.get("state").and_then(Value::as_u64))
                .unwrap_or(0);
            if state >= State::Shutdown as u64 {
                me.post(cx, "shutdown");
            }
        });
    }

    fn enter_quorum(&mut self, cx: &mut Cx<'_>) {
        let req = cx.request_any("groups.join", &json!({ "name": "broker.online" }));
        cx.rpc(req, |_: &mut Lifecycle, cx, result| {
            if let Err(err) = result {
                cx.log(3, "broker", &format!("joining broker.online: {err}"));
            }
        });
        if cx.rank() != 0 {
            self.post(cx, "quorum-full");
            return;
        }
        let size = u64::from(cx.size());
        self.quorum = cx
            .attrs
            .get("broker.quorum")
            .and_then(|v| v.parse().ok())
            .unwrap_or(size)
            .clamp(1, size);
        self.warn_when_delayed(cx);
        let req = cx.request_any("groups.get", &json!({ "name": "broker.online" }));
        cx.rpc_stream(req, |me: &mut Lifecycle, cx, result| {
            let Ok(msg) = result else { return };
            let body: Value = msg.payload_json().unwrap_or_default();
            if let Some(online) = body
                .get("members")
                .and_then(Value::as_str)
                .and_then(|m| m.parse().ok())
            {
                me.online_changed(cx, online);
            }
        });
    }

    /// Says which brokers are missing after `broker.quorum-warn`, and again each time that passes.
    fn warn_when_delayed(&mut self, cx: &mut Cx<'_>) {
        let after = cx
            .attrs
            .get("broker.quorum-warn")
            .and_then(|v| v.parse::<Fsd>().ok());
        let Some(after) = after.and_then(Fsd::to_duration).filter(|d| !d.is_zero()) else {
            return;
        };
        self.quorum_warning = Some(cx.timer(after, |me: &mut Lifecycle, cx| {
            me.quorum_warning = None;
            if me.state == State::Quorum {
                let all = IdSet::from_range(0, cx.size().saturating_sub(1));
                let missing = all.difference(&me.online);
                let hosts = hosts_of(cx, &missing);
                let text = format!("quorum delayed: waiting for {hosts} (rank {missing})");
                cx.log(3, "broker", &text);
                me.quorum_warned = true;
                me.warn_when_delayed(cx);
            }
        }));
    }

    fn online_changed(&mut self, cx: &mut Cx<'_>, online: IdSet) {
        let came = online.difference(&self.online);
        let went = self.online.difference(&online);
        if !came.is_empty() && cx.size() > 1 {
            let hosts = hosts_of(cx, &came);
            cx.log(6, "broker", &format!("online: {hosts} (ranks {came})"));
        }
        if !went.is_empty() && matches!(self.state, State::Run | State::Cleanup) {
            let hosts = hosts_of(cx, &went);
            cx.log(3, "broker", &format!("dead to Flux: {hosts} (rank {went})"));
        }
        self.online = online;
        if self.state == State::Quorum && self.online.count() >= self.quorum {
            if let Some(timer) = self.quorum_warning.take() {
                cx.cancel_timer(timer);
            }
            self.post(cx, "quorum-full");
            if std::mem::take(&mut self.quorum_warned) {
                cx.log(3, "broker", "quorum reached");
            }
        }
    }

    fn run(&mut self, cx: &mut Cx<'_>) {
        for request in std::mem::take(&mut self.waiters) {
            cx.respond_empty(&request);
        }
        if cx.rank() != 0 {
            return;
        }
        if cx.attrs.get("broker.rc2_none").is_some() {
            self.post(cx, "rc2-none");
            return;
        }
        self.program_waits = true;
        if self.scheduler_settled || !self.loaded.iter().any(|name| name == SCHEDULER) {
            self.begin_program(cx);
        } else {
            cx.timer(SCHEDULER_PATIENCE, |me: &mut Lifecycle, cx| me.begin_program(cx));
        }
    }

    /// Starts the initial program, if it waits.
    fn begin_program(&mut self, cx: &mut Cx<'_>) {
        if self.state == State::Run && std::mem::take(&mut self.program_waits) {
            self.start_program(cx);
        }
    }

    /// Called by the overlay whenever a child came or went.
    pub fn children_changed(&mut self, cx: &mut Cx<'_>) {
        let count = cx.child_count();
        self.had_children |= count > 0;
        if self.state == State::Shutdown && count == 0 {
            self.post(
                cx,
                if self.had_children {
                    "children-complete"
                } else {
                    "children-none"
                },
            );
        }
    }

    fn goodbye(&mut self, cx: &mut Cx<'_>) {
        if cx.rank() == 0 {
            self.post(cx, "goodbye");
        } else {
            crate::overlay::goodbye(cx);
        }
    }

    /// The parent is gone: the instance ended above, so this broker ends too, with an error.
    pub fn parent_lost(&mut self, cx: &mut Cx<'_>) {
        if self.state < State::Shutdown && self.exit_code == 0 {
            self.exit_code = 1;
        }
        self.post(cx, "parent-fail");
        if self.state == State::Goodbye {
            self.post(cx, "goodbye");
        }
    }

    /// Handles a deadly signal: begins the shutdown.
    pub fn on_signal(&mut self, cx: &mut Cx<'_>, name: &str) {
        cx.log(6, "broker", &format!("{name}: shutting down"));
        if cx.rank() != 0 {
            // this node alone is taken out of service, with what runs on it
            crate::modules::rexec::agent::take_shells_along(cx);
        }
        self.begin_shutdown(cx);
    }

    /// Begins the shutdown. An initial program that runs is told, and its end moves the broker on, as in flux-core; a
    /// second call does not wait for it.
    fn begin_shutdown(&mut self, cx: &mut Cx<'_>) {
        let waits = self.state == State::Run && self.rc2.is_some() && !self.told_program;
        self.stop_rc2();
        if !waits {
            self.post(cx, "shutdown");
            return;
        }
        self.told_program = true;
        cx.timer(PROGRAM_PATIENCE, |me: &mut Lifecycle, cx| {
            if me.state == State::Run && me.rc2.is_some() {
                cx.log(
                    4,
                    "broker",
                    "the initial program goes on after SIGHUP: shutting down all the same",
                );
                me.post(cx, "shutdown");
            }
        });
    }

    /// Ends the initial program, if it runs.
    pub(super) fn stop_rc2(&mut self) {
        if let Some(rc2) = &self.rc2 {
            rc2.hang_up();
        }
    }

    fn tell_monitors(&mut self, cx: &mut Cx<'_>) {
        let state = self.state as u32;
        let monitors = std::mem::take(&mut self.monitors);
        for (request, last) in monitors {
            if state <= last {
                cx.respond(&request, &json!({ "state": state }));
            }
            if state >= last {
                cx.fail(&request, errno::ENODATA, "");
            } else {
                self.monitors.push((request, last));
            }
        }
    }

    fn tell_shutdowns(&mut self, cx: &mut Cx<'_>, text: &str) {
        for request in self.shutdowns.clone() {
            cx.respond(
                &request,
                &json!({ "log": format!("broker.info[{}]: {text}\n", cx.rank()) }),
            );
        }
    }

    fn wait(&mut self, cx: &mut Cx<'_>, req: Message) {
        match self.state {
            State::Run => cx.respond_empty(&req),
            state if state > State::Run => cx.fail(&req, errno::ENOENT, "broker has surpassed RUN state"),
            _ => self.waiters.push(req),
        }
    }

    fn monitor(&mut self, cx: &mut Cx<'_>, req: Message) {
        if !cx.require_streaming(&req) {
            return;
        }
        let Some(MonitorRequest { r#final: last }) = cx.decode(&req) else {
            return;
        };
        let state = self.state as u32;
        if state <= last {
            cx.respond(&req, &json!({ "state": state }));
        }
        if state >= last {
            cx.fail(&req, errno::ENODATA, "");
        } else {
            self.monitors.push((Message { payload: None, ..req }, last));
        }
    }

    fn shutdown_start(&mut self, cx: &mut Cx<'_>, req: Message) {
        if cx.rank() != 0 {
            cx.fail(&req, errno::EINVAL, "shutdown may only be initiated on rank 0");
        } else if self.state >= State::Cleanup {
            cx.fail(&req, errno::EINVAL, "shutdown is already in progress");
        } else if cx.require_streaming(&req) {
            // an administrator's wish: systemd shall not start it again
            let code = cx.attrs.get("broker.exit-norestart");
            if let Some(code) = code.and_then(|code| code.parse().ok()) {
                self.exit_code = code;
            }
            self.shutdowns.push(Message { payload: None, ..req });
            self.begin_shutdown(cx);
        }
    }

    fn push(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let Some(PushRequest { name, commands }) = cx.decode(req) else {
            return;
        };
        if name != "cleanup" {
            cx.fail(
                req,
                errno::ENOENT,
                &format!("{name}: only the list 'cleanup' takes commands"),
            );
            return;
        }
        self.cleanup.extend(
            commands
                .into_iter()
                .map(|c| vec!["/bin/sh".to_owned(), "-c".to_owned(), c]),
        );
        cx.respond_empty(req);
    }
}

impl Service for Lifecycle {
    fn interfaces(&self) -> Vec<Interface> {
        const STATE_MACHINE: &[Method] = &[
            Method::user("get"),
            Method::user("wait"),
            Method::owner("monitor"),
            Method::owner("post"),
            Method::owner("sd-notify"),
        ];
        const RUNAT: &[Method] = &[Method::owner("push")];
        const SHUTDOWN: &[Method] = &[Method::owner("start")];
        vec![
            Interface {
                service: "state-machine",
                methods: STATE_MACHINE,
            },
            Interface {
                service: "runat",
                methods: RUNAT,
            },
            Interface {
                service: "shutdown",
                methods: SHUTDOWN,
            },
        ]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        let socket = std::env::var_os("NOTIFY_SOCKET");
        match Notify::open(&cx.attrs, socket.as_deref()) {
            Ok(notify) => self.notify = notify,
            Err(text) => cx.log(3, "broker", &text),
        }
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        match req.topic.as_str() {
            "state-machine.get" => {
                let body =
                    json!({"state": self.state.name(), "duration": self.since.elapsed().as_secs_f64()});
                cx.respond(&req, &body);
            }
            "state-machine.wait" => self.wait(cx, req),
            "state-machine.monitor" => self.monitor(cx, req),
            "state-machine.post" => {
                if let Some(PostRequest { event, error }) = cx.decode(&req) {
                    if error && self.exit_code == 0 {
                        self.exit_code = 1;
                    }
                    self.post(cx, &event);
                    cx.respond_empty(&req);
                }
            }
            "state-machine.sd-notify" => {
                if let Some(SdNotifyRequest { status }) = cx.decode(&req) {
                    self.notify.status(self.state, status.as_deref());
                    cx.respond_empty(&req);
                }
            }
            "runat.push" => self.push(cx, &req),
            _ => self.shutdown_start(cx, req),
        }
    }

    fn on_disconnect(&mut self, _cx: &mut Cx<'_>, msg: &Message) {
        self.waiters.retain(|request| request.sender() != msg.sender());
        self.monitors
            .retain(|(request, _)| request.sender() != msg.sender());
        self.shutdowns.retain(|request| request.sender() != msg.sender());
    }
}

/// Returns the hosts of ranks as a hostlist, for messages.
fn hosts_of(cx: &Cx<'_>, ranks: &IdSet) -> String {
    let all = cx
        .attrs
        .get("hostlist")
        .and_then(|text| text.parse::<Hostlist>().ok());
    let names: Vec<_> = all.iter().flat_map(Hostlist::iter).collect();
    let mut hosts = Hostlist::default();
    for rank in ranks {
        let name = usize::try_from(rank).ok().and_then(|rank| names.get(rank));
        if name.is_none_or(|name| hosts.push(name).is_err()) {
            return "(unknown)".to_owned();
        }
    }
    hosts.to_string()
}

/// Signals that end the instance.
fn deadly_signals() -> [(&'static str, SignalKind); 5] {
    [
        ("SIGHUP", SignalKind::hangup()),
        ("SIGINT", SignalKind::interrupt()),
        ("SIGQUIT", SignalKind::quit()),
        ("SIGTERM", SignalKind::terminate()),
        ("SIGALRM", SignalKind::alarm()),
    ]
}

/// Posts each arrival of a signal, until the broker ends.
async fn signal_loop(name: &'static str, mut stream: unix::Signal, mailbox: Mailbox<Lifecycle>) {
    while stream.recv().await.is_some() {
        if mailbox.post(move |me, cx| me.on_signal(cx, name)).await.is_err() {
            return;
        }
    }
}

/// Starts the life of a broker whose built-in services are loaded.
///
/// # Errors
/// A signal handler cannot be installed.
pub fn begin(hub: &mut crate::service::Hub) -> Result<(), RpcError> {
    let mut streams = Vec::new();
    for (name, kind) in deadly_signals() {
        let stream =
            unix::signal(kind).map_err(|err| RpcError::new(errno::EINVAL, format!("{name}: {err}")))?;
        streams.push((name, stream));
    }
    hub.core()
        .call_service("state-machine", move |me: &mut Lifecycle, cx| {
            for (name, stream) in streams {
                let mailbox = cx.mailbox::<Lifecycle>();
                cx.spawn_task(signal_loop(name, stream, mailbox));
            }
            me.post(cx, "builtins-success");
        });
    Ok(())
}
