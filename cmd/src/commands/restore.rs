//! `flux restore`: read an archive of `flux dump` into the content store, for the next start of the KVS or below a key.

use std::collections::VecDeque;

use bytes::Bytes;
use clap::{ArgMatches, Command};
use flux_client::{Handle, NODEID_ANY, Rpc, kvs};
use flux_formats::blobref::{BlobRef, HashType};
use flux_formats::treeobj::{Dir, TreeObj};
use serde::de::IgnoredAny;

use super::dump::{Tally, requests};
use crate::common::args::{flag, operand, required, text, value};
use crate::common::blob::{
    Checkpoint, Door, hash_type, kvs_is_running, put_checkpoint, store_finish, store_start,
};
use crate::common::ctx::{Ctx, eprint};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::tarball::{self, Item};

/// Stores in flight when nobody says how many.
const REQUESTS_DEFAULT: usize = 256;
/// Values shorter than this stand in their directory: a reference would not be shorter.
const INLINE_MAX: usize = 72;
/// Bytes of stores in flight.
const IN_FLIGHT_MAX: usize = 64 << 20;

pub(super) fn args(command: Command) -> Command {
    command
        .arg(flag(
            "verbose",
            Some('v'),
            "List keys on stderr as they are restored",
        ))
        .arg(flag("quiet", Some('q'), "Don't show periodic progress updates"))
        .arg(flag(
            "checkpoint",
            None,
            "Restore to checkpoint; the kvs module must not be loaded",
        ))
        .arg(value("key", None, "KEY", "Restore to KVS key"))
        .arg(flag("no-cache", None, "Bypass the broker content cache"))
        .arg(value(
            "size-limit",
            None,
            "SIZE",
            "Do not restore blobs greater than SIZE bytes (K, M, G may follow)",
        ))
        .arg(value(
            "maxreqs",
            None,
            "N",
            "Max concurrent content store requests (default 256)",
        ))
        .arg(flag(
            "sd-notify",
            None,
            "Send status updates to systemd via flux-broker(1)",
        ))
        .arg(operand("infile", "Archive of flux dump; - for standard input"))
}

/// A store that is in flight, and where its name belongs.
struct Pending {
    path: String,
    size: usize,
    rpc: Rpc,
}

struct Restorer<'a> {
    handle: &'a mut Handle,
    door: Door,
    hash: HashType,
    window: usize,
    root: Dir,
    pending: VecDeque<Pending>,
    in_flight: usize,
    blobs: u64,
    newest: u64,
    tally: Tally,
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let infile = required(matches, "infile");
    let to_checkpoint = matches.get_flag("checkpoint");
    let key = text(matches, "key");
    if to_checkpoint == key.is_some() {
        return usage("Please specify a restore target with --checkpoint or --key");
    }
    let limit = match text(matches, "size-limit") {
        None => None,
        Some(text) => match flux_formats::size::parse_size(text) {
            Ok(0) => None,
            Ok(bytes) => Some(bytes),
            Err(err) => return usage(format!("--size-limit={text}: {err}")),
        },
    };
    let mut handle = ctx.open()?;
    if to_checkpoint && kvs_is_running(&mut handle)? {
        return fail("please unload kvs module before using --checkpoint");
    }
    let hash = hash_type(&mut handle)?;
    let no_cache = matches.get_flag("no-cache");
    let quiet = matches.get_flag("quiet");
    let mut restorer = Restorer {
        handle: &mut handle,
        door: Door::bypassing(no_cache),
        hash,
        window: requests(matches, REQUESTS_DEFAULT)?,
        root: Dir::new(),
        pending: VecDeque::new(),
        in_flight: 0,
        blobs: 0,
        newest: 0,
        tally: Tally::new("flux-restore: restored", matches),
    };
    tarball::read(infile, limit, |path, mtime, item| {
        restorer.newest = restorer.newest.max(mtime);
        match item {
            Item::TooLarge(size) => {
                eprint(format!(
                    "{path} size {size} exceeds {} limit, skipping",
                    limit.unwrap_or(0)
                ));
                Ok(())
            }
            item => restorer.entry(path, item),
        }
    })?;
    let rootref = restorer.finish()?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds of a time below the year 10000 are exact"
    )]
    let timestamp = restorer.newest as f64;
    let short = rootref.to_string().chars().take(13).collect::<String>();
    if let Some(key) = key {
        if !quiet {
            ctx.warn(format!("writing snapshot {short} to KVS key '{key}'"));
        }
        let mut txn = kvs::Transaction::new();
        let object = serde_json::to_value(TreeObj::DirRef(rootref)).map_err(CmdError::json(key))?;
        txn.put_treeobj(key, object);
        let namespace = kvs::default_namespace();
        kvs::commit(&mut handle, &namespace, 0, &txn)
            .map_err(CmdError::doing(format!("error updating {key}")))?;
    } else {
        if !quiet {
            ctx.warn(format!(
                "writing snapshot {short} to checkpoint for next KVS start"
            ));
        }
        let checkpoint = Checkpoint {
            rootref,
            sequence: 0,
            timestamp,
        };
        put_checkpoint(&mut handle, &checkpoint)?;
    }
    if !no_cache {
        handle
            .call_empty::<IgnoredAny>("content.flush", NODEID_ANY)
            .map_err(CmdError::doing("error flushing content cache"))?;
    }
    Ok(0)
}

impl Restorer<'_> {
    fn entry(&mut self, path: &str, item: Item) -> Result<(), CmdError> {
        match item {
            Item::File(data) if data.len() < INLINE_MAX => self.insert(path, TreeObj::Val(data.into()))?,
            Item::File(data) => {
                let size = data.len();
                while self.pending.len() >= self.window || self.in_flight + size > IN_FLIGHT_MAX {
                    if !self.reap()? {
                        break;
                    }
                }
                let rpc = store_start(self.handle, self.door, Bytes::from(data))?;
                self.in_flight += size;
                self.pending.push_back(Pending {
                    path: path.to_owned(),
                    size,
                    rpc,
                });
            }
            Item::Symlink(target) => {
                let object = match target.split_once("::") {
                    Some((namespace, target)) => TreeObj::symlink(Some(namespace), target),
                    None => TreeObj::symlink(None, &target),
                };
                self.insert(path, object)?;
            }
            Item::Directory => {
                self.place(path)?;
                return Ok(());
            }
            Item::TooLarge(_) => return Ok(()),
        }
        self.tally.key(Some(self.handle), path);
        Ok(())
    }

    /// Waits for the oldest store; false when there is none.
    fn reap(&mut self) -> Result<bool, CmdError> {
        let Some(Pending { path, size, rpc }) = self.pending.pop_front() else {
            return Ok(false);
        };
        self.in_flight -= size;
        let blobref = store_finish(self.handle, &rpc, self.hash)?;
        self.blobs += 1;
        self.insert(&path, TreeObj::ValRef(vec![blobref]))?;
        Ok(true)
    }

    fn insert(&mut self, path: &str, object: TreeObj) -> Result<(), CmdError> {
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = self.place(parents)?;
        dir.insert(name, object)
            .or_else(|err| fail(format!("{path}: {err}")))?;
        Ok(())
    }

    /// Returns a directory, made when it is not there.
    fn place(&mut self, path: &str) -> Result<&mut Dir, CmdError> {
        let mut dir = &mut self.root;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            if dir.get(name).is_none() {
                dir.insert(name, TreeObj::empty_dir())
                    .or_else(|err| fail(format!("{path}: {err}")))?;
            }
            dir = match dir.get_mut(name) {
                Some(TreeObj::Dir(inner)) => inner,
                _ => return fail(format!("{name} in {path} is not a directory")),
            };
        }
        Ok(dir)
    }

    /// Stores the directories and returns the root's name.
    fn finish(&mut self) -> Result<BlobRef, CmdError> {
        while self.reap()? {}
        let mut root = std::mem::take(&mut self.root);
        let rpc = self.start_dir(&mut root)?;
        let rootref = store_finish(self.handle, &rpc, self.hash)?;
        let more = format!(" ({} blobs)", self.blobs);
        self.tally.finish(self.handle, &more);
        Ok(rootref)
    }

    /// Begins to store a directory after those below it; those that stand beside each other travel together.
    fn start_dir(&mut self, dir: &mut Dir) -> Result<Rpc, CmdError> {
        let mut flights = Vec::new();
        for (name, object) in dir.iter_mut() {
            if let TreeObj::Dir(inner) = object {
                flights.push((name.clone(), self.start_dir(inner)?));
            }
        }
        for (name, rpc) in flights {
            let blobref = store_finish(self.handle, &rpc, self.hash)?;
            dir.insert(name.as_str(), TreeObj::DirRef(blobref))
                .or_else(|err| fail(format!("{name}: {err}")))?;
        }
        self.blobs += 1;
        Ok(store_start(self.handle, self.door, dir.encode().into())?)
    }
}
