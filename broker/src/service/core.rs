//! What does the hub own besides the services? Routing tables, pending RPCs, timers, clients, attributes, log.

use super::clients::{Client, ClientId};
use super::mailbox::{Call, SendCall};
use super::spec::{Access, RpcError};
use super::timers::Timers;
use crate::attrs::Attrs;
use crate::log::LogRing;
use crate::overlay::topology::Topology;
use bytes::Bytes;
use flux_formats::msg::{Message, role};
use serde_json::Value;
use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Instant;
use tokio::sync::mpsc;

use super::Cx;

/// Index of a loaded service; never used twice.
pub type SlotId = usize;

/// State of a broker module as `flux module list` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleStatus {
    /// Being started.
    Init = 0,
    /// Answers requests.
    Running = 1,
    /// Being stopped.
    Finalizing = 2,
    /// Gone.
    Exited = 3,
}

/// A connection to another broker: takes messages without waiting.
pub trait Link {
    /// Queues a message for the peer. Control messages have room of their own.
    ///
    /// # Errors
    /// The peer's queue is full or the peer is gone; the message was not taken.
    fn send(&mut self, msg: &Message) -> Result<(), RpcError>;

    /// Returns the bytes that wait for the peer.
    fn backlog(&self) -> usize {
        0
    }
}

/// Where the owner of a route id is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hop {
    Slot(SlotId),
    Client(ClientId),
    Peer(Bytes),
}

/// Who answers a service name on this rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Provider {
    Slot(SlotId),
    Client(ClientId),
}

/// Message counters of a slot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) tx: [u64; 4],
    pub(super) rx: [u64; 4],
}

/// One loaded service, without the service itself (that is in the hub's table, so that it can be borrowed).
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) uuid: Bytes,
    pub(super) status: ModuleStatus,
    pub(super) is_module: bool,
    pub(super) methods: HashMap<String, Access>,
    pub(super) services: Vec<String>,
    pub(super) counters: Counters,
    /// Bits of `SERVICE.debug`: kept for clients, without meaning to any service.
    pub(super) debug: u32,
    pub(super) last_used: Instant,
    pub(super) stop_waiter: Option<Call>,
    pub(super) stop_caller: SlotId,
}

/// Continuation of an RPC.
pub(super) enum Continuation {
    Once(OnceDone),
    Stream(EachResponse),
}

/// Takes the one answer.
pub(super) type OnceDone = Box<dyn FnOnce(&mut dyn Any, &mut Cx<'_>, Result<Message, RpcError>)>;
/// Takes every response and the error at the end.
pub(super) type EachResponse = Box<dyn FnMut(&mut dyn Any, &mut Cx<'_>, Result<Message, RpcError>)>;

/// An RPC that a local service made and that is not answered yet.
pub(super) struct Pending {
    pub(super) slot: SlotId,
    pub(super) continuation: Continuation,
}

/// One thing to do.
pub(super) enum Work {
    /// Give a message to a service.
    Deliver(SlotId, Message),
    /// Call into a service.
    Call(SlotId, Call),
    /// Complete (or feed) a pending RPC.
    Answer(u32, Result<Message, RpcError>),
    /// Begin to stop a module.
    Stop(SlotId),
    /// Offer a configuration to all, for a caller who wants to hear the outcome.
    Reconfigure(Rc<Value>, SlotId, super::loading::LoadDone),
}

/// Everything shared between the services of one broker.
pub struct Core {
    /// Broker attributes.
    pub attrs: Attrs,
    /// The log ring buffer.
    pub log: LogRing,
    /// The current configuration object.
    pub config: Rc<Value>,
    /// Rank, size and tree.
    pub topology: Rc<Topology>,
    /// User id of the instance owner.
    pub owner: u32,
    pub(super) queue: VecDeque<Work>,
    pub(super) slots: Vec<Slot>,
    pub(super) providers: HashMap<String, Provider>,
    pub(super) routes: HashMap<Bytes, Hop>,
    pub(super) pending: HashMap<u32, Pending>,
    pub(super) next_matchtag: u32,
    pub(super) timers: Timers<(SlotId, Call)>,
    pub(super) laters: Vec<(SlotId, Call)>,
    pub(super) subscriptions: Vec<(String, SlotId)>,
    pub(super) clients: HashMap<ClientId, Client>,
    pub(super) dirty: Vec<ClientId>,
    pub(super) client_connects: u64,
    pub(super) links: HashMap<Bytes, Box<dyn Link>>,
    /// Peer id of the parent when connected.
    pub(super) parent: Option<Bytes>,
    /// Peer ids of connected children by rank.
    pub(super) children: HashMap<u32, Bytes>,
    /// Requests that crossed a peer and are not answered: (peer, original sender, matchtag) -> header.
    pub(super) crossing: HashMap<Bytes, HashMap<(Bytes, u32), Message>>,
    pub(super) event_sequence: u32,
    pub(super) send_calls: mpsc::Sender<(SlotId, SendCall)>,
    pub(super) local_calls: mpsc::Sender<(SlotId, Call)>,
    pub(super) tasks: tokio::task::JoinSet<()>,
    pub(super) new_services: Vec<(SlotId, Box<dyn super::Service>)>,
    pub(super) removed: Vec<SlotId>,
    pub(super) load_waiters: HashMap<SlotId, (SlotId, super::loading::LoadDone)>,
    pub(super) traces: Vec<super::builtin::Trace>,
    pub(super) link_traces: Vec<super::builtin::Trace>,
    pub(super) exit: Option<i32>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("rank", &self.topology.rank())
            .finish_non_exhaustive()
    }
}

/// Returns a fresh random UUID (version 4) as the 36 bytes that routes carry.
pub(crate) fn new_uuid() -> Bytes {
    let mut raw = [0u8; 16];
    if getrandom::fill(&mut raw).is_err() {
        // Without a random source ids would collide; time and pid keep them apart until it is back.
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        raw = (now.as_nanos() ^ (u128::from(std::process::id()) << 96)).to_ne_bytes();
    }
    raw[6] = raw[6] & 0x0f | 0x40;
    raw[8] = raw[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in raw.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    Bytes::from(text)
}

impl Core {
    /// Returns this broker's rank.
    pub fn rank(&self) -> u32 {
        self.topology.rank()
    }

    /// Returns the number of brokers.
    pub fn size(&self) -> u32 {
        self.topology.size()
    }

    pub(super) fn allocate_matchtag(&mut self) -> u32 {
        loop {
            self.next_matchtag = self.next_matchtag.wrapping_add(1).max(1);
            if !self.pending.contains_key(&self.next_matchtag) {
                return self.next_matchtag;
            }
        }
    }

    pub(super) fn slot_by_name(&self, name: &str) -> Option<SlotId> {
        self.slots
            .iter()
            .position(|slot| slot.name == name && slot.status != ModuleStatus::Exited)
    }

    pub(super) fn slot_by_service(&self, service: &str) -> Option<SlotId> {
        match self.providers.get(service) {
            Some(Provider::Slot(slot)) => Some(*slot),
            _ => None,
        }
    }

    /// Queues a typed call into a local service from outside a service. Returns false when it is not loaded.
    pub fn call_service<S: super::Service>(
        &mut self,
        service: &str,
        call: impl FnOnce(&mut S, &mut Cx<'_>) + 'static,
    ) -> bool {
        let Some(slot) = self.slot_by_service(service) else {
            return false;
        };
        self.queue
            .push_back(Work::Call(slot, super::mailbox::erase(call)));
        true
    }

    /// Makes a response carry this broker's authority, as locally generated responses do.
    pub(super) fn sign_response(&self, msg: &mut Message) {
        msg.userid = self.owner;
        msg.rolemask = role::OWNER;
    }

    /// Returns the bytes that wait on the way to whoever sent a request, as far as this broker knows.
    pub fn backlog(&self, req: &Message) -> usize {
        match req.routes.last().and_then(|top| self.routes.get(top)) {
            Some(Hop::Client(id)) => self.clients.get(id).map_or(0, |client| client.output.len()),
            Some(Hop::Peer(peer)) => self.links.get(peer).map_or(0, |link| link.backlog()),
            Some(Hop::Slot(_)) | None => 0,
        }
    }

    /// Queues bytes for a client and marks it for the flush at the end of the turn.
    pub(super) fn send_to_client(&mut self, id: &ClientId, msg: &Message) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        flux_formats::msg::frame_into(msg, &mut client.output);
        client.tx_count += 1;
        if !client.dirty {
            client.dirty = true;
            self.dirty.push(id.clone());
        }
    }

    /// Appends a log entry of this broker. `level` is a syslog severity, 0 to 7.
    pub fn log(&mut self, level: u8, name: &str, text: &str) {
        let lines = self.log.append_local(level, name, text, self.topology.rank());
        for entry in lines {
            self.log_dispatch(&entry);
        }
    }
}
