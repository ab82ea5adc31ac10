//! The `overlay` module: connects to the parent, welcomes children, watches both.

use super::hello::{self, HelloRequest, HelloResponse};
use super::link::{ChildLink, ParentLink};
use super::{SubtreeStatus, heartbeat};
use crate::bootstrap::{Listener, Parent, overlay_limits};
use crate::lifecycle::{self, Lifecycle};
use crate::modules::groups::Groups;
use crate::service::{Cx, Interface, Link, Mailbox, Method, RpcError, Service};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::fsd::Fsd;
use flux_formats::idset::IdSet;
use flux_formats::msg::{Kind, Message, control};
use flux_zmtp::{Client, ClientConfig, Event, Events, Keypair, PeerId, Server};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// First and longest pause between attempts to reach the parent.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Events taken from a socket in one post.
const EVENT_BATCH: usize = 64;

/// One child in the tree, there or not.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) status: SubtreeStatus,
    pub(super) since: Instant,
    pub(super) error: Option<String>,
    peer: Option<PeerId>,
    uuid: Option<Bytes>,
    heard: Instant,
    torpid: bool,
    said_goodbye: bool,
    /// Requests sent to and received from it, for statistics.
    pub(super) rpcs: u64,
}

/// The `overlay` module.
#[derive(Debug)]
pub struct Overlay {
    keypair: Keypair,
    parent: Option<Parent>,
    listener: Option<Listener>,
    server: Option<Rc<Server>>,
    client: Option<Rc<Client>>,
    parent_uuid: Option<Bytes>,
    identities: HashMap<PeerId, Bytes>,
    pub(super) children: BTreeMap<u32, Child>,
    pub(super) status: SubtreeStatus,
    pub(super) since: Instant,
    pub(super) health_watchers: Vec<Message>,
    monitors: Vec<Message>,
    torpid_min: Duration,
    torpid_max: Duration,
    tcp_user_timeout: Option<Duration>,
    hostname: String,
    leaving: bool,
    /// False until this broker has joined and has its configuration: children wait with their hello.
    accepting: bool,
    waiting_hellos: Vec<(PeerId, Message)>,
}

#[derive(Deserialize)]
struct RankRequest {
    rank: u32,
}

#[derive(Deserialize)]
struct ReasonRequest {
    reason: String,
}

/// Connects to the parent; posts `parent-ready` or `parent-fail`.
pub fn join(cx: &mut Cx<'_>) {
    cx.to::<Overlay>("overlay", |me, cx| me.connect(cx));
}

/// Lets children in: this broker has joined and has its configuration.
pub fn accept(cx: &mut Cx<'_>) {
    cx.to::<Overlay>("overlay", |me, cx| {
        me.accepting = true;
        for (peer, msg) in std::mem::take(&mut me.waiting_hellos) {
            me.welcome(cx, peer, &msg);
        }
    });
}

/// Leaves the parent in good order; posts `goodbye`.
pub fn goodbye(cx: &mut Cx<'_>) {
    cx.to::<Overlay>("overlay", |me, cx| me.say_goodbye(cx));
}

impl Overlay {
    /// Returns the overlay of a booted broker.
    pub fn new(
        keypair: Keypair,
        parent: Option<Parent>,
        listener: Option<Listener>,
        tcp_user_timeout: Option<Duration>,
        hostname: String,
    ) -> Self {
        Overlay {
            keypair,
            parent,
            listener,
            server: None,
            client: None,
            parent_uuid: None,
            identities: HashMap::new(),
            children: BTreeMap::new(),
            status: SubtreeStatus::Full,
            since: Instant::now(),
            health_watchers: Vec::new(),
            monitors: Vec::new(),
            torpid_min: Duration::from_secs(5),
            torpid_max: Duration::from_secs(30),
            tcp_user_timeout,
            hostname,
            leaving: false,
            accepting: false,
            waiting_hellos: Vec::new(),
        }
    }

    // ---- the parent -----------------------------------------------------------------------------------

    fn connect(&mut self, cx: &mut Cx<'_>) {
        let Some(parent) = self.parent.clone() else { return };
        let config = ClientConfig {
            server_key: parent.key,
            keypair: self.keypair.clone(),
            identity: Bytes::from(cx.rank().to_string()),
            connect_timeout: Duration::from_secs(30),
            limits: overlay_limits(),
            heartbeat: Some(heartbeat()),
            tcp_user_timeout: self.tcp_user_timeout,
        };
        let attempts = async move {
            let mut pause = RETRY_FIRST;
            loop {
                match Client::connect(&parent.endpoint, config.clone()).await {
                    Ok(connected) => return connected,
                    Err(err) => tracing::debug!(err = %err, "parent not reached yet"),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
        };
        cx.spawn(
            attempts,
            |me: &mut Overlay, cx, (client, events): (Client, Events)| {
                let mailbox = cx.mailbox::<Overlay>();
                cx.spawn_task(pump(events, mailbox, Overlay::on_parent_events));
                me.client = Some(Rc::new(client));
                me.send_hello(cx);
            },
        );
    }

    fn send_hello(&mut self, cx: &mut Cx<'_>) {
        let hello = HelloRequest {
            rank: cx.rank(),
            version: hello::WIRE_VERSION,
            uuid: cx.attrs.get("broker.uuid").unwrap_or("").to_owned(),
            status: self.status as u32,
            hostname: self.hostname.clone(),
            build: hello::build_id().to_owned(),
        };
        if let Some(client) = &self.client {
            let mut link = ParentLink {
                client: client.clone(),
            };
            if let Err(err) = link.send(&hello::request(&hello)) {
                cx.log_as_me(3, &format!("hello to the parent: {err}"));
            }
        }
    }

    fn on_parent_events(&mut self, cx: &mut Cx<'_>, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Up { .. } => {}
                Event::Message { parts, .. } => {
                    if let Some(msg) = decode(&parts) {
                        self.on_parent_message(cx, msg);
                    }
                }
                Event::Down { reason, .. } => self.parent_lost(cx, &reason.to_string()),
            }
        }
    }

    fn on_parent_message(&mut self, cx: &mut Cx<'_>, msg: Message) {
        if let Some(parent) = self.parent_uuid.clone() {
            if msg.kind != Kind::Control {
                cx.receive_from_peer(&parent, msg);
            } else if msg.aux1 == control::DISCONNECT {
                self.parent_lost(cx, "the parent told this broker to disconnect");
            }
            return;
        }
        // only the answer to the hello may come before the parent is known
        if msg.kind != Kind::Response || &*msg.topic != "overlay.hello" {
            return;
        }
        if msg.errnum() != 0 {
            let text = RpcError::from_response(&msg).text;
            cx.log_as_me(3, &format!("the parent refused this broker: {text}"));
            lifecycle::post(cx, "parent-fail");
            return;
        }
        let Ok(HelloResponse { uuid, hostlist }) = msg.payload_json() else {
            cx.log_as_me(3, "the parent's hello response is not understood");
            lifecycle::post(cx, "parent-fail");
            return;
        };
        let Some(client) = self.client.clone() else { return };
        let uuid = Bytes::from(uuid);
        cx.peer_up(uuid.clone(), None, Box::new(ParentLink { client }));
        self.parent_uuid = Some(uuid);
        if !hostlist.is_empty() {
            cx.attrs.set_internal("hostlist", hostlist);
        }
        self.send_keepalive(cx);
        lifecycle::post(cx, "parent-ready");
    }

    fn parent_lost(&mut self, cx: &mut Cx<'_>, reason: &str) {
        let Some(uuid) = self.parent_uuid.take() else {
            if !self.leaving {
                cx.log_as_me(3, &format!("connection to the parent: {reason}"));
                lifecycle::post(cx, "parent-fail");
            }
            return;
        };
        cx.peer_down(&uuid);
        self.client = None;
        if self.leaving {
            return;
        }
        cx.log_as_me(2, &format!("lost the parent: {reason}"));
        cx.to::<Lifecycle>("state-machine", |life, cx| life.parent_lost(cx));
    }

    /// Tells the parent now and then that this broker is not stuck, whatever else flows.
    fn send_keepalive(&mut self, cx: &mut Cx<'_>) {
        if let Some(parent) = self.parent_uuid.clone() {
            drop(cx.send_to_link(&parent, &Message::control(control::HEARTBEAT, 0)));
            cx.timer(self.torpid_min, |me: &mut Overlay, cx| me.send_keepalive(cx));
        }
    }

    fn say_goodbye(&mut self, cx: &mut Cx<'_>) {
        self.leaving = true;
        if self.parent_uuid.is_none() {
            lifecycle::post(cx, "goodbye");
            return;
        }
        let req = cx.request_any("overlay.goodbye", &json!({}));
        cx.rpc_upstream(req, |_: &mut Overlay, cx, _| lifecycle::post(cx, "goodbye"));
    }

    // ---- the children ---------------------------------------------------------------------------------

    fn on_child_events(&mut self, cx: &mut Cx<'_>, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Up { peer, identity, .. } => {
                    self.identities.insert(peer, identity);
                }
                Event::Message { peer, parts, credit } => {
                    match decode(&parts) {
                        Some(msg) => self.on_child_message(cx, peer, msg),
                        None => self.drop_peer(cx, peer, "sent something that is not a message"),
                    }
                    drop(credit);
                }
                Event::Down { peer, reason } => self.child_down(cx, peer, &reason.to_string()),
            }
        }
    }

    fn child_by_peer(&mut self, peer: PeerId) -> Option<(u32, &mut Child)> {
        self.children
            .iter_mut()
            .find(|(_, child)| child.peer == Some(peer))
            .map(|(rank, child)| (*rank, child))
    }

    fn on_child_message(&mut self, cx: &mut Cx<'_>, peer: PeerId, msg: Message) {
        let now = Instant::now();
        let Some((rank, child)) = self.child_by_peer(peer) else {
            self.welcome(cx, peer, &msg);
            return;
        };
        child.heard = now;
        child.rpcs += 1;
        let woke = std::mem::take(&mut child.torpid);
        let Some(uuid) = child.uuid.clone() else { return };
        if woke {
            self.set_torpid(cx, rank, false);
        }
        if msg.kind == Kind::Control {
            if msg.aux1 == control::STATUS {
                self.set_child_status(cx, rank, SubtreeStatus::from_wire(msg.aux2), None);
            }
            return;
        }
        cx.receive_from_peer(&uuid, msg);
    }

    /// Handles the first message of a connection, which must be a hello.
    fn welcome(&mut self, cx: &mut Cx<'_>, peer: PeerId, msg: &Message) {
        let Some(identity) = self.identities.get(&peer).cloned() else {
            return;
        };
        if !self.accepting {
            if self.waiting_hellos.iter().all(|(waiting, _)| *waiting != peer) {
                self.waiting_hellos.push((peer, msg.clone()));
            }
            return;
        }
        if &*msg.topic != "overlay.hello" || msg.kind != Kind::Request {
            self.drop_peer(cx, peer, "did not say hello");
            return;
        }
        let Ok(hello) = msg.payload_json::<HelloRequest>() else {
            self.drop_peer(cx, peer, "sent a hello that is not understood");
            return;
        };
        let Some(server) = self.server.clone() else { return };
        let mut link = ChildLink { server, peer };
        if let Some(reason) = hello::refusal(&hello, &identity, cx.topology.children()) {
            cx.log_as_me(
                3,
                &format!("refused {} (rank {}): {reason}", hello.hostname, hello.rank),
            );
            drop(link.send(&msg.error_response(errno::EINVAL, &reason)));
            return;
        }
        let body = HelloResponse {
            uuid: cx.attrs.get("broker.uuid").unwrap_or("").to_owned(),
            hostlist: cx.attrs.get("hostlist").unwrap_or("").to_owned(),
        };
        let payload = flux_formats::msg::json_payload(&body).ok();
        if link.send(&msg.response(payload)).is_err() {
            return;
        }
        let uuid = Bytes::from(hello.uuid);
        cx.peer_up(uuid.clone(), Some(hello.rank), Box::new(link));
        if let Some(child) = self.children.get_mut(&hello.rank) {
            child.peer = Some(peer);
            child.uuid = Some(uuid);
            child.heard = Instant::now();
            child.said_goodbye = false;
            child.torpid = false;
        }
        self.set_child_status(cx, hello.rank, SubtreeStatus::from_wire(hello.status), None);
        children_changed(cx);
    }

    fn drop_peer(&mut self, cx: &mut Cx<'_>, peer: PeerId, reason: &str) {
        cx.log_as_me(4, &format!("dropped a peer that {reason}"));
        if let Some(server) = &self.server {
            server.disconnect(peer);
        }
    }

    fn child_down(&mut self, cx: &mut Cx<'_>, peer: PeerId, reason: &str) {
        self.identities.remove(&peer);
        let Some((rank, child)) = self.child_by_peer(peer) else {
            return;
        };
        child.peer = None;
        child.torpid = false;
        let (uuid, clean) = (child.uuid.take(), child.said_goodbye);
        if let Some(uuid) = uuid {
            cx.peer_down(&uuid);
        }
        let ranks: IdSet = cx.topology.subtree(rank).into_iter().collect();
        cx.to::<Groups>("groups", move |groups, cx| groups.subtree_lost(cx, &ranks));
        if clean {
            self.set_child_status(cx, rank, SubtreeStatus::Offline, None);
        } else {
            let host = self.host_of(cx, rank);
            let text = format!("{host} (rank {rank}) transitioning to LOST due to {reason}");
            cx.log_as_me(3, &text);
            self.set_child_status(cx, rank, SubtreeStatus::Lost, Some(reason.to_owned()));
        }
        children_changed(cx);
    }

    pub(super) fn host_of(&self, cx: &Cx<'_>, rank: u32) -> String {
        let hosts = cx
            .attrs
            .get("hostlist")
            .and_then(|h| h.parse::<flux_formats::hostlist::Hostlist>().ok());
        let at = usize::try_from(rank).unwrap_or(usize::MAX);
        hosts
            .and_then(|h| h.iter().nth(at).map(|name| name.to_string()))
            .unwrap_or_else(|| format!("rank{rank}"))
    }

    fn set_child_status(&mut self, cx: &mut Cx<'_>, rank: u32, status: SubtreeStatus, error: Option<String>) {
        let Some(child) = self.children.get_mut(&rank) else {
            return;
        };
        if child.status == status {
            return;
        }
        (child.status, child.since, child.error) = (status, Instant::now(), error);
        let torpid = child.torpid;
        let body = json!({"rank": rank, "status": status.name(), "torpid": torpid});
        for monitor in self.monitors.clone() {
            cx.respond(&monitor, &body);
        }
        let own = SubtreeStatus::combine(self.children.values().map(|child| child.status));
        if own != self.status {
            (self.status, self.since) = (own, Instant::now());
            if let Some(parent) = self.parent_uuid.clone() {
                drop(cx.send_to_link(&parent, &Message::control(control::STATUS, own as u32)));
            }
        }
        self.tell_health(cx);
    }

    // ---- torpor ---------------------------------------------------------------------------------------

    fn check_torpid(&mut self, cx: &mut Cx<'_>) {
        let max = self.torpid_max;
        if !max.is_zero() {
            let silent: Vec<u32> = self
                .children
                .iter_mut()
                .filter(|(_, c)| c.peer.is_some() && !c.torpid && c.heard.elapsed() > max)
                .map(|(rank, child)| {
                    child.torpid = true;
                    *rank
                })
                .collect();
            for rank in silent {
                self.set_torpid(cx, rank, true);
            }
        }
        cx.timer(self.torpid_min, |me: &mut Overlay, cx| me.check_torpid(cx));
    }

    fn set_torpid(&mut self, cx: &mut Cx<'_>, rank: u32, torpid: bool) {
        let host = self.host_of(cx, rank);
        let text = if torpid {
            format!(
                "broker on {host} (rank {rank}) has been unresponsive for {}",
                Fsd::from(self.torpid_max)
            )
        } else {
            format!("broker on {host} (rank {rank}) is responsive now")
        };
        cx.log_as_me(3, &text);
        let ranks = IdSet::from_range(rank, rank);
        cx.to::<Groups>("groups", move |groups, cx| {
            groups.change(cx, "broker.torpid", torpid, &ranks)
        });
        let status = self
            .children
            .get(&rank)
            .map_or("unknown", |child| child.status.name());
        let body = json!({"rank": rank, "status": status, "torpid": torpid});
        for monitor in self.monitors.clone() {
            cx.respond(&monitor, &body);
        }
    }

    // ---- requests -------------------------------------------------------------------------------------

    fn on_goodbye(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let uuid = req.routes.last().cloned();
        if let Some(child) = self
            .children
            .values_mut()
            .find(|child| child.uuid.is_some() && child.uuid == uuid)
        {
            child.said_goodbye = true;
        }
        cx.respond_empty(req);
    }

    fn disconnect_subtree(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let Some(RankRequest { rank }) = cx.decode(req) else {
            return;
        };
        let Some((uuid, peer)) = self
            .children
            .get(&rank)
            .and_then(|c| Some((c.uuid.clone()?, c.peer?)))
        else {
            let text = format!("rank {rank} is not a connected child of rank {}", cx.rank());
            cx.fail(req, errno::ENOENT, &text);
            return;
        };
        drop(cx.send_to_link(&uuid, &Message::control(control::DISCONNECT, 0)));
        if let Some(server) = &self.server {
            server.disconnect(peer);
        }
        cx.respond_empty(req);
    }

    fn monitor(&mut self, cx: &mut Cx<'_>, req: Message) {
        if !cx.require_streaming(&req) {
            return;
        }
        for (rank, child) in &self.children {
            let body = json!({"rank": rank, "status": child.status.name(), "torpid": child.torpid});
            cx.respond(&req, &body);
        }
        self.monitors.push(Message { payload: None, ..req });
    }

    fn read_config(config: &Value) -> Result<(Option<Duration>, Option<Duration>), RpcError> {
        let read = |name: &str| match config.get("tbon").and_then(|t| t.get(name)) {
            None => Ok(None),
            Some(value) => value
                .as_str()
                .and_then(|text| text.parse::<Fsd>().ok())
                .and_then(Fsd::to_duration)
                .map(Some)
                .ok_or_else(|| {
                    RpcError::new(
                        errno::EINVAL,
                        format!("tbon.{name}: {value} is not a duration (FSD)"),
                    )
                }),
        };
        Ok((read("torpid_min")?, read("torpid_max")?))
    }
}

fn children_changed(cx: &mut Cx<'_>) {
    cx.to::<Lifecycle>("state-machine", |life, cx| life.children_changed(cx));
}

fn decode(parts: &[Bytes]) -> Option<Message> {
    match parts {
        [one] => Message::decode(one).ok(),
        _ => None,
    }
}

/// Posts what happens on a socket, in batches, until it is closed.
async fn pump(
    mut events: Events,
    mailbox: Mailbox<Overlay>,
    take: fn(&mut Overlay, &mut Cx<'_>, Vec<Event>),
) {
    while let Some(first) = events.recv().await {
        let mut batch = vec![first];
        while batch.len() < EVENT_BATCH
            && let Some(event) = events.try_recv()
        {
            batch.push(event);
        }
        if mailbox.post(move |me, cx| take(me, cx, batch)).await.is_err() {
            return;
        }
    }
}

impl Service for Overlay {
    fn interfaces(&self) -> Vec<Interface> {
        const METHODS: &[Method] = &[
            Method::user("health"),
            Method::owner("monitor"),
            Method::user("topology"),
            Method::owner("trace"),
            Method::owner("disconnect-subtree"),
            Method::owner("disconnect-parent"),
            Method::owner("goodbye"),
        ];
        vec![Interface {
            service: "overlay",
            methods: METHODS,
        }]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        let now = Instant::now();
        for rank in cx.topology.clone().children() {
            self.children.insert(
                *rank,
                Child {
                    status: SubtreeStatus::Offline,
                    since: now,
                    error: None,
                    peer: None,
                    uuid: None,
                    heard: now,
                    torpid: false,
                    said_goodbye: false,
                    rpcs: 0,
                },
            );
        }
        if !self.children.is_empty() {
            self.status = SubtreeStatus::Partial;
        }
        self.config_commit(cx);
        if let Some(Listener { server, events }) = self.listener.take() {
            self.server = Some(Rc::new(server));
            let mailbox = cx.mailbox::<Overlay>();
            cx.spawn_task(pump(events, mailbox, Overlay::on_child_events));
            cx.timer(self.torpid_min, |me: &mut Overlay, cx| me.check_torpid(cx));
        }
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        match req.topic.method() {
            "health" => self.health(cx, req),
            "topology" => self.topology(cx, &req),
            "monitor" => self.monitor(cx, req),
            "goodbye" => self.on_goodbye(cx, &req),
            "disconnect-subtree" => self.disconnect_subtree(cx, &req),
            "disconnect-parent" => {
                if let Some(ReasonRequest { reason }) = cx.decode(&req) {
                    self.parent_lost(cx, &reason);
                    cx.respond_empty(&req);
                }
            }
            _ => self.trace(cx, req),
        }
    }

    fn on_disconnect(&mut self, cx: &mut Cx<'_>, msg: &Message) {
        self.health_watchers
            .retain(|request| request.sender() != msg.sender());
        self.monitors.retain(|request| request.sender() != msg.sender());
        cx.drop_traces(msg.sender());
    }

    fn stats(&mut self, cx: &mut Cx<'_>) -> Option<Value> {
        let connected = self
            .children
            .values()
            .filter(|child| child.peer.is_some())
            .count();
        Some(json!({
            "child-count": self.children.len(), "child-connected": connected,
            "parent-count": u32::from(self.parent_uuid.is_some()),
            "parent-rpc": cx.crossing_count(self.parent_uuid.as_ref()),
            "child-rpc": self.children.values().map(|c| cx.crossing_count(c.uuid.as_ref())).sum::<usize>(),
        }))
    }

    fn config_prepare(&mut self, _cx: &mut Cx<'_>, config: &Rc<Value>) -> Result<(), RpcError> {
        Self::read_config(config).map(drop)
    }

    fn config_commit(&mut self, cx: &mut Cx<'_>) {
        let attr = |name: &str| {
            cx.attrs
                .get(name)
                .and_then(|v| v.parse::<Fsd>().ok())
                .and_then(Fsd::to_duration)
        };
        let (min, max) = Self::read_config(&cx.config).unwrap_or_default();
        let floor = Duration::from_millis(100);
        self.torpid_min = min
            .or_else(|| attr("tbon.torpid_min"))
            .unwrap_or(self.torpid_min)
            .max(floor);
        self.torpid_max = max.or_else(|| attr("tbon.torpid_max")).unwrap_or(self.torpid_max);
    }
}
