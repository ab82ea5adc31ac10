//! How do transactions become roots? They queue per namespace and are applied at the end of a turn of the hub,
//! merged into one new version unless they say NO_MERGE. (flux-core: modules/kvs/kvs.c, behaviour)

use super::Kvs;
use super::apply;
use super::fault::{Cred, Nodes, Pins};
use super::local::{CommitInfo, Done};
use super::node::{Editor, Stop};
use super::request::{decode, root_payload};
use super::service::{PRIMARY, Root, Space};
use super::txn::{Change, Op, Txn};
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::msg::{Message, role};
use flux_formats::treeobj::{TreeObj, normalize_key};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::rc::Rc;

/// Commit flag: this transaction gets a version of its own.
const NO_MERGE: u32 = 1;
/// Commit flag: answer when the version is on stable storage.
const SYNC: u32 = 4;
/// Operation flag: append to the value.
const APPEND: u32 = 32;

/// Who hears of a commit.
pub(super) enum CommitReply {
    Client(Message),
    Local(Done<CommitInfo>),
}

/// A transaction that waits for its turn.
pub(super) struct Pending {
    pub(super) txn: Txn,
    pub(super) no_merge: bool,
    pub(super) durable: bool,
    /// It names blobs, which must be loadable before it takes effect.
    pub(super) refers: bool,
    /// Namespace whose root the transaction takes over; it goes when the transaction is applied.
    pub(super) absorbs: Option<Rc<str>>,
    pub(super) reply: CommitReply,
}

#[derive(Deserialize)]
struct CommitRequest<'a> {
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    flags: u32,
    #[serde(borrow)]
    ops: Vec<WireOp<'a>>,
}

#[derive(Deserialize)]
struct WireOp<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    flags: u32,
    #[serde(deserialize_with = "nullable")]
    dirent: Option<TreeObj>,
}

/// Takes null, but not a missing field.
fn nullable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TreeObj>, D::Error> {
    Option::deserialize(deserializer)
}

impl WireOp<'_> {
    fn into_op(self, guest: bool) -> Result<Op, RpcError> {
        if guest {
            self.authorize()?;
        }
        let change = match self.dirent {
            None => Change::Unlink,
            Some(TreeObj::Val(bytes)) if self.flags & APPEND != 0 => Change::Append(bytes),
            Some(_) if self.flags & APPEND != 0 => return Err(RpcError::bare(errno::EPROTO)),
            Some(TreeObj::Val(bytes)) => Change::Value(bytes),
            Some(object) => Change::Put(object),
        };
        Ok(Op {
            key: self.key.into(),
            change,
        })
    }

    /// A guest may not commit what could lead out of its namespace or to other people's blobs.
    fn authorize(&self) -> Result<(), RpcError> {
        let (kind, empty) = match &self.dirent {
            None | Some(TreeObj::Val(_)) => return Ok(()),
            Some(TreeObj::Dir(dir)) => ("non-empty dir", dir.is_empty()),
            Some(object) => (object.type_name(), false),
        };
        if empty {
            Ok(())
        } else {
            Err(RpcError::new(
                errno::EPERM,
                format!("guests may not commit {kind} objects"),
            ))
        }
    }
}

impl Kvs {
    pub(super) fn commit_request(&mut self, cx: &mut Cx<'_>, req: &Message) {
        if let Err(err) = self.commit_begin(cx, req) {
            cx.fail_with(req, &err);
        }
    }

    fn commit_begin(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let CommitRequest {
            namespace,
            flags,
            ops,
        } = decode(req)?;
        let guest = req.rolemask & role::OWNER == 0;
        let ops = ops
            .into_iter()
            .map(|op| op.into_op(guest))
            .collect::<Result<Vec<_>, _>>()?;
        self.space_for(&namespace, Cred::of(req))?;
        let durable = flags & SYNC != 0;
        if durable && namespace != PRIMARY {
            return Err(RpcError::bare(errno::EINVAL));
        }
        let mut header = req.clone();
        header.payload = None;
        let reply = CommitReply::Client(header);
        let no_merge = flags & NO_MERGE != 0;
        let refers = ops
            .iter()
            .any(|op| matches!(&op.change, Change::Put(object) if object.refers()));
        self.enqueue(
            cx,
            &namespace,
            Pending {
                txn: Txn { ops },
                no_merge,
                durable,
                refers,
                absorbs: None,
                reply,
            },
        );
        Ok(())
    }

    /// `kvs.relaycommit` comes from the `kvs` module of another rank, which this broker does not have.
    pub(super) fn relaycommit_request(&mut self, cx: &mut Cx<'_>, req: &Message) {
        cx.fail(
            req,
            errno::ENOSYS,
            "kvs.relaycommit is not needed: use kvs.commit",
        );
    }

    /// Commits for a local service.
    pub(super) fn commit_for(
        &mut self,
        cx: &mut Cx<'_>,
        namespace: &str,
        txn: Txn,
        durable: bool,
        done: Done<CommitInfo>,
    ) {
        let reply = CommitReply::Local(done);
        self.enqueue(
            cx,
            namespace,
            Pending {
                txn,
                no_merge: false,
                durable,
                refers: false,
                absorbs: None,
                reply,
            },
        );
    }

    /// Puts a transaction in the queue of its namespace.
    pub(super) fn enqueue(&mut self, cx: &mut Cx<'_>, namespace: &str, pending: Pending) {
        let refusal = self.keeper.refusal(pending.durable);
        let Some(space) = self
            .spaces
            .get_mut(namespace)
            .filter(|space| !space.closing || pending.absorbs.is_some())
        else {
            pending.reply.fail(cx, &RpcError::bare(errno::ENOTSUP));
            return;
        };
        if let Some(err) = refusal {
            pending.reply.fail(cx, &err);
            return;
        }
        space.queue.push_back(pending);
        let name = space.name.clone();
        self.schedule(cx, &name);
    }

    /// Applies the transactions of a namespace at the end of this turn.
    pub(super) fn schedule(&mut self, cx: &mut Cx<'_>, name: &Rc<str>) {
        let Some(space) = self.spaces.get_mut(name) else {
            return;
        };
        if space.scheduled || space.blocked || space.paused {
            return;
        }
        space.scheduled = true;
        if self.ready.is_empty() {
            cx.later(|kvs: &mut Kvs, cx| kvs.process(cx));
        }
        self.ready.push(name.clone());
    }

    fn process(&mut self, cx: &mut Cx<'_>) {
        for name in std::mem::take(&mut self.ready) {
            if let Some(space) = self.spaces.get_mut(&name) {
                space.scheduled = false;
            }
            while self.process_group(cx, &name) {}
            self.drained(cx, &name);
        }
        self.keep(cx);
    }

    /// Applies one group of transactions; returns true when there may be more.
    fn process_group(&mut self, cx: &mut Cx<'_>, name: &Rc<str>) -> bool {
        let Some(space) = self.spaces.get_mut(name) else {
            return false;
        };
        let Space {
            root, queue, pins, ..
        } = space;
        let editor = Editor {
            fetch: &Nodes {
                cache: &self.cache,
                pins,
            },
            epoch: self.keeper.epoch(),
        };
        let (mut group, mut failed, mut missing) = (Vec::new(), Vec::new(), None);
        let mut unsettled = false;
        while let Some(pending) = queue.front_mut() {
            if std::mem::take(&mut pending.refers) {
                unsettled = true;
                break;
            }
            let alone = pending.no_merge || group.last().is_some_and(|last: &Pending| last.no_merge);
            if alone && !group.is_empty() {
                break;
            }
            if apply::apply_in_place(root, name, &pending.txn, editor) {
                group.extend(queue.pop_front());
                continue;
            }
            match apply::apply(root, name, &pending.txn, editor) {
                Ok(new) => {
                    *root = new;
                    group.extend(queue.pop_front());
                }
                Err(Stop::Errno(errnum)) => failed.extend(queue.pop_front().map(|pending| (pending, errnum))),
                Err(Stop::Missing(blobs)) => {
                    missing = Some(blobs);
                    break;
                }
            }
        }
        for (pending, errnum) in failed {
            pending.reply.fail(cx, &RpcError::bare(errnum));
        }
        space.blocked |= unsettled;
        if unsettled {
            let name = name.clone();
            self.when_settled(cx, move |kvs, cx| kvs.unblock(cx, &name, Ok(Pins::default())));
        }
        let Some(space) = self.spaces.get_mut(name) else {
            return false;
        };
        if !group.is_empty() {
            space.seq += 1;
            space.pins = Pins::default();
            self.publish_group(cx, name, group);
            return !unsettled;
        }
        if let Some(missing) = missing {
            space.blocked = true;
            let name = name.clone();
            self.load(cx, missing, move |kvs, cx, result| kvs.unblock(cx, &name, result));
        }
        false
    }

    fn unblock(&mut self, cx: &mut Cx<'_>, name: &Rc<str>, result: Result<Pins, RpcError>) {
        let Some(space) = self.spaces.get_mut(name) else {
            return;
        };
        space.blocked = false;
        match result {
            Ok(pins) => space.pins.extend(pins),
            // what the first transaction needs cannot be read: it fails, the others get their chance
            Err(err) => {
                if let Some(pending) = space.queue.pop_front() {
                    pending.reply.fail(cx, &err);
                }
            }
        }
        self.schedule(cx, name);
    }

    /// A group is applied: tells everyone.
    fn publish_group(&mut self, cx: &mut Cx<'_>, name: &Rc<str>, group: Vec<Pending>) {
        let Some(space) = self.spaces.get(name) else {
            return;
        };
        let info = CommitInfo {
            rootseq: space.seq,
            root: Root {
                dir: space.root.clone(),
                hash: self.hash,
            },
        };
        let owner = space.owner;
        let guest = &**name != PRIMARY;
        for pending in &group {
            #[expect(clippy::cast_precision_loss, reason = "statistics")]
            self.stats.ops.push(pending.txn.ops.len() as f64);
            self.keeper.record(name, info.rootseq, pending);
        }
        if cx.event_wanted(&format!("kvs.namespace-{name}-setroot")) {
            publish_setroot(cx, name, owner, &info, &group);
        }
        self.watches_changed(cx, name, &group);
        let mut payload: Option<Bytes> = None;
        for Pending {
            durable,
            absorbs,
            reply,
            ..
        } in group
        {
            if let Some(absorbed) = absorbs {
                self.remove_space(cx, &absorbed);
            }
            let reply = match reply {
                CommitReply::Client(req) => {
                    // shells keep what a crash of the broker could take with it
                    let kept = self.keeper.positions().filter(|_| guest);
                    let payload = payload
                        .get_or_insert_with(|| root_payload(info.rootref(), info.rootseq, kept))
                        .clone();
                    ReadyReply::Client(req, payload)
                }
                CommitReply::Local(done) => ReadyReply::Local(done, info.clone()),
            };
            match self.keeper.hold(durable, reply) {
                Some(reply) => reply.send(cx),
                None => continue,
            }
        }
        if payload.is_some() {
            self.keeper.remember(&info.root.dir);
        }
        self.version_reached(cx, name);
    }

    fn version_reached(&mut self, cx: &mut Cx<'_>, name: &Rc<str>) {
        let Some(space) = self.spaces.get_mut(name) else {
            return;
        };
        if space.waiters.is_empty() {
            return;
        }
        let seq = space.seq;
        for (_, req) in space
            .waiters
            .extract_if(.., |(wanted, _)| *wanted <= seq)
            .collect::<Vec<_>>()
        {
            self.answer_version(cx, name, &req);
        }
    }
}

/// An answer that is known, but may have to wait for the disk.
pub(super) enum ReadyReply {
    Client(Message, Bytes),
    Local(Done<CommitInfo>, CommitInfo),
}

impl ReadyReply {
    pub(super) fn send(self, cx: &mut Cx<'_>) {
        match self {
            ReadyReply::Client(req, payload) => cx.respond_payload(&req, Some(payload)),
            ReadyReply::Local(done, info) => done(cx, Ok(info)),
        }
    }

    pub(super) fn fail(self, cx: &mut Cx<'_>, err: &RpcError) {
        match self {
            ReadyReply::Client(req, _) => cx.fail_with(&req, err),
            ReadyReply::Local(done, _) => done(cx, Err(err.clone())),
        }
    }
}

impl CommitReply {
    pub(super) fn fail(self, cx: &mut Cx<'_>, err: &RpcError) {
        match self {
            CommitReply::Client(req) => cx.fail_with(&req, err),
            CommitReply::Local(done) => done(cx, Err(err.clone())),
        }
    }
}

fn publish_setroot(cx: &mut Cx<'_>, name: &str, owner: u32, info: &CommitInfo, group: &[Pending]) {
    let keys: Map<String, Value> = group
        .iter()
        .flat_map(|pending| &pending.txn.ops)
        .filter_map(|op| normalize_key(&op.key).ok())
        .map(|(key, _)| (key.into_owned(), Value::Null))
        .collect();
    let names: Vec<String> = (0..group.len())
        .map(|index| format!("transaction_req.0.{}.{index}", info.rootseq))
        .collect();
    let body = json!({
        "namespace": name, "rootseq": info.rootseq, "rootref": info.rootref().to_string(), "names": names,
        "keys": keys, "owner": owner,
    });
    let userid = cx.owner;
    cx.publish_private(format!("kvs.namespace-{name}-setroot"), userid, &body);
}
