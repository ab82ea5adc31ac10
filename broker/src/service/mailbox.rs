//! How does something outside the hub (a task, a thread) reach a service?

use super::core::SlotId;
use super::{Cx, Service};
use std::any::Any;
use std::marker::PhantomData;
use tokio::sync::mpsc;

/// A call into a service, type-erased.
pub(super) type Call = Box<dyn FnOnce(&mut dyn Any, &mut Cx<'_>)>;
/// A call that may cross threads.
pub(super) type SendCall = Box<dyn FnOnce(&mut dyn Any, &mut Cx<'_>) + Send>;

/// Posts waiting from tasks and threads. Filled by client sockets, overlay peers and worker threads;
/// when it is full those wait, which is the backpressure at the broker's doors.
pub(super) const MAILBOX_DEPTH: usize = 4096;

/// Returns the type-erased form of a call into a service of type `S`.
pub(super) fn erase<S: Service>(call: impl FnOnce(&mut S, &mut Cx<'_>) + 'static) -> Call {
    Box::new(move |any, cx| {
        if let Some(service) = any.downcast_mut::<S>() {
            call(service, cx);
        }
    })
}

/// The hub did not take a post, because too many are waiting or because it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker's mailbox is full or closed")]
pub struct MailboxFull;

/// An address of the service `S`, for tasks and threads.
pub struct Mailbox<S> {
    sender: mpsc::Sender<(SlotId, SendCall)>,
    slot: SlotId,
    service: PhantomData<fn(&mut S)>,
}

impl<S> std::fmt::Debug for Mailbox<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox")
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}

impl<S> Clone for Mailbox<S> {
    fn clone(&self) -> Self {
        Mailbox {
            sender: self.sender.clone(),
            slot: self.slot,
            service: PhantomData,
        }
    }
}

impl<S: Service> Mailbox<S> {
    pub(super) fn new(sender: mpsc::Sender<(SlotId, SendCall)>, slot: SlotId) -> Self {
        Mailbox {
            sender,
            slot,
            service: PhantomData,
        }
    }

    fn pack(call: impl FnOnce(&mut S, &mut Cx<'_>) + Send + 'static) -> SendCall {
        Box::new(move |any, cx| {
            if let Some(service) = any.downcast_mut::<S>() {
                call(service, cx);
            }
        })
    }

    /// Posts a call, waiting while the mailbox is full.
    ///
    /// # Errors
    /// The hub has ended.
    ///
    /// # Cancel safety
    /// A cancelled post was not made.
    pub async fn post(
        &self,
        call: impl FnOnce(&mut S, &mut Cx<'_>) + Send + 'static,
    ) -> Result<(), MailboxFull> {
        self.sender
            .send((self.slot, Self::pack(call)))
            .await
            .map_err(|_| MailboxFull)
    }

    /// Posts a call without waiting.
    ///
    /// # Errors
    /// The mailbox is full or the hub has ended; the call is dropped.
    pub fn try_post(
        &self,
        call: impl FnOnce(&mut S, &mut Cx<'_>) + Send + 'static,
    ) -> Result<(), MailboxFull> {
        self.sender
            .try_send((self.slot, Self::pack(call)))
            .map_err(|_| MailboxFull)
    }

    /// Posts a call from a thread that is not the broker's, waiting while the mailbox is full.
    ///
    /// # Errors
    /// The hub has ended.
    pub fn blocking_post(
        &self,
        call: impl FnOnce(&mut S, &mut Cx<'_>) + Send + 'static,
    ) -> Result<(), MailboxFull> {
        self.sender
            .blocking_send((self.slot, Self::pack(call)))
            .map_err(|_| MailboxFull)
    }
}
