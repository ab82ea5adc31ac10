//! What becomes of what is in memory? (Stub: nothing.)
use super::commit::{Pending, ReadyReply};
use super::node::Dir;
use super::service::Space;
use super::Kvs;
use crate::service::{Cx, RpcError};
use flux_formats::blobref::{BlobRef, HashType};

/// State.
#[derive(Default)]
pub(super) struct Keeper {}

impl Keeper {
    pub(super) fn epoch(&self) -> u32 {
        1
    }
    pub(super) fn dirty_bytes(&self) -> usize {
        0
    }
    pub(super) fn expose(&mut self, _root: &Dir) {}
    pub(super) fn remember(&mut self, _root: &Dir) {}
    pub(super) fn recall(&self, _blobref: &BlobRef) -> Option<Dir> {
        None
    }
    pub(super) fn refusal(&self, _durable: bool) -> Option<RpcError> {
        None
    }
    pub(super) fn record(&mut self, _name: &str, _seq: u64, _pending: &Pending) {}
    pub(super) fn record_create(&mut self, _space: &Space, _hash: HashType) {}
    pub(super) fn record_remove(&mut self, _name: &str) {}
    pub(super) fn hold(&mut self, _durable: bool, reply: ReadyReply) -> Option<ReadyReply> {
        Some(reply)
    }
}

impl Kvs {
    pub(super) fn restore(&mut self, cx: &mut Cx<'_>) {
        self.set_restored(cx);
    }
    pub(super) fn keep(&mut self, _cx: &mut Cx<'_>) {}
    pub(super) fn stop_keeping(&mut self, _cx: &mut Cx<'_>) -> bool {
        true
    }
}
