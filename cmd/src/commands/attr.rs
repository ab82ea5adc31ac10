//! `flux getattr`, `lsattr`, `setattr`: what are the broker's attributes?

use std::io::Write;

use clap::{ArgMatches, Command};
use flux_client::attr;

use crate::common::args::{flag, operand, required};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult};

pub(super) fn getattr_args(command: Command) -> Command {
    command.arg(operand("name", "Attribute"))
}

pub(super) fn getattr(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let name = required(matches, "name");
    let value = attr::get(&mut ctx.open()?, name).map_err(CmdError::doing(name))?;
    writeln!(stdout(), "{value}")?;
    Ok(0)
}

pub(super) fn lsattr_args(command: Command) -> Command {
    command.arg(flag("values", Some('v'), "List values with attributes"))
}

pub(super) fn lsattr(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut handle = ctx.open()?;
    let mut names = attr::list(&mut handle)?;
    names.sort_unstable();
    let mut out = stdout();
    if !matches.get_flag("values") {
        for name in names {
            writeln!(out, "{name}")?;
        }
        out.flush()?;
        return Ok(0);
    }
    let requests = names
        .iter()
        .map(|name| attr::request(&mut handle, name, flux_client::NODEID_ANY))
        .collect::<Result<Vec<_>, _>>()?;
    for (name, request) in names.iter().zip(&requests) {
        // An attribute without a value is shown as "-".
        let value = attr::finish(&mut handle, request).unwrap_or_else(|_| "-".to_owned());
        writeln!(out, "{name:<40}{value}")?;
    }
    out.flush()?;
    Ok(0)
}

pub(super) fn setattr_args(command: Command) -> Command {
    command
        .arg(flag(
            "force",
            Some('f'),
            "Set the attribute even if it is read-only",
        ))
        .arg(operand("name", "Attribute"))
        .arg(operand("value", "New value").allow_hyphen_values(true))
}

pub(super) fn setattr(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let name = required(matches, "name");
    let (value, force) = (required(matches, "value"), matches.get_flag("force"));
    attr::set(&mut ctx.open()?, name, value, force).map_err(CmdError::doing(name))?;
    Ok(0)
}
