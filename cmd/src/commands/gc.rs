//! `flux gc`: remove blobs to which nothing in the KVS refers any more, while the instance runs.
//!
//! Everything reachable from a checkpoint, from the root of a namespace, or stored since the beginning is marked; then
//! the rest is swept in small steps. The root of `primary` is taken last: what moves there from another namespace
//! meanwhile is reachable from it.

use std::collections::HashSet;

use clap::{ArgMatches, Command};
use flux_client::{Handle, Message, Rpc, RpcError, kvs};
use flux_formats::blobref::BlobRef;
use flux_formats::errno;
use flux_formats::treeobj::TreeObj;
use serde::Deserialize;
use serde_json::json;

use super::dump::requests;
use crate::common::args::{flag, value, verbose, verbosity};
use crate::common::blob::{Checkpoint, Door, checkpoints_raw, parse};
use crate::common::ctx::{Ctx, eprint};
use crate::common::error::{CmdError, CmdResult, fail};
use crate::common::treewalk::{BadDir, Visitor, Walk, walk};

/// Loads in flight when nobody says how many: an instance at work is not to be disturbed.
const REQUESTS_DEFAULT: usize = 2;
/// Blobs marked in one request.
const MARK_BATCH: usize = 100;
/// Blobs deleted in one request.
const DELETE_MAX: u32 = 1000;
/// Blobs looked at in one request.
const LOOK_MAX: u32 = 100_000;

pub(super) fn args(command: Command) -> Command {
    verbose(command)
        .arg(flag("no-cache", None, "Bypass the broker content cache"))
        .arg(value(
            "maxreqs",
            None,
            "N",
            "Increase number of concurrent requests (default 2)",
        ))
        .arg(flag("test-mark-only", None, "Mark, but sweep nothing").hide(true))
}

#[derive(Deserialize)]
struct Info {
    current_epoch: i64,
    high_water: i64,
}

#[derive(Deserialize)]
struct Marked {
    marked: u64,
}

#[derive(Deserialize)]
struct Swept {
    deleted: u64,
    cursor: i64,
}

#[derive(Deserialize)]
struct Namespaces {
    namespaces: Vec<Namespace>,
}

#[derive(Deserialize)]
struct Namespace {
    namespace: String,
}

struct Marker {
    seen: HashSet<BlobRef>,
    batch: Vec<BlobRef>,
    /// Full batches that wait to be sent.
    full: Vec<Vec<BlobRef>>,
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let level = verbosity(matches)?;
    let say = |text: String| {
        if level > 0 {
            eprint(text);
        }
    };
    let settings = Walk {
        separator: '.',
        window: requests(matches, REQUESTS_DEFAULT)?,
        door: Door::bypassing(matches.get_flag("no-cache")),
    };
    let mut handle = ctx.open()?;
    let info: Info = handle
        .call("content-backing.gc-info", 0, &json!({ "epoch": 0 }))
        .map_err(CmdError::doing("failed to fetch gc-info"))?;
    let roots = roots(&mut handle)?;
    say(format!(
        "marking from {} roots (epoch {})",
        roots.len(),
        info.current_epoch
    ));
    let mut marker = Marker {
        seen: HashSet::new(),
        batch: Vec::new(),
        full: Vec::new(),
    };
    let mut marked = 0;
    for root in roots {
        walk(&mut handle, &root, settings, &mut marker)?;
        marked += flush(&mut handle, info.current_epoch, &mut marker)?;
    }
    say(format!("marked {marked} blobs"));
    if matches.get_flag("test-mark-only") {
        return Ok(0);
    }
    let (mut cursor, mut deleted) = (0, 0);
    loop {
        let request = json!({
            "epoch": info.current_epoch, "cursor": cursor, "high_water": info.high_water,
            "delete_cap": DELETE_MAX, "window": LOOK_MAX,
        });
        let swept: Swept = handle
            .call("content-backing.sweep", 0, &request)
            .map_err(CmdError::doing("sweep failed"))?;
        deleted += swept.deleted;
        if swept.cursor >= info.high_water || (swept.cursor == cursor && swept.deleted == 0) {
            break;
        }
        cursor = swept.cursor;
    }
    say(format!("deleted {deleted} blobs"));
    Ok(0)
}

/// Returns every root that must stay: checkpoints, private namespaces, and last the primary one.
fn roots(handle: &mut Handle) -> Result<Vec<BlobRef>, CmdError> {
    let mut roots = Vec::new();
    let names = match handle.call_empty::<Namespaces>("kvs.namespace-list", 0) {
        Ok(list) => list.namespaces,
        Err(err) if err.is_rpc(errno::ENOSYS) => Vec::new(),
        Err(err) => return Err(CmdError::doing("kvs.namespace-list")(err)),
    };
    let others = names.iter().filter(|name| name.namespace != "primary");
    let primary = names.iter().filter(|name| name.namespace == "primary");
    for Namespace { namespace } in others.chain(primary) {
        match kvs::getroot(handle, namespace) {
            Ok(root) => roots.push(parse(&root.rootref)?),
            // it has been removed meanwhile
            Err(err) if err.is_rpc(errno::ENOENT) || err.is_rpc(errno::ENOTSUP) => {}
            Err(err) => return Err(CmdError::doing(format!("kvs.getroot {namespace}"))(err)),
        }
    }
    // After the roots of namespaces were told, the store keeps them with its next checkpoint.
    match checkpoints_raw(handle) {
        Ok(list) => {
            for value in list {
                let checkpoint: Checkpoint =
                    serde_json::from_value(value).map_err(CmdError::json("checkpoint"))?;
                roots.push(checkpoint.rootref);
            }
        }
        Err(err) if err.is_rpc(errno::ENOENT) => {}
        Err(err) => return Err(CmdError::doing("error fetching checkpoints")(err)),
    }
    Ok(roots)
}

/// Sends what waits to be marked; returns how many blobs were.
fn flush(handle: &mut Handle, epoch: i64, marker: &mut Marker) -> Result<u64, CmdError> {
    marker.next_batch();
    let mut rpcs: Vec<Rpc> = Vec::new();
    for batch in marker.full.drain(..) {
        let hashes: Vec<String> = batch.iter().map(ToString::to_string).collect();
        rpcs.push(handle.rpc(
            "content-backing.mark",
            0,
            &json!({ "epoch": epoch, "hashes": hashes }),
        )?);
    }
    let mut count = 0;
    for rpc in &rpcs {
        let answer: Marked = handle.get(rpc).map_err(CmdError::doing("mark failed"))?;
        count += answer.marked;
    }
    Ok(count)
}

impl Marker {
    fn add(&mut self, blobref: BlobRef) {
        self.batch.push(blobref);
        if self.batch.len() >= MARK_BATCH {
            self.next_batch();
        }
    }

    fn next_batch(&mut self) {
        if !self.batch.is_empty() {
            self.full.push(std::mem::take(&mut self.batch));
        }
    }
}

impl Visitor for Marker {
    fn object(&mut self, _path: &str, object: &TreeObj) {
        if let TreeObj::ValRef(blobrefs) = object {
            blobrefs.iter().for_each(|blobref| self.add(*blobref));
        }
    }

    fn descend(&mut self, _path: &str, blobref: &BlobRef) -> bool {
        let new = self.seen.insert(*blobref);
        if new {
            self.add(*blobref);
        }
        new
    }

    fn wants_values(&self) -> bool {
        false
    }

    fn blobs(
        &mut self,
        _path: &str,
        _blobrefs: &[BlobRef],
        _answers: Vec<Result<Message, RpcError>>,
    ) -> Result<(), CmdError> {
        Ok(())
    }

    /// Nothing may be swept when not everything has been seen.
    fn bad_dir(&mut self, path: &str, blobref: &BlobRef, why: BadDir) -> Result<(), CmdError> {
        fail(format!(
            "{path}: {blobref}: {why}; nothing was deleted (see flux fsck)"
        ))
    }
}
