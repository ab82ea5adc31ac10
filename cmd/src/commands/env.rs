//! `flux env`: which environment do Flux programs run in?

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command as Process;

use clap::{ArgMatches, Command};

use crate::common::args::{list, trailing};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult};

/// Variables that Flux sets for the programs it starts.
const SHOWN: [&str; 7] = [
    "FLUX_EXEC_PATH",
    "FLUX_CONNECTOR_PATH",
    "FLUX_MODULE_PATH",
    "FLUX_PMI_LIBRARY_PATH",
    "FLUX_URI",
    "MANPATH",
    "PATH",
];

pub(super) fn args(command: Command) -> Command {
    command.arg(trailing("command", false, "Command to run in the environment"))
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let words = list(matches, "command");
    if let Some((program, rest)) = words.split_first() {
        let envs = ctx.env.iter().map(|(key, value)| (key, value));
        let err = Process::new(program).args(rest).env_clear().envs(envs).exec();
        return Err(CmdError::file(*program)(err));
    }
    let mut out = stdout();
    for name in SHOWN {
        if let Some(value) = ctx.env_str(name) {
            writeln!(out, "export {name}=\"{value}\"")?;
        }
    }
    out.flush()?;
    Ok(0)
}
