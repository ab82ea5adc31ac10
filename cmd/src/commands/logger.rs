//! `flux logger`: write to the instance's log.

use std::io::Read;

use clap::{ArgMatches, Command};
use flux_client::attr;
use flux_client::log::{Severity, append};

use crate::common::args::{list, text, trailing, value};
use crate::common::ctx::Ctx;
use crate::common::error::{CmdError, CmdResult, fail};

pub(super) fn args(command: Command) -> Command {
    command
        .arg(value(
            "severity",
            Some('s'),
            "PRI",
            "Set the severity: emerg, alert, crit, err, warning, notice, info, debug",
        ))
        .arg(value(
            "appname",
            Some('n'),
            "NAME",
            "Set the application name (default: logger)",
        ))
        .arg(trailing(
            "message",
            false,
            "Message; read from standard input if absent",
        ))
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let name = text(matches, "severity").unwrap_or("notice");
    // Older scripts write FACILITY.SEVERITY.
    let name = name.rsplit('.').next().unwrap_or(name);
    let Some(severity) = Severity::from_name(name) else {
        return fail(format!(
            "invalid severity: {name}; use emerg, alert, crit, err, warning, notice, info or debug"
        ));
    };
    let words = list(matches, "message");
    let mut message = words.join(" ");
    if words.is_empty() {
        std::io::stdin()
            .read_to_string(&mut message)
            .map_err(CmdError::file("standard input"))?;
    }
    let mut handle = ctx.open()?;
    let rank = attr::get_u32(&mut handle, "rank")?;
    append(
        &mut handle,
        text(matches, "appname").unwrap_or("logger"),
        rank,
        severity,
        &message,
    )?;
    handle.flush()?;
    Ok(0)
}
