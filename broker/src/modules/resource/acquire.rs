//! What has the scheduler been told? (RFC 28 resource acquisition, typed and on the wire.)

use super::api::{AcquireUpdate, Deliver};
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::idset::IdSet;
use flux_formats::msg::Message;
use flux_formats::resource_set::ResourceSet;
use serde_json::{Value, json};

enum Consumer {
    Local(Deliver),
    Remote(Message),
}

/// The one scheduler that holds the resources, and what it knows.
#[derive(Default)]
pub(super) struct Acquire {
    consumer: Option<Consumer>,
    /// Ranks it was given with the first update; `None` before.
    ranks: Option<IdSet>,
    up: IdSet,
    expiration: f64,
    muted: bool,
}

impl std::fmt::Debug for Acquire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acquire")
            .field("up", &self.up)
            .field("muted", &self.muted)
            .finish_non_exhaustive()
    }
}

impl Acquire {
    /// Returns true while a scheduler holds the resources.
    pub(super) fn is_held(&self) -> bool {
        self.consumer.is_some()
    }

    /// Takes a scheduler of this broker; it replaces an earlier one.
    pub(super) fn hold_local(&mut self, cx: &mut Cx<'_>, deliver: Deliver) {
        self.end(cx, errno::ECANCELED);
        *self = Acquire {
            consumer: Some(Consumer::Local(deliver)),
            ..Acquire::default()
        };
    }

    /// Takes a scheduler that asked with `resource.acquire`.
    ///
    /// # Errors
    /// EBUSY when there is one already; the request comes back.
    pub(super) fn hold_remote(&mut self, request: Message) -> Result<(), Box<(Message, RpcError)>> {
        if self.is_held() {
            let err = RpcError::new(errno::EBUSY, "resources are busy (unload scheduler?)");
            return Err(Box::new((request, err)));
        }
        *self = Acquire {
            consumer: Some(Consumer::Remote(request)),
            ..Acquire::default()
        };
        Ok(())
    }

    /// Sends what changed since the last call: everything the first time.
    pub(super) fn update(&mut self, cx: &mut Cx<'_>, r: &ResourceSet, up: &IdSet) {
        if self.consumer.is_none() || self.muted {
            return;
        }
        let Some(ranks) = self.ranks.clone() else {
            (self.ranks, self.up, self.expiration) = (Some(r.ranks()), up.clone(), r.expiration);
            self.send(
                cx,
                AcquireUpdate::Initial {
                    r: r.clone(),
                    up: up.clone(),
                },
            );
            return;
        };
        let up = up.intersection(&ranks);
        let (went_up, went_down) = (up.difference(&self.up), self.up.difference(&up));
        self.up = up;
        if !went_down.is_empty() {
            self.send(cx, AcquireUpdate::Down(went_down));
        }
        if !went_up.is_empty() {
            self.send(cx, AcquireUpdate::Up(went_up));
        }
        if r.expiration.to_bits() != self.expiration.to_bits() {
            self.expiration = r.expiration;
            self.send(cx, AcquireUpdate::Expiration(r.expiration));
        }
    }

    fn send(&mut self, cx: &mut Cx<'_>, update: AcquireUpdate) {
        match &mut self.consumer {
            Some(Consumer::Local(deliver)) => deliver(cx, update),
            Some(Consumer::Remote(request)) => cx.respond(request, &wire(&update)),
            None => {}
        }
    }

    /// Sends nothing any more, when the instance shuts down.
    pub(super) fn mute(&mut self) {
        self.muted = true;
    }

    /// Ends the stream of a request (`resource.acquire-cancel`).
    pub(super) fn cancel(&mut self, cx: &mut Cx<'_>, sender: Option<&bytes::Bytes>, matchtag: u32) {
        if let Some(Consumer::Remote(request)) = &self.consumer
            && request.sender() == sender
            && request.matchtag() == matchtag
        {
            self.end(cx, errno::ECANCELED);
        }
    }

    /// Forgets a scheduler that went away.
    pub(super) fn disconnect(&mut self, sender: Option<&bytes::Bytes>) {
        if let Some(Consumer::Remote(request)) = &self.consumer
            && request.sender() == sender
        {
            *self = Acquire::default();
        }
    }

    /// Ends the acquisition; a remote holder is told with `errnum`.
    pub(super) fn end(&mut self, cx: &mut Cx<'_>, errnum: u32) {
        if let Some(Consumer::Remote(request)) = &self.consumer {
            cx.fail(request, errnum, "");
        }
        *self = Acquire::default();
    }
}

/// Returns the RFC 28 response for an update.
fn wire(update: &AcquireUpdate) -> Value {
    match update {
        AcquireUpdate::Initial { r, up } => json!({ "resources": r, "up": up }),
        AcquireUpdate::Up(ranks) => json!({ "up": ranks }),
        AcquireUpdate::Down(ranks) => json!({ "down": ranks }),
        AcquireUpdate::Shrink(ranks) => json!({ "shrink": ranks }),
        AcquireUpdate::Expiration(at) => json!({ "expiration": at }),
    }
}
