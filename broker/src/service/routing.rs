//! Where does a message go from here? (RFC 3; the decision itself is [`crate::router::decide`].)

use super::core::{Core, Hop, Pending, Provider, SlotId, Work};
use super::spec::RpcError;
use crate::router::{self, Decision};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::msg::{self, Kind, Message, flags, role};

/// Index into a slot's counters.
fn counter(kind: Kind) -> usize {
    match kind {
        Kind::Request => 0,
        Kind::Response => 1,
        Kind::Event => 2,
        Kind::Control => 3,
    }
}

impl Core {
    /// Counts a message that a slot sent.
    pub(super) fn count_tx(&mut self, slot: SlotId, kind: Kind) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.counters.tx[counter(kind)] += 1;
        }
    }

    pub(super) fn count_rx(&mut self, slot: SlotId, kind: Kind) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.counters.rx[counter(kind)] += 1;
            slot.last_used = std::time::Instant::now();
        }
    }

    /// Routes a request that has its routes pushed and credentials stamped.
    pub(super) fn route_request(&mut self, req: Message) {
        let provided = self.providers.contains_key(req.topic.service());
        let decision = router::decide(
            &self.topology,
            req.nodeid(),
            req.has_flag(flags::UPSTREAM),
            provided,
            self.parent.is_some(),
        );
        match decision {
            Decision::Local => self.deliver_request(req),
            Decision::Parent => match self.parent.clone() {
                Some(peer) => self.send_to_peer(&peer, req),
                None => self.refuse(&req, errno::EHOSTUNREACH, ""),
            },
            Decision::Child(rank) => match self.children.get(&rank).cloned() {
                Some(peer) => self.send_to_peer(&peer, req),
                None => self.refuse(&req, errno::EHOSTUNREACH, ""),
            },
            Decision::NoService => {
                let text = format!("No service matching {} is registered", req.topic);
                self.refuse(&req, errno::ENOSYS, &text);
            }
            Decision::Unreachable => self.refuse(&req, errno::EHOSTUNREACH, ""),
        }
    }

    fn deliver_request(&mut self, req: Message) {
        match self.providers.get(req.topic.service()).cloned() {
            Some(Provider::Slot(slot)) => self.queue.push_back(Work::Deliver(slot, req)),
            Some(Provider::Client(id)) => {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.is_asked(&req);
                }
                self.send_to_client(&id, &req);
            }
            None => {
                let text = format!("No service matching {} is registered", req.topic);
                self.refuse(&req, errno::ENOSYS, &text);
            }
        }
    }

    /// Answers a request with an error on behalf of the broker.
    pub(super) fn refuse(&mut self, req: &Message, errnum: u32, text: &str) {
        if req.wants_response() {
            let mut resp = req.error_response(errnum, text);
            self.sign_response(&mut resp);
            self.route_response(resp);
        }
    }

    /// Sends a response to the hop on top of its route stack.
    pub(super) fn route_response(&mut self, mut resp: Message) {
        let Some(top) = resp.routes.last() else { return };
        match self.routes.get(top).cloned() {
            Some(Hop::Slot(_)) => {
                resp.routes.pop();
                self.answer(resp);
            }
            Some(Hop::Client(id)) => {
                resp.routes.pop();
                self.send_to_client(&id, &resp);
            }
            Some(Hop::Peer(peer)) => {
                resp.routes.pop();
                resp.rolemask &= !role::LOCAL;
                if let Err(err) = self.link_send(&peer, &resp) {
                    tracing::debug!(topic = %resp.topic, err = %err, "response dropped: peer is gone");
                }
            }
            // the requester is gone: RFC 6 lets responses for it vanish
            None => {}
        }
    }

    fn answer(&mut self, resp: Message) {
        let matchtag = resp.matchtag();
        let waiting = self.pending.get(&matchtag).map(|pending| pending.slot);
        let Some(slot) = waiting.filter(|_| matchtag != msg::MATCHTAG_NONE) else {
            return;
        };
        self.trace(slot, "rx", &resp);
        let result = if resp.errnum() == 0 {
            Ok(resp)
        } else {
            Err(RpcError::from_response(&resp))
        };
        self.queue.push_back(Work::Answer(matchtag, result));
    }

    fn link_send(&mut self, peer: &Bytes, msg: &Message) -> Result<(), RpcError> {
        self.trace_link("tx", peer, msg);
        match self.links.get_mut(peer) {
            Some(link) => link.send(msg),
            None => Err(RpcError::bare(errno::EHOSTUNREACH)),
        }
    }

    /// Sends a request across the overlay and remembers it, so that losing the peer fails it.
    fn send_to_peer(&mut self, peer: &Bytes, mut req: Message) {
        req.rolemask &= !role::LOCAL;
        if let Err(err) = self.link_send(peer, &req) {
            self.refuse(&req, err.errnum, if err.has_text { &err.text } else { "" });
            return;
        }
        let Some(sender) = req.sender().cloned() else {
            return;
        };
        if req.wants_response() && req.matchtag() != msg::MATCHTAG_NONE {
            let mut header = req;
            header.payload = None;
            let key = (sender, header.matchtag());
            self.crossing.entry(peer.clone()).or_default().insert(key, header);
        } else if req.topic.ends_with(".disconnect")
            && let Some(crossing) = self.crossing.get_mut(peer)
        {
            let path = req.topic.parent_path();
            crossing.retain(|(origin, _), header| *origin != sender || header.topic.parent_path() != path);
        }
    }

    /// Takes a message that arrived from another broker.
    ///
    /// Requests get the peer's id pushed onto their routes; responses are matched to the requests that
    /// crossed; events come from the parent (published) or from a child (to be published at rank 0).
    pub fn receive_from_peer(&mut self, peer: &Bytes, mut msg: Message) {
        self.trace_link("rx", peer, &msg);
        msg.rolemask &= !role::LOCAL;
        match msg.kind {
            Kind::Request => {
                msg.flags |= flags::ROUTE;
                msg.routes.push(peer.clone());
                self.route_request(msg);
            }
            Kind::Response => {
                if let (Some(crossing), Some(sender)) = (self.crossing.get_mut(peer), msg.sender()) {
                    let last = !msg.is_streaming() || msg.errnum() != 0;
                    if last {
                        crossing.remove(&(sender.clone(), msg.matchtag()));
                    }
                }
                self.route_response(msg);
            }
            Kind::Event => self.receive_event(msg),
            Kind::Control => {}
        }
    }

    /// Takes an event: one without a sequence number travels to rank 0, which publishes it.
    pub(super) fn receive_event(&mut self, event: Message) {
        if event.sequence() != 0 && self.rank() != 0 {
            self.event_sequence = event.sequence();
            self.distribute_event(event);
        } else if self.rank() == 0 {
            self.publish_event(event);
        } else if let Some(parent) = self.parent.clone()
            && let Err(err) = self.link_send(&parent, &event)
        {
            tracing::warn!(topic = %event.topic, err = %err, "event dropped");
        }
    }

    /// Numbers and distributes an event at rank 0; returns its sequence number.
    pub(super) fn publish_event(&mut self, mut event: Message) -> u32 {
        self.event_sequence = self.event_sequence.wrapping_add(1).max(1);
        event.aux1 = self.event_sequence;
        event.flags &= !flags::ROUTE;
        event.routes.clear();
        event.rolemask &= !role::LOCAL;
        self.distribute_event(event);
        self.event_sequence
    }

    fn distribute_event(&mut self, event: Message) {
        let children: Vec<Bytes> = self.children.values().cloned().collect();
        for peer in children {
            if let Err(err) = self.link_send(&peer, &event) {
                tracing::warn!(topic = %event.topic, err = %err, "event not sent to a child");
            }
        }
        let mut seen: Vec<SlotId> = Vec::new();
        for (prefix, slot) in &self.subscriptions {
            if event.topic.starts_with(prefix.as_str()) && !seen.contains(slot) {
                seen.push(*slot);
            }
        }
        for slot in seen {
            self.queue.push_back(Work::Deliver(slot, event.clone()));
        }
        let wanting: Vec<_> = self
            .clients
            .iter()
            .filter(|(_, c)| c.wants(&event))
            .map(|(id, _)| id.clone())
            .collect();
        for id in wanting {
            self.send_to_client(&id, &event);
        }
    }

    /// Returns true when a client or service of this rank subscribes to events of this topic.
    ///
    /// For events that are too frequent to publish for nobody.
    pub fn event_wanted(&self, topic: &str) -> bool {
        self.subscriptions
            .iter()
            .any(|(prefix, _)| topic.starts_with(prefix.as_str()))
            || self.clients.values().any(|client| {
                client
                    .subscriptions
                    .keys()
                    .any(|prefix| topic.starts_with(prefix.as_str()))
            })
    }

    /// Registers a connected peer; `child` is its rank when it is a child, `None` for the parent.
    pub fn peer_up(&mut self, peer: Bytes, child: Option<u32>, link: Box<dyn super::Link>) {
        self.routes.insert(peer.clone(), Hop::Peer(peer.clone()));
        self.links.insert(peer.clone(), link);
        match child {
            Some(rank) => {
                self.children.insert(rank, peer);
            }
            None => self.parent = Some(peer),
        }
    }

    /// Forgets a peer and fails every RPC that crossed it with EHOSTUNREACH.
    pub fn peer_down(&mut self, peer: &Bytes) {
        self.routes.remove(peer);
        self.links.remove(peer);
        self.children.retain(|_, id| id != peer);
        if self.parent.as_ref() == Some(peer) {
            self.parent = None;
        }
        let crossing = self.crossing.remove(peer).unwrap_or_default();
        for header in crossing.into_values() {
            self.refuse(&header, errno::EHOSTUNREACH, "");
        }
    }

    /// Returns how many connected children this broker has.
    pub fn child_count(&self) -> usize {
        self.children.len()
    }

    /// Returns how many requests crossed a peer and wait for their answer.
    pub fn crossing_count(&self, peer: Option<&Bytes>) -> usize {
        peer.and_then(|peer| self.crossing.get(peer))
            .map_or(0, std::collections::HashMap::len)
    }

    /// Sends a message straight to a connected peer, not routed (hello, goodbye, control).
    ///
    /// # Errors
    /// The peer is unknown or does not take it.
    pub fn send_to_link(&mut self, peer: &Bytes, msg: &Message) -> Result<(), RpcError> {
        self.link_send(peer, msg)
    }

    /// Fails the RPCs that other services have pending at a slot which is going away.
    pub(super) fn drop_pending_of(&mut self, slot: SlotId) {
        self.pending
            .retain(|_, Pending { slot: owner, .. }| *owner != slot);
    }
}
