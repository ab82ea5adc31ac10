//! `flux job id`: how is a job id written in another form?

use std::io::{IsTerminal, Read, Write};

use clap::{ArgMatches, Command};

use crate::common::args::{list, operands, text, value};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::jobid::{encode, parse};

pub(super) fn args(command: Command) -> Command {
    command
        .arg(value(
            "to",
            Some('t'),
            "dec|kvs|hex|dothex|words|f58",
            "Convert jobid to specified form",
        ))
        .arg(operands(
            "jobid",
            0,
            "Job ids in any form; read from standard input if absent",
        ))
}

pub(super) fn run(_ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let to = text(matches, "to").unwrap_or("dec");
    let mut input = String::new();
    let mut ids = list(matches, "jobid");
    if ids.is_empty() {
        if std::io::stdin().is_terminal() {
            return usage("give job ids as arguments or on standard input");
        }
        std::io::stdin()
            .read_to_string(&mut input)
            .map_err(CmdError::file("standard input"))?;
        ids = input.split_whitespace().collect();
    }
    let mut out = stdout();
    for id in ids {
        match encode(parse(id)?, to) {
            Some(text) => writeln!(out, "{text}")?,
            None => {
                return fail(format!(
                    "unknown jobid format '{to}' (use dec, kvs, hex, dothex, words, f58, f58plain or emoji)"
                ));
            }
        }
    }
    out.flush()?;
    Ok(0)
}
