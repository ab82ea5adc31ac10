//! Who runs the services? One loop: take work, call the service, flush, wait for the outside.

use super::alarm::Alarm;
use super::clients::OUTPUT_BYTES_MAX;
use super::core::{Continuation, Core, ModuleStatus, Provider, Slot, SlotId, Work, new_uuid};
use super::core::{Counters, Hop};
use super::mailbox::{Call, MAILBOX_DEPTH, SendCall};
use super::spec::{Access, RpcError, Service};
use super::timers::Timers;
use super::{Cx, builtin};
use crate::attrs::Attrs;
use crate::log::LogRing;
use crate::overlay::topology::Topology;
use flux_formats::errno;
use flux_formats::msg::{Kind, Message, role};
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Posts taken from a mailbox in one go.
const BATCH: usize = 256;
/// Memory that nobody uses is looked for so often at most. (An idle broker is woken by the heartbeat.)
const TIDY_PERIOD: Duration = Duration::from_secs(1);

/// The services of one broker and what they share.
pub struct Hub {
    core: Core,
    services: Vec<Option<Box<dyn Service>>>,
    from_threads: mpsc::Receiver<(SlotId, SendCall)>,
    from_tasks: mpsc::Receiver<(SlotId, Call)>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("core", &self.core)
            .finish_non_exhaustive()
    }
}

impl Hub {
    /// Returns a hub without services.
    pub fn new(attrs: Attrs, log: LogRing, config: Rc<Value>, topology: Topology, owner: u32) -> Self {
        let (send_calls, from_threads) = mpsc::channel(MAILBOX_DEPTH);
        let (local_calls, from_tasks) = mpsc::channel(MAILBOX_DEPTH);
        let core = Core {
            attrs,
            log,
            config,
            topology: Rc::new(topology),
            owner,
            queue: VecDeque::new(),
            slots: Vec::new(),
            providers: HashMap::new(),
            routes: HashMap::new(),
            pending: HashMap::new(),
            next_matchtag: 0,
            timers: Timers::default(),
            laters: Vec::new(),
            subscriptions: Vec::new(),
            clients: HashMap::new(),
            dirty: Vec::new(),
            client_connects: 0,
            links: HashMap::new(),
            parent: None,
            children: HashMap::new(),
            crossing: HashMap::new(),
            event_sequence: 0,
            send_calls,
            local_calls,
            tasks: tokio::task::JoinSet::new(),
            new_services: Vec::new(),
            removed: Vec::new(),
            load_waiters: HashMap::new(),
            traces: Vec::new(),
            link_traces: Vec::new(),
            exit: None,
        };
        Hub {
            core,
            services: Vec::new(),
            from_threads,
            from_tasks,
        }
    }

    /// Returns the shared part, for setting up and for tests.
    pub fn core(&mut self) -> &mut Core {
        &mut self.core
    }

    /// Loads and starts a service under `name`.
    ///
    /// # Errors
    /// EEXIST when one of its service names is taken; the error of [`Service::start`].
    pub fn load(
        &mut self,
        name: &str,
        service: Box<dyn Service>,
        is_module: bool,
    ) -> Result<SlotId, RpcError> {
        let slot = self.core.register_slot(name, service.as_ref(), is_module)?;
        self.services.push(Some(service));
        self.start(slot)?;
        Ok(slot)
    }

    fn start(&mut self, slot: SlotId) -> Result<(), RpcError> {
        let mut result = Ok(());
        self.with_service(slot, |service, cx| result = service.start(cx));
        match &result {
            Ok(()) => self.core.set_status(slot, ModuleStatus::Running),
            Err(_) => self.unload(slot),
        }
        result
    }

    fn unload(&mut self, slot: SlotId) {
        self.core.forget_slot(slot);
        if let Some(place) = self.services.get_mut(slot) {
            *place = None;
        }
    }

    fn with_service(&mut self, slot: SlotId, call: impl FnOnce(&mut dyn Service, &mut Cx<'_>)) {
        let Some(mut service) = self.services.get_mut(slot).and_then(Option::take) else {
            return;
        };
        let mut cx = Cx {
            core: &mut self.core,
            me: slot,
        };
        call(service.as_mut(), &mut cx);
        if let Some(place) = self.services.get_mut(slot) {
            *place = Some(service);
        }
    }

    fn call(&mut self, slot: SlotId, call: impl FnOnce(&mut dyn std::any::Any, &mut Cx<'_>)) {
        self.with_service(slot, |service, cx| {
            let any: &mut dyn std::any::Any = service;
            call(any, cx);
        });
    }

    /// Does all queued work, then what was put off to the end of the turn, until nothing is left; flushes.
    pub fn run_queue(&mut self) {
        loop {
            while let Some(work) = self.core.queue.pop_front() {
                self.perform(work);
                self.finish_loads();
            }
            if self.core.laters.is_empty() {
                break;
            }
            for (slot, call) in std::mem::take(&mut self.core.laters) {
                self.call(slot, call);
            }
            self.finish_loads();
        }
        self.core.flush_clients();
    }

    fn finish_loads(&mut self) {
        while !self.core.new_services.is_empty() || !self.core.removed.is_empty() {
            for (slot, service) in std::mem::take(&mut self.core.new_services) {
                while self.services.len() <= slot {
                    self.services.push(None);
                }
                if let Some(place) = self.services.get_mut(slot) {
                    *place = Some(service);
                }
                let result = self.start(slot);
                self.core.load_finished(slot, result);
            }
            for slot in std::mem::take(&mut self.core.removed) {
                self.unload(slot);
            }
        }
    }

    fn perform(&mut self, work: Work) {
        match work {
            Work::Call(slot, call) => self.call(slot, call),
            Work::Deliver(slot, msg) => self.deliver(slot, msg),
            Work::Answer(matchtag, result) => self.feed(matchtag, result),
            Work::Stop(slot) => {
                let mut done = false;
                self.with_service(slot, |service, cx| done = service.stop(cx));
                if done {
                    self.core.slot_stopped(slot);
                }
            }
            Work::Reconfigure(config, caller, done) => {
                let result = self.reconfigure(&config);
                self.call(caller, |any, cx| done(any, cx, result));
            }
        }
    }

    /// Asks all, then commits to all (DESIGN §4).
    fn reconfigure(&mut self, config: &Rc<Value>) -> Result<(), RpcError> {
        let slots = 0..self.services.len();
        for slot in slots.clone() {
            let mut answer = Ok(());
            self.with_service(slot, |service, cx| answer = service.config_prepare(cx, config));
            if let Err(err) = answer {
                let name = self
                    .core
                    .slots
                    .get(slot)
                    .map(|s| s.name.clone())
                    .unwrap_or_default();
                return Err(RpcError::new(err.errnum, format!("{name}: {}", err.text)));
            }
        }
        self.core.config = config.clone();
        for slot in slots {
            self.with_service(slot, |service, cx| service.config_commit(cx));
        }
        Ok(())
    }

    fn deliver(&mut self, slot: SlotId, msg: Message) {
        self.core.count_rx(slot, msg.kind);
        self.core.trace(slot, "rx", &msg);
        if msg.kind == Kind::Event {
            // anybody may publish; services listen to the instance owner, as in flux-core
            if msg.rolemask & role::OWNER == 0 {
                return;
            }
            self.with_service(slot, |service, cx| service.on_event(cx, &msg));
            return;
        }
        let status = self.core.slots.get(slot).map(|s| s.status);
        if !matches!(
            status,
            Some(ModuleStatus::Running | ModuleStatus::Init | ModuleStatus::Finalizing)
        ) {
            self.core.refuse(&msg, errno::ENOSYS, "");
            return;
        }
        match self.core.access(slot, &msg) {
            Handling::Method(access) => match access.refusal(msg.rolemask) {
                Some(text) => self.core.refuse(&msg, errno::EPERM, text),
                None => self.with_service(slot, |service, cx| service.on_request(cx, msg)),
            },
            Handling::Builtin => self.with_service(slot, |service, cx| builtin::handle(service, cx, &msg)),
            Handling::Disconnect => self.with_service(slot, |service, cx| service.on_disconnect(cx, &msg)),
            Handling::Unknown => {
                let text = format!("Unknown service method '{}'", msg.topic);
                self.core.refuse(&msg, errno::ENOSYS, &text);
            }
        }
    }

    fn feed(&mut self, matchtag: u32, result: Result<Message, RpcError>) {
        let Some(mut pending) = self.core.pending.remove(&matchtag) else {
            return;
        };
        let slot = pending.slot;
        self.core.count_rx(slot, Kind::Response);
        match pending.continuation {
            Continuation::Once(done) => self.call(slot, |any, cx| done(any, cx, result)),
            Continuation::Stream(mut each) => {
                let last = result.is_err();
                // put back before the call, so that the service may forget it from inside
                if last {
                    self.call(slot, |any, cx| each(any, cx, result));
                    return;
                }
                pending.continuation = Continuation::Stream(Box::new(|_, _, _| {}));
                self.core.pending.insert(matchtag, pending);
                self.call(slot, |any, cx| each(any, cx, result));
                if let Some(pending) = self.core.pending.get_mut(&matchtag) {
                    pending.continuation = Continuation::Stream(each);
                }
            }
        }
    }

    /// Calls into the context of the service named `probe`.
    #[cfg(test)]
    pub(super) fn call_probe(&mut self, call: impl FnOnce(&mut Cx<'_>)) {
        if let Some(slot) = self.core.slot_by_name("probe") {
            self.with_service(slot, |_, cx| call(cx));
        }
    }

    /// Does what is queued and posted.
    #[cfg(test)]
    pub(super) async fn run_posts(&mut self) {
        self.run_queue();
        while let Ok((slot, call)) = self.from_threads.try_recv() {
            self.core.queue.push_back(Work::Call(slot, call));
        }
        self.run_queue();
    }

    /// Does what is queued, then waits a little for tasks, threads and timers.
    #[cfg(test)]
    pub(super) async fn run_turn(&mut self) {
        self.fire_timers(Instant::now());
        self.run_queue();
        let patience = tokio::time::sleep(Duration::from_millis(5));
        tokio::select! {
            Some((slot, call)) = self.from_threads.recv() => self.core.queue.push_back(Work::Call(slot, call)),
            Some((slot, call)) = self.from_tasks.recv() => self.core.queue.push_back(Work::Call(slot, call)),
            () = patience => {}
        }
        self.run_queue();
    }

    fn take_library_logs(&mut self) {
        for (level, name, text) in crate::trace_log::take() {
            self.core.log(level, &name, &text);
        }
    }

    fn fire_timers(&mut self, now: Instant) {
        while let Some((slot, call)) = self.core.timers.pop_due(now) {
            self.core.queue.push_back(Work::Call(slot, call));
        }
    }

    /// Runs until a service calls [`Core::request_exit`]; returns that exit code.
    pub async fn run(&mut self) -> i32 {
        let mut threads = Vec::with_capacity(BATCH);
        let mut tasks = Vec::with_capacity(BATCH);
        let mut alarm = Alarm::default();
        let mut tidied = Instant::now();
        loop {
            let now = Instant::now();
            self.fire_timers(now);
            self.take_library_logs();
            self.run_queue();
            if now - tidied >= TIDY_PERIOD {
                crate::sys::allocator::give_back();
                tidied = now;
            }
            if let Some(code) = self.core.exit {
                self.core.flush_clients();
                self.core.tasks.abort_all();
                return code;
            }
            while self.core.tasks.try_join_next().is_some() {}
            let deadline = self.core.timers.next_deadline();
            // every wait has an end: a timer (the heartbeat at the latest) or a post
            let until = deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(60));
            tokio::select! {
                biased;
                _ = self.from_threads.recv_many(&mut threads, BATCH) => {
                    for (slot, call) in threads.drain(..) {
                        self.core.queue.push_back(Work::Call(slot, call));
                    }
                }
                _ = self.from_tasks.recv_many(&mut tasks, BATCH) => {
                    for (slot, call) in tasks.drain(..) {
                        self.core.queue.push_back(Work::Call(slot, call));
                    }
                }
                () = alarm.wait_until(until) => {}
            }
        }
    }
}

/// What a request's topic is for a slot.
enum Handling {
    Method(Access),
    Builtin,
    Disconnect,
    Unknown,
}

impl Core {
    fn access(&self, slot: SlotId, msg: &Message) -> Handling {
        let Some(slot) = self.slots.get(slot) else {
            return Handling::Unknown;
        };
        if let Some(access) = slot.methods.get(msg.topic.as_str()) {
            return Handling::Method(*access);
        }
        let method = msg.topic.method();
        // services registered at run time (add_service) share the first interface's methods
        if let Some(first) = slot.services.first()
            && let Some(access) = slot.methods.get(&format!("{first}.{method}"))
        {
            return Handling::Method(*access);
        }
        match method {
            "disconnect" => Handling::Disconnect,
            _ if msg.topic.ends_with(".disconnect") => Handling::Disconnect,
            _ if builtin::is_builtin(method) => Handling::Builtin,
            _ => Handling::Unknown,
        }
    }

    /// Makes a slot for a service and registers its names; the status is Init.
    pub(super) fn register_slot(
        &mut self,
        name: &str,
        service: &dyn Service,
        is_module: bool,
    ) -> Result<SlotId, RpcError> {
        if self.slot_by_name(name).is_some() {
            return Err(RpcError::new(
                errno::EEXIST,
                format!("module {name} is already loaded"),
            ));
        }
        let id = self.slots.len();
        let mut methods = HashMap::new();
        let mut services = Vec::new();
        for interface in service.interfaces() {
            if self.providers.contains_key(interface.service) {
                return Err(RpcError::new(
                    errno::EEXIST,
                    format!("service {} is already registered", interface.service),
                ));
            }
            services.push(interface.service.to_owned());
            for method in interface.methods {
                methods.insert(format!("{}.{}", interface.service, method.name), method.access);
            }
        }
        for service in &services {
            self.providers.insert(service.clone(), Provider::Slot(id));
        }
        let uuid = new_uuid();
        self.routes.insert(uuid.clone(), Hop::Slot(id));
        self.slots.push(Slot {
            name: name.to_owned(),
            uuid,
            status: ModuleStatus::Init,
            is_module,
            methods,
            services,
            counters: Counters::default(),
            debug: 0,
            last_used: Instant::now(),
            stop_waiter: None,
            stop_caller: 0,
        });
        Ok(id)
    }

    fn set_status(&mut self, slot: SlotId, status: ModuleStatus) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.status = status;
        }
    }

    /// Removes every trace of a slot: its services, subscriptions, timers in flight and pending RPCs.
    fn forget_slot(&mut self, id: SlotId) {
        self.set_status(id, ModuleStatus::Exited);
        self.providers
            .retain(|_, provider| *provider != Provider::Slot(id));
        self.subscriptions.retain(|(_, slot)| *slot != id);
        self.routes.retain(|_, hop| *hop != Hop::Slot(id));
        self.drop_pending_of(id);
    }

    /// Adds a service name.
    pub(super) fn register_provider(&mut self, name: &str, provider: Provider) -> Result<(), RpcError> {
        if name.is_empty() || name.contains('.') {
            return Err(RpcError::bare(errno::EINVAL));
        }
        if self.providers.contains_key(name) {
            return Err(RpcError::bare(errno::EEXIST));
        }
        if let Provider::Slot(id) = &provider
            && let Some(slot) = self.slots.get_mut(*id)
        {
            slot.services.push(name.to_owned());
        }
        self.providers.insert(name.to_owned(), provider);
        Ok(())
    }

    /// Ends the hub's loop after the current turn with this exit code.
    pub fn request_exit(&mut self, code: i32) {
        self.exit = Some(code);
    }

    /// Writes what waits for clients; a client that does not read and has too much waiting is dropped.
    fn flush_clients(&mut self) {
        for id in std::mem::take(&mut self.dirty) {
            let Some(client) = self.clients.get_mut(&id) else {
                continue;
            };
            client.dirty = false;
            let outbox = client.outbox.clone();
            outbox.flush(&mut client.output);
            if client.output.len() > OUTPUT_BYTES_MAX {
                let text = format!(
                    "client pid {} does not read, {} bytes wait",
                    client.info.pid,
                    client.output.len()
                );
                client.output.clear();
                outbox.abort(&text);
                self.log(4, "connector-local", &text);
            }
        }
    }

    /// Writes more of a client's output when its socket has room; returns true when nothing is left.
    pub fn flush_client(&mut self, id: &super::ClientId) -> bool {
        let Some(client) = self.clients.get_mut(id) else {
            return true;
        };
        let outbox = client.outbox.clone();
        outbox.flush(&mut client.output);
        client.output.is_empty()
    }
}
