//! `flux fsck`: is every blob that the KVS refers to in the content store?

use std::collections::HashSet;

use bytes::Bytes;
use clap::{ArgMatches, Command};
use flux_client::{Handle, Message, Rpc};
use flux_formats::blobref::BlobRef;
use flux_formats::treeobj::TreeObj;
use serde_json::Value;

use crate::common::args::{flag, text, value};
use crate::common::ctx::{Ctx, eprint};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::time::strftime;

/// Most blobs that are asked for at once.
const WINDOW: usize = 256;

pub(super) fn args(command: Command) -> Command {
    command
        .arg(flag(
            "verbose",
            Some('v'),
            "List keys as they are being validated",
        ))
        .arg(flag("quiet", Some('q'), "Reduce output to essential information"))
        .arg(value(
            "rootref",
            Some('r'),
            "BLOBREF",
            "Check integrity starting with BLOBREF",
        ))
        .arg(flag(
            "repair",
            Some('R'),
            "Repair recoverable keys and place them in lost+found",
        ))
        .arg(flag("job-aware", Some('j'), "Perform additional job data checks"))
}

/// One blob to be checked.
struct Item {
    path: String,
    blobref: BlobRef,
    is_dir: bool,
}

#[derive(Debug, Default)]
struct Counts {
    errors: u64,
    blobs: u64,
}

struct Checker<'a> {
    ctx: &'a Ctx,
    handle: Handle,
    seen: HashSet<BlobRef>,
    stack: Vec<Item>,
    pending: std::collections::VecDeque<(Item, Rpc)>,
    counts: Counts,
    verbose: bool,
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    if matches.get_flag("repair") {
        return fail("--repair is not available yet in this version");
    }
    let quiet = matches.get_flag("quiet");
    let mut handle = ctx.open()?;
    let root = match text(matches, "rootref") {
        Some(word) => match word.parse::<BlobRef>() {
            Ok(root) => root,
            Err(err) => return usage(format!("--rootref={word}: {err}")),
        },
        None => {
            let (root, timestamp) = checkpoint(&mut handle)?;
            if !quiet {
                eprint(format!(
                    "Checking integrity of checkpoint from {}",
                    strftime(timestamp, "%FT%T")
                ));
            }
            root
        }
    };
    let mut checker = Checker {
        ctx,
        handle,
        seen: HashSet::new(),
        stack: vec![Item {
            path: ".".to_owned(),
            blobref: root,
            is_dir: true,
        }],
        pending: std::collections::VecDeque::new(),
        counts: Counts::default(),
        verbose: matches.get_flag("verbose"),
    };
    checker.run()?;
    let counts = checker.counts;
    if !quiet || counts.errors > 0 {
        eprint(format!(
            "Total errors: {} ({} blobs checked)",
            counts.errors, counts.blobs
        ));
    }
    Ok(u8::from(counts.errors > 0))
}

/// Returns the root and time of the newest checkpoint.
fn checkpoint(handle: &mut Handle) -> Result<(BlobRef, f64), CmdError> {
    let response: Value = handle
        .call_empty("content.checkpoint-get", 0)
        .map_err(CmdError::doing("error fetching checkpoints"))?;
    let newest = response
        .pointer("/value/0")
        .or_else(|| response.get("value"))
        .cloned()
        .unwrap_or(Value::Null);
    let rootref = newest.get("rootref").and_then(Value::as_str).unwrap_or("");
    match rootref.parse() {
        Ok(root) => Ok((
            root,
            newest.get("timestamp").and_then(Value::as_f64).unwrap_or(0.0),
        )),
        Err(_) => fail("the content store has no checkpoint of the KVS root"),
    }
}

impl Checker<'_> {
    fn run(&mut self) -> Result<(), CmdError> {
        loop {
            while self.pending.len() < WINDOW {
                let Some(item) = self.stack.pop() else { break };
                if self.seen.insert(item.blobref) {
                    self.start(item)?;
                }
            }
            let Some((item, rpc)) = self.pending.pop_front() else {
                return Ok(());
            };
            self.counts.blobs += 1;
            match self.handle.wait(&rpc) {
                Ok(message) if item.is_dir => self.directory(&item, &message),
                Ok(_) => {}
                Err(flux_client::Error::Rpc(err)) => {
                    self.counts.errors += 1;
                    self.ctx.warn(format!(
                        "{}: missing blobref {}: {}",
                        item.path,
                        item.blobref,
                        err.message()
                    ));
                }
                Err(err) => return Err(err.into()),
            }
        }
    }

    fn start(&mut self, item: Item) -> Result<(), CmdError> {
        let topic = if item.is_dir {
            "content-backing.load"
        } else {
            "content-backing.validate"
        };
        let digest = Bytes::copy_from_slice(item.blobref.digest());
        let rpc = self
            .handle
            .rpc_message(Message::request(topic, 0, Some(digest)))?;
        self.pending.push_back((item, rpc));
        Ok(())
    }

    fn directory(&mut self, item: &Item, message: &Message) {
        let bytes = message.payload.clone().unwrap_or_default();
        match TreeObj::decode_dir(&bytes) {
            Ok(dir) => {
                for (name, object) in dir.iter() {
                    let path = if item.path == "." {
                        name.clone()
                    } else {
                        format!("{}.{name}", item.path)
                    };
                    self.object(path, object);
                }
            }
            Err(err) => {
                self.counts.errors += 1;
                self.ctx.warn(format!(
                    "{}: invalid directory object {}: {err}",
                    item.path, item.blobref
                ));
            }
        }
    }

    fn object(&mut self, path: String, object: &TreeObj) {
        if self.verbose {
            eprint(&path);
        }
        match object {
            TreeObj::DirRef(blobref) => {
                self.stack.push(Item {
                    path,
                    blobref: *blobref,
                    is_dir: true,
                });
            }
            TreeObj::ValRef(blobrefs) => {
                for blobref in blobrefs.iter() {
                    self.stack.push(Item {
                        path: path.clone(),
                        blobref: *blobref,
                        is_dir: false,
                    });
                }
            }
            TreeObj::Dir(dir) => {
                for (name, inner) in dir.iter() {
                    self.object(format!("{path}.{name}"), inner);
                }
            }
            TreeObj::Val(_) | TreeObj::Symlink { .. } => {}
        }
    }
}
