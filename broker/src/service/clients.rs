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

/// Requests that a guest may leave unanswered; what comes after them it cannot answer.
const ASKED_MAX: usize = 64 * 1024;

/// One connected client.
pub(super) struct Client {
    pub(super) info: ClientInfo,
    pub(super) outbox: Rc<dyn Outbox>,
    pub(super) output: BytesMut,
    pub(super) dirty: bool,
    pub(super) subscriptions: HashMap<String, u32>,
    pub(super) services: HashSet<String>,
    pub(super) disconnects: HashMap<(Bytes, u32, bool), Message>,
    /// Requests to a guest's services that it has not answered: routes and matchtag.
    asked: HashSet<(Vec<Bytes>, u32)>,
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
            asked: HashSet::new(),
            rx_count: 0,
            tx_count: 0,
        }
    }

    /// Stamps a message with the connection's credentials (RFC 12): a guest's are always overwritten, an
    /// owner's only where it set none.
    pub(super) fn stamp(&self, msg: &mut Message) {
        if self.is_guest() {
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

    fn is_guest(&self) -> bool {
        self.info.rolemask & role::OWNER == 0
    }

    /// Remembers that this client is asked for something.
    pub(super) fn is_asked(&mut self, req: &Message) {
        if self.is_guest() && req.wants_response() && self.asked.len() < ASKED_MAX {
            self.asked.insert((req.routes.clone(), req.matchtag()));
        }
    }

    /// Returns true for a response to something that was asked. What a guest was not asked for could be meant to pass
    /// for somebody else's answer: routes and matchtags can be guessed.
    pub(super) fn may_answer(&mut self, resp: &Message) -> bool {
        if !self.is_guest() {
            return true;
        }
        let key = (resp.routes.clone(), resp.matchtag());
        if resp.is_streaming() && resp.errnum() == 0 {
            self.asked.contains(&key)
        } else {
            self.asked.remove(&key)
        }
    }

    /// Returns true when an event may be shown to this client and it subscribed to it.
    pub(super) fn wants(&self, event: &Message) -> bool {
        if event.has_flag(flags::PRIVATE) && self.is_guest() && event.userid != self.info.userid {
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Nowhere;

    impl Outbox for Nowhere {
        fn flush(&self, buffer: &mut BytesMut) {
            buffer.clear();
        }
        fn abort(&self, _reason: &str) {}
    }

    fn client(rolemask: u32) -> Client {
        let info = ClientInfo {
            userid: 5,
            rolemask,
            pid: 1,
        };
        Client::new(info, Rc::new(Nowhere))
    }

    fn request(sender: &'static str, matchtag: u32) -> Message {
        let mut req = Message::request("5-shell-f1.stdin".to_owned(), 0, None);
        req.routes.push(Bytes::from_static(sender.as_bytes()));
        req.aux2 = matchtag;
        req
    }

    #[test]
    fn a_guest_answers_what_it_was_asked() {
        let mut guest = client(role::USER);
        let asked = request("a", 7);
        guest.is_asked(&asked);
        assert!(
            !guest.may_answer(&request("a", 8).response(None)),
            "another request"
        );
        assert!(
            !guest.may_answer(&request("b", 7).response(None)),
            "another sender"
        );
        assert!(guest.may_answer(&asked.response(None)));
        assert!(!guest.may_answer(&asked.response(None)), "once");
        // a stream goes on until its error
        let mut stream = request("a", 9);
        stream.flags |= flags::STREAMING;
        guest.is_asked(&stream);
        assert!((0..3).all(|_| guest.may_answer(&stream.response(None))));
        assert!(guest.may_answer(&stream.error_response(61, "")));
        assert!(!guest.may_answer(&stream.response(None)));
        // what wants no answer gets none
        let mut quiet = request("a", 10);
        quiet.flags |= flags::NORESPONSE;
        guest.is_asked(&quiet);
        assert!(!guest.may_answer(&request("a", 10).response(None)));
        assert!(
            client(role::OWNER).may_answer(&asked.response(None)),
            "the owner is trusted"
        );
    }
}
