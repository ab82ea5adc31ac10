//! What can a service do? Answer, call, publish, wait for time, run tasks, log.

use super::clients::{Client, ClientId, ClientInfo, Outbox};
use super::core::{Continuation, Core, Hop, Pending, Provider, SlotId, Work};
use super::mailbox::{Mailbox, erase};
use super::spec::{Access, RpcError, Service};
use super::timers::TimerId;
use bytes::Bytes;
use flux_formats::errno::{self, Errnum};
use flux_formats::msg::{self, Kind, Message, NODEID_ANY, PayloadError, flags, role};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A service's view of the hub during one call. Derefs to [`Core`] for attributes, configuration, rank and log.
#[derive(Debug)]
pub struct Cx<'a> {
    pub(super) core: &'a mut Core,
    pub(super) me: SlotId,
}

impl std::ops::Deref for Cx<'_> {
    type Target = Core;
    fn deref(&self) -> &Core {
        self.core
    }
}

impl std::ops::DerefMut for Cx<'_> {
    fn deref_mut(&mut self) -> &mut Core {
        self.core
    }
}

/// Names an RPC so that its answer can be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RpcId(u32);

impl Cx<'_> {
    // ---- answering ----------------------------------------------------------------------------------

    /// Answers a request with a JSON object. A NORESPONSE request is not answered.
    pub fn respond<T: Serialize + ?Sized>(&mut self, req: &Message, body: &T) {
        match msg::json_payload(body) {
            Ok(payload) => self.respond_payload(req, Some(payload)),
            Err(err) => self.fail(req, errno::EPROTO, &err.to_string()),
        }
    }

    /// Answers a request with success and no payload.
    pub fn respond_empty(&mut self, req: &Message) {
        self.respond_payload(req, None);
    }

    /// Answers a request with a payload as it is (JSON text and strings must end with NUL).
    pub fn respond_payload(&mut self, req: &Message, payload: Option<Bytes>) {
        if !req.wants_response() {
            return;
        }
        let mut resp = req.response(payload);
        let core = &mut *self.core;
        core.sign_response(&mut resp);
        core.count_tx(self.me, Kind::Response);
        core.trace(self.me, "tx", &resp);
        core.route_response(resp);
    }

    /// Answers a request with an error; empty `text` sends the number alone.
    pub fn fail(&mut self, req: &Message, errnum: Errnum, text: &str) {
        self.core.count_tx(self.me, Kind::Response);
        if self.core.traces_modules() && req.wants_response() {
            self.core.trace(self.me, "tx", &req.error_response(errnum, text));
        }
        self.core.refuse(req, errnum, text);
    }

    /// Answers a request with an [`RpcError`].
    pub fn fail_with(&mut self, req: &Message, err: &RpcError) {
        self.fail(req, err.errnum, if err.has_text { &err.text } else { "" });
    }

    /// Answers a request with a JSON object or an error.
    pub fn answer<T: Serialize>(&mut self, req: &Message, result: Result<T, RpcError>) {
        match result {
            Ok(body) => self.respond(req, &body),
            Err(err) => self.fail_with(req, &err),
        }
    }

    /// Decodes the JSON payload of a request; on failure the request is answered with EPROTO.
    pub fn decode<T: DeserializeOwned>(&mut self, req: &Message) -> Option<T> {
        match req.payload_json_or_empty::<T>() {
            Ok(body) => Some(body),
            Err(PayloadError::Json(err)) => {
                self.fail(req, errno::EPROTO, &format!("{}: {err}", req.topic));
                None
            }
            Err(_) => {
                self.fail(req, errno::EPROTO, "");
                None
            }
        }
    }

    /// Returns true for a streaming request; else answers EPROTO.
    pub fn require_streaming(&mut self, req: &Message) -> bool {
        if req.is_streaming() {
            return true;
        }
        self.fail(
            req,
            errno::EPROTO,
            &format!("{} requires a streaming request", req.topic),
        );
        false
    }

    /// Returns true when the sender is the instance owner or `userid` itself (RFC 12).
    pub fn authorized(&self, req: &Message, userid: u32) -> bool {
        req.rolemask & role::OWNER != 0
            || (req.rolemask & role::USER != 0 && req.userid != msg::USERID_UNKNOWN && req.userid == userid)
    }

    // ---- calling ------------------------------------------------------------------------------------

    fn prepare(&mut self, mut req: Message, matchtag: u32) -> Message {
        req.aux2 = matchtag;
        if req.userid == msg::USERID_UNKNOWN {
            req.userid = self.core.owner;
            req.rolemask = role::OWNER | role::LOCAL;
        }
        req.flags |= flags::ROUTE;
        if let Some(slot) = self.core.slots.get(self.me) {
            req.routes.push(slot.uuid.clone());
        }
        self.core.count_tx(self.me, Kind::Request);
        self.core.trace(self.me, "tx", &req);
        req
    }

    /// Sends a request and calls `done` with the response. Runs after the current call, never inside it.
    pub fn rpc<S: Service>(
        &mut self,
        req: Message,
        done: impl FnOnce(&mut S, &mut Cx<'_>, Result<Message, RpcError>) + 'static,
    ) -> RpcId {
        let continuation = Continuation::Once(Box::new(move |any, cx, result| {
            if let Some(service) = any.downcast_mut::<S>() {
                done(service, cx, result);
            }
        }));
        self.start_rpc(req, continuation)
    }

    /// Sends a streaming request; `each` gets every response and at last exactly one error (ENODATA = end).
    pub fn rpc_stream<S: Service>(
        &mut self,
        mut req: Message,
        mut each: impl FnMut(&mut S, &mut Cx<'_>, Result<Message, RpcError>) + 'static,
    ) -> RpcId {
        req.flags |= flags::STREAMING;
        let continuation = Continuation::Stream(Box::new(move |any, cx, result| {
            if let Some(service) = any.downcast_mut::<S>() {
                each(service, cx, result);
            }
        }));
        self.start_rpc(req, continuation)
    }

    fn start_rpc(&mut self, req: Message, continuation: Continuation) -> RpcId {
        let matchtag = self.core.allocate_matchtag();
        self.core.pending.insert(
            matchtag,
            Pending {
                slot: self.me,
                continuation,
            },
        );
        let req = self.prepare(req, matchtag);
        self.core.route_request(req);
        RpcId(matchtag)
    }

    /// Forgets an RPC: its response will be dropped. The service asked is not told.
    pub fn forget(&mut self, rpc: RpcId) {
        self.core.pending.remove(&rpc.0);
    }

    /// Returns the matchtag of an RPC, for `*-cancel` requests.
    pub fn matchtag(&self, rpc: RpcId) -> u32 {
        rpc.0
    }

    /// Sends a request that wants no response.
    pub fn notify(&mut self, mut req: Message) {
        req.flags |= flags::NORESPONSE;
        let req = self.prepare(req, msg::MATCHTAG_NONE);
        self.core.route_request(req);
    }

    /// Sends a request to the parent that wants no response; dropped on rank 0.
    pub fn notify_upstream(&mut self, mut req: Message) {
        req.aux1 = self.core.rank();
        req.flags |= flags::UPSTREAM;
        self.notify(req);
    }

    /// Sends a request to the parent's service of that name.
    pub fn rpc_upstream<S: Service>(
        &mut self,
        mut req: Message,
        done: impl FnOnce(&mut S, &mut Cx<'_>, Result<Message, RpcError>) + 'static,
    ) -> RpcId {
        req.aux1 = self.core.rank();
        req.flags |= flags::UPSTREAM;
        self.rpc(req, done)
    }

    /// Sends a streaming request to the parent's service of that name.
    pub fn rpc_stream_upstream<S: Service>(
        &mut self,
        mut req: Message,
        each: impl FnMut(&mut S, &mut Cx<'_>, Result<Message, RpcError>) + 'static,
    ) -> RpcId {
        req.aux1 = self.core.rank();
        req.flags |= flags::UPSTREAM;
        self.rpc_stream(req, each)
    }

    /// Publishes an event at rank 0 and returns its sequence number.
    pub fn publish_now(&mut self, event: Message) -> u32 {
        self.core.publish_event(event)
    }

    /// Builds a request with a JSON payload for [`Cx::rpc`], [`Cx::rpc_stream`] or [`Cx::notify`].
    pub fn request<T: Serialize + ?Sized>(&self, topic: &'static str, nodeid: u32, body: &T) -> Message {
        // a value of our own types always encodes; an empty payload would be answered with EPROTO
        Message::request(
            msg::Topic::from_static(topic),
            nodeid,
            msg::json_payload(body).ok(),
        )
    }

    /// Builds a request to the nearest provider ([`NODEID_ANY`]).
    pub fn request_any<T: Serialize + ?Sized>(&self, topic: &'static str, body: &T) -> Message {
        self.request(topic, NODEID_ANY, body)
    }

    /// Calls into the local service of type `S` that provides `service`, after the current call.
    ///
    /// A typed message without encoding. Returns false when no local service of that name is loaded; when
    /// the type differs the call is dropped.
    pub fn to<S: Service>(
        &mut self,
        service: &str,
        call: impl FnOnce(&mut S, &mut Cx<'_>) + 'static,
    ) -> bool {
        let Some(slot) = self.core.slot_by_service(service) else {
            return false;
        };
        self.core.queue.push_back(Work::Call(slot, erase(call)));
        true
    }

    /// Calls into the service of type `S` at `slot`, after the current call: the way back to a caller that gave
    /// its [`Cx::slot`] with a continuation. Dropped when the type differs or the slot is gone.
    pub fn to_slot<S: Service>(&mut self, slot: SlotId, call: impl FnOnce(&mut S, &mut Cx<'_>) + 'static) {
        self.core.queue.push_back(Work::Call(slot, erase(call)));
    }

    /// Returns true when a service of that name is provided on this rank.
    pub fn provides(&self, service: &str) -> bool {
        self.core.providers.contains_key(service)
    }

    /// Forwards somebody else's request unchanged (credentials and routes kept): up the tree from a
    /// follower's copy of a service.
    pub fn forward_upstream(&mut self, mut req: Message) {
        req.aux1 = self.core.rank();
        req.flags |= flags::UPSTREAM;
        self.core.route_request(req);
    }

    // ---- events -------------------------------------------------------------------------------------

    /// Delivers events whose topic begins with `prefix` to [`Service::on_event`].
    pub fn subscribe(&mut self, prefix: &str) {
        let me = self.me;
        self.core.subscriptions.push((prefix.to_owned(), me));
    }

    /// Ends a subscription made with the same prefix.
    pub fn unsubscribe(&mut self, prefix: &str) {
        let me = self.me;
        if let Some(at) = self
            .core
            .subscriptions
            .iter()
            .position(|(p, s)| p == prefix && *s == me)
        {
            self.core.subscriptions.remove(at);
        }
    }

    /// Publishes an event with a JSON payload; from a follower it travels to rank 0 first.
    pub fn publish<T: Serialize + ?Sized>(&mut self, topic: impl Into<msg::Topic>, body: &T) {
        let event = Message::event(topic, msg::json_payload(body).ok());
        self.publish_message(event);
    }

    /// Publishes an event that only `userid` and the instance owner may see.
    pub fn publish_private<T: Serialize + ?Sized>(
        &mut self,
        topic: impl Into<msg::Topic>,
        userid: u32,
        body: &T,
    ) {
        let mut event = Message::event(topic, msg::json_payload(body).ok());
        event.flags |= flags::PRIVATE;
        event.userid = userid;
        event.rolemask = role::OWNER;
        self.publish_message(event);
    }

    /// Publishes an event message as it is; the owner's credentials are added when it has none.
    pub fn publish_message(&mut self, mut event: Message) {
        if event.userid == msg::USERID_UNKNOWN {
            event.userid = self.core.owner;
            event.rolemask = role::OWNER;
        }
        self.core.count_tx(self.me, Kind::Event);
        self.core.trace(self.me, "tx", &event);
        self.core.receive_event(event);
    }

    // ---- time ---------------------------------------------------------------------------------------

    /// Calls `fire` once after `delay`.
    pub fn timer<S: Service>(
        &mut self,
        delay: Duration,
        fire: impl FnOnce(&mut S, &mut Cx<'_>) + 'static,
    ) -> TimerId {
        let me = self.me;
        self.core.timers.insert(Instant::now() + delay, (me, erase(fire)))
    }

    /// Cancels a timer; one that has fired or was cancelled is ignored.
    pub fn cancel_timer(&mut self, id: TimerId) {
        drop(self.core.timers.cancel(id));
    }

    /// Calls `call` when the hub has nothing else to do in this turn: the place to send one batch for many
    /// requests, without a timer.
    pub fn later<S: Service>(&mut self, call: impl FnOnce(&mut S, &mut Cx<'_>) + 'static) {
        let me = self.me;
        self.core.laters.push((me, erase(call)));
    }

    // ---- tasks and threads --------------------------------------------------------------------------

    /// Runs a future on the broker's runtime and calls `done` with its output. Aborted at exit.
    pub fn spawn<S: Service, T: 'static>(
        &mut self,
        future: impl Future<Output = T> + 'static,
        done: impl FnOnce(&mut S, &mut Cx<'_>, T) + 'static,
    ) {
        let (me, calls) = (self.me, self.core.local_calls.clone());
        self.core.tasks.spawn_local(async move {
            let output = future.await;
            let call = erase(move |service: &mut S, cx: &mut Cx<'_>| done(service, cx, output));
            if calls.send((me, call)).await.is_err() {
                tracing::debug!("task ended after the hub");
            }
        });
    }

    /// Runs a task that reports through a [`Mailbox`], if at all. Aborted at exit.
    pub fn spawn_task(&mut self, future: impl Future<Output = ()> + 'static) {
        self.core.tasks.spawn_local(future);
    }

    /// Returns an address of the calling service for threads and tasks.
    pub fn mailbox<S: Service>(&self) -> Mailbox<S> {
        Mailbox::new(self.core.send_calls.clone(), self.me)
    }

    // ---- itself -------------------------------------------------------------------------------------

    /// Logs under the service's own name. `level` is a syslog severity (3 error … 7 debug).
    pub fn log_as_me(&mut self, level: u8, text: &str) {
        let name = self
            .core
            .slots
            .get(self.me)
            .map(|s| s.name.clone())
            .unwrap_or_default();
        self.core.log(level, &name, text);
    }

    /// Registers another service name at run time with the same methods table as the slot's first.
    ///
    /// # Errors
    /// EEXIST when the name is taken, EINVAL when it has a dot.
    pub fn add_service(&mut self, name: &str) -> Result<(), RpcError> {
        let me = self.me;
        self.core.register_provider(name, Provider::Slot(me))
    }

    /// Lets requests of a topic in at run time, from the owner or from users too; returns false when there is such a method.
    pub fn add_method(&mut self, topic: &str, user: bool) -> bool {
        let access = if user { Access::User } else { Access::Owner };
        let me = self.me;
        let Some(slot) = self.core.slots.get_mut(me) else {
            return false;
        };
        if slot.methods.contains_key(topic) {
            return false;
        }
        slot.methods.insert(topic.to_owned(), access);
        true
    }

    /// Undoes [`Cx::add_method`].
    pub fn remove_method(&mut self, topic: &str) {
        let me = self.me;
        if let Some(slot) = self.core.slots.get_mut(me) {
            slot.methods.remove(topic);
        }
    }

    /// Returns this service's configuration table (`config[table]`), or null.
    pub fn config_table(&self, table: &str) -> &Value {
        self.core.config.get(table).unwrap_or(&Value::Null)
    }

    /// Tells the hub that a stop which was not immediate is done.
    pub fn stopped(&mut self) {
        let me = self.me;
        self.core.slot_stopped(me);
    }

    /// Returns the id of the calling service's slot.
    pub fn slot(&self) -> SlotId {
        self.me
    }

    // ---- clients (used by connector-local only) ---------------------------------------------------------

    /// Takes over a new client connection.
    pub fn client_up(&mut self, id: ClientId, info: ClientInfo, outbox: Rc<dyn Outbox>) {
        self.core.routes.insert(id.clone(), Hop::Client(id.clone()));
        self.core.clients.insert(id, Client::new(info, outbox));
        self.core.client_connects += 1;
    }
}
