//! `flux fsck`: is every blob that the KVS refers to in the content store? And what can be saved when not?

mod repair;

use std::collections::HashSet;
use std::io::IsTerminal;

use bytes::Bytes;
use clap::{ArgMatches, Command};
use flux_client::{Error, Handle, Message, Rpc, RpcError};
use flux_formats::blobref::BlobRef;
use flux_formats::errno::ENOENT;
use flux_formats::jobid::{Encoding, JobId};
use flux_formats::treeobj::TreeObj;

use self::repair::{Fix, Tree};
use crate::common::args::{flag, text, value};
use crate::common::blob::{
    Checkpoint, Door, hash_type, kvs_is_running, newest_checkpoint, parse, put_checkpoint,
};
use crate::common::ctx::{Ctx, eprint};
use crate::common::error::{CmdError, CmdResult, fail};
use crate::common::time::{now, strftime};
use crate::common::treewalk::{BadDir, Visitor, Walk, walk};

/// Most blobs that are asked for at once.
const WINDOW: usize = 256;
/// Length of a job's directory: `job.xxxx.xxxx.xxxx.xxxx`.
const JOB_PATH: usize = 23;

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
            "Repair recoverable keys and place them in lost+found; the kvs module must not be loaded",
        ))
        .arg(flag(
            "job-aware",
            Some('j'),
            "With --repair, move all data of a job to lost+found when some of it is damaged",
        ))
}

#[derive(Debug, Default)]
struct Counts {
    errors: u64,
    blobs: u64,
}

struct Checker<'a> {
    ctx: &'a Ctx,
    seen: HashSet<BlobRef>,
    counts: Counts,
    verbose: bool,
    quiet: bool,
    /// What is to be changed; `None` when nothing may be.
    fixes: Option<Vec<Fix>>,
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let quiet = matches.get_flag("quiet");
    let verbose = matches.get_flag("verbose");
    let repairs = matches.get_flag("repair");
    let mut handle = ctx.open()?;
    if repairs && kvs_is_running(&mut handle)? {
        return fail("please unload kvs module before using flux-fsck --repair");
    }
    let start = match text(matches, "rootref") {
        Some(word) => Checkpoint {
            rootref: parse(word)?,
            sequence: 0,
            timestamp: now(),
        },
        None => {
            let checkpoint = newest_checkpoint(&mut handle)?;
            if !quiet {
                eprint(format!(
                    "Checking integrity of checkpoint from {}",
                    strftime(checkpoint.timestamp, "%FT%T")
                ));
            }
            checkpoint
        }
    };
    let mut checker = Checker {
        ctx,
        seen: HashSet::new(),
        counts: Counts::default(),
        verbose,
        quiet,
        fixes: repairs.then(Vec::new),
    };
    let settings = Walk {
        separator: '.',
        window: WINDOW,
        door: Door::Backing,
    };
    walk(&mut handle, &start.rootref, settings, &mut checker)?;
    let Checker { counts, fixes, .. } = checker;
    if !quiet || counts.errors > 0 {
        eprint(format!(
            "Total errors: {} ({} blobs checked)",
            counts.errors, counts.blobs
        ));
    }
    if let Some(fixes) = fixes.filter(|fixes| !fixes.is_empty()) {
        let jobs = matches.get_flag("job-aware");
        mend(ctx, &mut handle, &start, fixes, jobs, quiet)?;
    }
    Ok(u8::from(counts.errors > 0))
}

/// Writes a tree without what is damaged and makes it the one with which the KVS starts.
fn mend(
    ctx: &Ctx,
    handle: &mut Handle,
    start: &Checkpoint,
    fixes: Vec<Fix>,
    jobs: bool,
    quiet: bool,
) -> Result<(), CmdError> {
    let hash = hash_type(handle)?;
    let (mut repaired, mut unlinked) = (0, 0);
    let mut tree = Tree::open(handle, &start.rootref)?;
    let mut job_dirs = Vec::new();
    for fix in fixes {
        if jobs && let Some(dir) = job_dir(&fix.path).filter(|dir| !job_dirs.contains(dir)) {
            job_dirs.push(dir);
        }
        match fix.replacement {
            Some(_) => repaired += 1,
            None => unlinked += 1,
        }
        tree.apply(handle, fix)?;
    }
    for dir in job_dirs {
        if tree.move_to_lost_and_found(handle, &dir)? && !quiet {
            let id = dir.parse::<JobId>();
            let name = id.map_or(dir, |id| id.encode(Encoding::F58Plain));
            say(ctx, &format!("job {name} moved to lost+found"));
        }
    }
    let rootref = tree.store(handle, hash)?;
    let checkpoint = Checkpoint {
        rootref,
        sequence: start.sequence + 1,
        timestamp: now(),
    };
    put_checkpoint(handle, &checkpoint)?;
    if !quiet {
        say(ctx, "Updated primary checkpoint to include lost+found");
    }
    eprint(format!("Total repairs: {repaired}"));
    eprint(format!("Total unlinked directories: {unlinked}"));
    Ok(())
}

/// Returns the directory of the job that a path belongs to.
fn job_dir(path: &str) -> Option<String> {
    let dir = path.get(..JOB_PATH)?;
    let rest = path.get(JOB_PATH..)?;
    let names: Vec<&str> = dir.strip_prefix("job.")?.split('.').collect();
    let is_hex = |name: &&str| name.len() == 4 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    (names.len() == 4 && names.iter().all(is_hex) && (rest.is_empty() || rest.starts_with('.')))
        .then(|| dir.to_owned())
}

/// Prints a message, for people without the command's name.
fn say(ctx: &Ctx, text: &str) {
    if std::io::stderr().is_terminal() {
        eprint(text);
    } else {
        ctx.warn(text);
    }
}

impl Visitor for Checker<'_> {
    fn object(&mut self, path: &str, _object: &TreeObj) {
        if self.verbose {
            eprint(path);
        }
    }

    fn descend(&mut self, _path: &str, blobref: &BlobRef) -> bool {
        // A directory that several paths lead to is looked at once, unless each of them may need repair.
        self.seen.insert(*blobref) || self.fixes.is_some()
    }

    fn request(&mut self, handle: &mut Handle, _door: Door, blobref: &BlobRef) -> Result<Rpc, Error> {
        let digest = Bytes::copy_from_slice(blobref.digest());
        handle.rpc_message(Message::request("content-backing.validate", 0, Some(digest)))
    }

    fn blobs(
        &mut self,
        path: &str,
        blobrefs: &[BlobRef],
        answers: Vec<Result<Message, RpcError>>,
    ) -> Result<(), CmdError> {
        let mut good = Vec::with_capacity(blobrefs.len());
        for (at, (blobref, answer)) in blobrefs.iter().zip(&answers).enumerate() {
            self.counts.blobs += 1;
            match answer {
                Ok(_) => good.push(*blobref),
                Err(err) if err.errnum == ENOENT => {
                    say(
                        self.ctx,
                        &format!("{path}: missing blobref {blobref} (index {at})"),
                    );
                }
                Err(err) => say(
                    self.ctx,
                    &format!(
                        "{path}: error retrieving blobref {blobref} (index {at}): {}",
                        err.message()
                    ),
                ),
            }
        }
        if good.len() == blobrefs.len() {
            return Ok(());
        }
        self.counts.errors += 1;
        if let Some(fixes) = &mut self.fixes {
            let rest = if good.is_empty() {
                TreeObj::Val(Bytes::new())
            } else {
                TreeObj::ValRef(good)
            };
            fixes.push(Fix {
                path: path.to_owned(),
                replacement: Some(rest),
            });
            if !self.quiet {
                say(self.ctx, &format!("{path} repaired and moved to lost+found"));
            }
        }
        Ok(())
    }

    fn bad_dir(&mut self, path: &str, blobref: &BlobRef, why: BadDir) -> Result<(), CmdError> {
        self.counts.errors += 1;
        let shown = if path.is_empty() { "root directory" } else { path };
        say(self.ctx, &format!("{shown}: {blobref}: {why}"));
        if path.is_empty() {
            return match &mut self.fixes {
                Some(_) => fail(
                    "the root directory cannot be read, so nothing can be repaired; try --rootref with an older checkpoint (flux content checkpoint list)",
                ),
                None => Ok(()),
            };
        }
        if let Some(fixes) = &mut self.fixes {
            fixes.push(Fix {
                path: path.to_owned(),
                replacement: None,
            });
            if !self.quiet {
                say(self.ctx, &format!("{path} unlinked due to missing blobref"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_jobs() {
        assert_eq!(
            job_dir("job.0000.0123.4567.89ab.eventlog").as_deref(),
            Some("job.0000.0123.4567.89ab")
        );
        assert_eq!(
            job_dir("job.0000.0123.4567.89ab").as_deref(),
            Some("job.0000.0123.4567.89ab")
        );
        for other in [
            "job.0000.0123",
            "job.0000.0123.4567.89abc",
            "resource.eventlog.a.b.c.d.e",
            "job.zzzz.0123.4567.89ab",
        ] {
            assert_eq!(job_dir(other), None, "{other}");
        }
    }
}
