//! `flux dump`: write the KVS into an archive that `flux restore` reads, here or elsewhere.

use std::io::IsTerminal;

use bytes::Bytes;
use clap::{ArgMatches, Command};
use flux_client::{Handle, Message, NODEID_ANY, RpcError, kvs};
use flux_formats::blobref::BlobRef;
use flux_formats::treeobj::Symlink;
use serde_json::json;

use crate::common::args::{flag, operand, parsed, required, value};
use crate::common::blob::{Door, newest_checkpoint, parse};
use crate::common::ctx::{Ctx, eprint};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::tarball::Writer;
use crate::common::time::{now, whole_secs};
use crate::common::treewalk::{BadDir, Visitor, Walk, walk};

/// Loads in flight when nobody says how many.
const REQUESTS_DEFAULT: usize = 2;

pub(super) fn args(command: Command) -> Command {
    command
        .arg(flag(
            "verbose",
            Some('v'),
            "List keys on stderr as they are archived",
        ))
        .arg(flag("quiet", Some('q'), "Don't show periodic progress updates"))
        .arg(flag("checkpoint", None, "Dump from checkpoint"))
        .arg(flag("no-cache", None, "Bypass the broker content cache"))
        .arg(flag(
            "ignore-failed-read",
            None,
            "Treat content load errors as non-fatal",
        ))
        .arg(flag(
            "sd-notify",
            None,
            "Send status updates to systemd via flux-broker(1)",
        ))
        .arg(value(
            "maxreqs",
            None,
            "N",
            "Increase number of concurrent requests (default 2)",
        ))
        .arg(operand(
            "outfile",
            "Archive (.tar, .tar.gz or .tgz); - for standard output",
        ))
}

/// Counts keys and tells about it.
#[derive(Debug)]
pub(super) struct Tally {
    verb: &'static str,
    shown: bool,
    verbose: bool,
    notify: bool,
    /// Keys so far.
    pub(super) keys: u64,
}

impl Tally {
    pub(super) fn new(verb: &'static str, matches: &ArgMatches) -> Self {
        let verbose = matches.get_flag("verbose");
        Tally {
            verb,
            shown: !verbose && !matches.get_flag("quiet"),
            verbose,
            notify: matches.get_flag("sd-notify"),
            keys: 0,
        }
    }

    /// Counts a key.
    pub(super) fn key(&mut self, handle: Option<&mut Handle>, path: &str) {
        self.keys += 1;
        if self.verbose {
            eprint(path);
        }
        if self.keys < 10 || self.keys.is_multiple_of(100) {
            if self.shown && std::io::stderr().is_terminal() {
                use std::io::Write;
                // nobody to tell when standard error is closed
                let _gone = write!(std::io::stderr(), "\r{}", self.words());
            }
            if let Some(handle) = handle {
                self.tell(handle);
            }
        }
    }

    fn words(&self) -> String {
        format!("{} {} keys", self.verb, self.keys)
    }

    /// Tells systemd through the broker that the work goes on.
    pub(super) fn tell(&self, handle: &mut Handle) {
        if self.notify {
            let status = format!("{} {} keys", self.verb.replace(": ", "(1) has "), self.keys);
            // only a service manager's patience depends on it
            let _lost = handle.notify(
                "state-machine.sd-notify",
                NODEID_ANY,
                &json!({ "status": status }),
            );
        }
    }

    /// Shows the end.
    pub(super) fn finish(&self, handle: &mut Handle, more: &str) {
        if self.shown {
            let start = if std::io::stderr().is_terminal() { "\r" } else { "" };
            eprint(format!("{start}{}{more}", self.words()));
        }
        self.tell(handle);
    }
}

/// Reads `--maxreqs`.
pub(super) fn requests(matches: &ArgMatches, default: usize) -> Result<usize, CmdError> {
    match parsed(matches, "maxreqs")?.unwrap_or(default) {
        0 => usage("invalid value for --maxreqs: must be positive"),
        count => Ok(count),
    }
}

struct Dumper {
    writer: Writer,
    tally: Tally,
    ignore_failed_read: bool,
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let outfile = required(matches, "outfile");
    let settings = Walk {
        separator: '/',
        window: requests(matches, REQUESTS_DEFAULT)?,
        door: Door::bypassing(matches.get_flag("no-cache")),
    };
    let mut handle = ctx.open()?;
    let (root, time) = if matches.get_flag("checkpoint") {
        let checkpoint = newest_checkpoint(&mut handle)?;
        (checkpoint.rootref, checkpoint.timestamp)
    } else {
        let root = kvs::getroot(&mut handle, "primary")
            .map_err(CmdError::doing("error fetching current KVS root"))?;
        (parse(&root.rootref)?, now())
    };
    let mut dumper = Dumper {
        writer: Writer::create(outfile, u64::try_from(whole_secs(time)).unwrap_or(0))?,
        tally: Tally::new("flux-dump: archived", matches),
        ignore_failed_read: matches.get_flag("ignore-failed-read"),
    };
    walk(&mut handle, &root, settings, &mut dumper)?;
    let Dumper { writer, tally, .. } = dumper;
    writer.finish()?;
    tally.finish(&mut handle, "");
    Ok(0)
}

impl Dumper {
    fn failed(&self, text: String) -> Result<(), CmdError> {
        if self.ignore_failed_read {
            eprint(text);
            return Ok(());
        }
        fail(text)
    }
}

impl Visitor for Dumper {
    fn value(&mut self, path: &str, data: &Bytes) -> Result<(), CmdError> {
        self.writer.file(path, &[data])?;
        self.tally.key(None, path);
        Ok(())
    }

    fn blobs(
        &mut self,
        path: &str,
        _blobrefs: &[BlobRef],
        answers: Vec<Result<Message, RpcError>>,
    ) -> Result<(), CmdError> {
        let mut parts = Vec::with_capacity(answers.len());
        for (at, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(message) => parts.push(message.payload.unwrap_or_default()),
                Err(err) => return self.failed(format!("{path}: missing blobref {at}: {}", err.message())),
            }
        }
        let parts: Vec<&[u8]> = parts.iter().map(|part| &part[..]).collect();
        self.writer.file(path, &parts)?;
        self.tally.key(None, path);
        Ok(())
    }

    fn symlink(&mut self, path: &str, link: &Symlink) -> Result<(), CmdError> {
        let target = match &link.namespace {
            Some(namespace) => format!("{namespace}::{}", link.target),
            None => link.target.clone(),
        };
        self.writer.symlink(path, &target)?;
        self.tally.key(None, path);
        Ok(())
    }

    fn empty_dir(&mut self, path: &str) -> Result<(), CmdError> {
        self.writer.directory(path)
    }

    fn bad_dir(&mut self, path: &str, _blobref: &BlobRef, why: BadDir) -> Result<(), CmdError> {
        match why {
            BadDir::Load(_) => self.failed(format!("{path}: {why}")),
            BadDir::Malformed(_) => fail(format!("{path}: {why}")),
        }
    }
}
