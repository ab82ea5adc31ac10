//! How does a message leave for a peer? Encoded once into a one-part ZeroMQ message, never waiting.

use crate::service::{Link, RpcError};
use flux_formats::errno;
use flux_formats::msg::{Kind, Message};
use flux_zmtp::{Client, Lane, PeerId, SendError, Server};
use std::rc::Rc;

/// The way to a child.
pub(super) struct ChildLink {
    pub(super) server: Rc<Server>,
    pub(super) peer: PeerId,
}

/// The way to the parent.
pub(super) struct ParentLink {
    pub(super) client: Rc<Client>,
}

/// Control messages have room of their own, so that a full queue does not look like a dead peer.
fn lane(msg: &Message) -> Lane {
    if msg.kind == Kind::Control {
        Lane::Control
    } else {
        Lane::Bulk
    }
}

fn send_error(err: SendError) -> RpcError {
    match err {
        SendError::Full => RpcError::new(errno::EAGAIN, "the overlay peer does not keep up"),
        SendError::TooLarge => RpcError::new(errno::EMSGSIZE, "the message is too large for the overlay"),
        SendError::Unknown => RpcError::bare(errno::EHOSTUNREACH),
    }
}

impl Link for ChildLink {
    fn send(&mut self, msg: &Message) -> Result<(), RpcError> {
        self.server
            .send_on(lane(msg), self.peer, &[msg.encode()])
            .map_err(send_error)
    }

    fn backlog(&self) -> usize {
        self.server.queued_bytes(self.peer).unwrap_or(0)
    }
}

impl Link for ParentLink {
    fn send(&mut self, msg: &Message) -> Result<(), RpcError> {
        self.client
            .send_on(lane(msg), &[msg.encode()])
            .map_err(send_error)
    }

    fn backlog(&self) -> usize {
        self.client.queued_bytes()
    }
}
