//! `flux perilog-run`: run a prolog or epilog on all nodes of a job, and the site's scripts here. For configurations that have it as
//! `job-manager.prolog.command`; new ones say `per-rank = true` instead.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, ExitStatus};

use clap::{ArgMatches, Command};
use flux_client::job;
use flux_formats::idset::IdSet;
use flux_formats::jobid::JobId;
use flux_formats::paths;
use flux_formats::resource_set::ResourceSet;
use serde::de::IgnoredAny;
use serde_json::json;

use super::{Entry, exec, tagged};
use crate::common::args::{flag, text, value};
use crate::common::ctx::Ctx;
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::jobid::parse;

pub(super) static TABLE: &[Entry] = &[
    tagged(
        "prolog",
        "Run the prolog of the job in FLUX_JOB_ID",
        args,
        |ctx, matches| run(ctx, matches, "prolog"),
    ),
    tagged(
        "epilog",
        "Run the epilog of the job in FLUX_JOB_ID",
        args,
        |ctx, matches| run(ctx, matches, "epilog"),
    ),
];

fn args(command: Command) -> Command {
    command
        .arg(value(
            "exec-per-rank",
            Some('e'),
            "CMD[,ARGS...]",
            "Run a command on each rank of the job; ranks on which it fails are drained",
        ))
        .arg(value(
            "exec-directory",
            Some('d'),
            "DIRECTORY",
            "Run the executables of DIRECTORY here, in the order of their names (default: prolog.d or epilog.d of the system \
             configuration)",
        ))
        .arg(flag("verbose", Some('v'), "Say what is run"))
}

fn run(ctx: &Ctx, matches: &ArgMatches, name: &str) -> CmdResult {
    let Some(word) = std::env::var("FLUX_JOB_ID").ok().filter(|word| !word.is_empty()) else {
        return usage(
            "FLUX_JOB_ID is not set: this runs as prolog or epilog of a job (job-manager.prolog.command)",
        );
    };
    let id = parse(&word)?;
    let verbose = matches.get_flag("verbose");
    if let Some(words) = text(matches, "exec-per-rank") {
        let words: Vec<String> = words.split(',').map(str::to_owned).collect();
        let failed = on_each_rank(ctx, id, &words, verbose)?;
        if !failed.is_empty() {
            drain(ctx, &failed, &format!("{name} failed for job {id}"))?;
            return fail(format!("{id}: {name} failed on rank {failed}, drained"));
        }
    }
    let dir = text(matches, "exec-directory").map_or_else(
        || PathBuf::from(paths::sysconfdir()).join(format!("flux/system/{name}.d")),
        PathBuf::from,
    );
    let is_given = text(matches, "exec-directory").is_some();
    let scripts = match scripts(&dir) {
        Err(err) if is_given => return Err(CmdError::file(dir.display().to_string())(err)),
        read => read.unwrap_or_default(),
    };
    for script in scripts {
        if verbose {
            ctx.warn(format!("running {}", script.display()));
        }
        let status = Process::new(&script)
            .status()
            .map_err(CmdError::file(script.display().to_string()))?;
        if !status.success() {
            ctx.warn(format!("{}: {}", script.display(), status_text(status)));
            return Ok(code_of(status));
        }
    }
    Ok(0)
}

fn on_each_rank(ctx: &Ctx, id: JobId, words: &[String], verbose: bool) -> Result<IdSet, CmdError> {
    let mut handle = ctx.open()?;
    let r = job::lookup(&mut handle, id.0, "R", 0)?;
    let ranks = match ResourceSet::decode(r.as_bytes()) {
        Ok(r) => r.ranks(),
        Err(err) => return fail(format!("R of {id}: {err}")),
    };
    if verbose {
        ctx.warn(format!("running {} on rank {ranks}", words.join(" ")));
    }
    exec::everywhere(ctx, handle, &ranks, words)
}

fn drain(ctx: &Ctx, ranks: &IdSet, reason: &str) -> Result<(), CmdError> {
    let request = json!({ "targets": ranks.to_string(), "reason": reason, "mode": "update" });
    ctx.open()?
        .call::<IgnoredAny>("resource.drain", 0, &request)
        .map_err(CmdError::doing("drain"))?;
    Ok(())
}

/// Returns the executable files of a directory, sorted by name.
fn scripts(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let is_script = |meta: std::fs::Metadata| meta.is_file() && meta.permissions().mode() & 0o111 != 0;
        if std::fs::metadata(&path).is_ok_and(is_script) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn code_of(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(1)
}

fn status_text(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => flux_formats::signal::text_or_number(signal),
        None => format!("Exit {}", code_of(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for (name, mode) in [("20-b", 0o755), ("10-a", 0o700), ("30-readme", 0o644)] {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::fs::create_dir(dir.path().join("15-dir")).unwrap();
        let names: Vec<_> = scripts(dir.path()).unwrap();
        assert_eq!(names, [dir.path().join("10-a"), dir.path().join("20-b")]);
        assert!(scripts(&dir.path().join("nothing")).is_err());
        assert_eq!(code_of(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(status_text(ExitStatus::from_raw(9)), "Killed");
    }
}
