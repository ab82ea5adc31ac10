//! `flux uri`: where is the instance that a job, process or Slurm job runs?

use std::io::Write;

use clap::{ArgMatches, Command};

use crate::common::args::{flag, operand, required};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdResult, usage};
use crate::common::uri::{Wish, resolve};

const SCHEMES: &str = "Supported resolver schemes:
  jobid    the instance that a job runs; a path of job ids, '/' and '..' (default)
  pid      FLUX_URI of a process on this host
  slurm    the instance that a Slurm job runs
  NAME     a program flux-uri-NAME in FLUX_EXEC_PATH that prints a URI";

pub(super) fn args(command: Command) -> Command {
    command
        .arg(flag("remote", None, "Convert a local URI to remote"))
        .arg(flag("local", None, "Convert a remote URI to local"))
        .arg(flag(
            "wait",
            None,
            "Wait for a URI to become available, if supported",
        ))
        .arg(operand(
            "target",
            "A Flux jobid or URI in SCHEME:ARGUMENT form (e.g. jobid:f1234)",
        ))
        .after_help(SCHEMES)
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let wish = Wish {
        wait: matches.get_flag("wait"),
        local: matches.get_flag("local"),
        remote: matches.get_flag("remote"),
    };
    if wish.local && wish.remote {
        return usage("only one of --local and --remote is allowed");
    }
    writeln!(stdout(), "{}", resolve(ctx, required(matches, "target"), wish)?)?;
    Ok(0)
}
