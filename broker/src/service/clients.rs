//! What does the hub know of each client of the local connector, and what waits to be written to it?

use bytes::{Bytes, BytesMut};
use flux_formats::msg::{self, Message, flags, role};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// A client's route id: a UUID string of 36 bytes.
pub type ClientId = Bytes;

/// Who a client is, from the connecting socket's credentials.
#[derive(Clone, Copy, Debug)]
pub struct ClientInfo {
    /// User id of the peer.
    pub userid: u32,
    /// Roles that the connection has.
    pub rolemask: u32,
    /// Process id of the peer, for statistics.
    pub pid: i32,
}

/// Where a client's bytes go; implemented by the connector over the socket.
pub trait Outbox {
    /// Takes the bytes: writes what the socket accepts now and leaves the rest in `buffer` for later.
    fn flush(&self, buffer: &mut BytesMut);
    /// Ends the connection at once.
    fn abort(&self, reason: &str);
}

/// Bytes that may wait for a client which does not read; past this it is dropped, and the log says so.
pub(super) const OUTPUT_BYTES_MAX: usize = 256 << 20;

/// One connected client.
pub(super) struct Client {
    pub(super) info: ClientInfo,
    pub(super) outbox: Rc<dyn Outbox>,
    pub(super) output: BytesMut,
    pub(super) dirty: bool,
    pub(super) subscriptions: HashMap<String, u32>,
    pub(super) services: HashSet<String>,
    pub(super) disconnects: HashMap<(Bytes, u32, bool), Message>,
    pub(super) rx_count: u64,
    pub(super) tx_count: u64,
}

impl Client {
    pub(super) fn new(info: ClientInfo, outbox: Rc<dyn Outbox>) -> Self {
        Client {
            info,
            outbox,
            output: BytesMut::new(),
            dirty: false,
            subscriptions: HashMap::new(),
            services: HashSet::new(),
            disconnects: HashMap::new(),
            rx_count: 0,
            tx_count: 0,
        }
    }

    /// Stamps a message with the connection's credentials (RFC 12): a guest's are always overwritten, an
    /// owner's only where it set none.
    pub(super) fn stamp(&self, msg: &mut Message) {
        if self.info.rolemask & role::OWNER == 0 {
            msg.userid = self.info.userid;
            msg.rolemask = self.info.rolemask;
        } else {
            if msg.userid == msg::USERID_UNKNOWN {
                msg.userid = self.info.userid;
            }
            if msg.rolemask == role::NONE {
                msg.rolemask = self.info.rolemask;
            }
        }
        msg.rolemask |= role::LOCAL;
    }

    /// Returns true when an event may be shown to this client and it subscribed to it.
    pub(super) fn wants(&self, event: &Message) -> bool {
        if event.has_flag(flags::PRIVATE)
            && self.info.rolemask & role::OWNER == 0
            && event.userid != self.info.userid
        {
            return false;
        }
        self.subscriptions
            .keys()
            .any(|prefix| event.topic.starts_with(prefix.as_str()))
    }

    /// Remembers the message that tells a service that this client went away.
    pub(super) fn arm_disconnect(&mut self, req: &Message) {
        if req.has_flag(flags::NORESPONSE) {
            return;
        }
        let upstream = req.has_flag(flags::UPSTREAM);
        let key = (req.topic.parent_path(), req.nodeid(), upstream);
        if self.disconnects.contains_key(&key) {
            return;
        }
        let prefix = req
            .topic
            .as_str()
            .rsplit_once('.')
            .map_or("", |(prefix, _)| prefix);
        let topic = if prefix.is_empty() {
            "disconnect".to_owned()
        } else {
            format!("{prefix}.disconnect")
        };
        let mut bye = Message::request(topic, req.nodeid(), None);
        bye.flags |= flags::NORESPONSE | (req.flags & flags::UPSTREAM);
        bye.routes.clone_from(&req.routes);
        bye.userid = req.userid;
        bye.rolemask = req.rolemask;
        self.disconnects.insert(key, bye);
    }
}
