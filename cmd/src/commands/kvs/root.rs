//! `flux kvs version`, `wait`, `getroot`, `sync`: which root has a namespace?

use std::io::Write;

use clap::{ArgMatches, Command};
use flux_client::kvs::{self, Transaction, flags};

use super::{namespace, namespace_arg, root_object};
use crate::common::args::{flag, operand, required};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, usage};

pub(super) fn namespace_args(command: Command) -> Command {
    command.arg(namespace_arg())
}

pub(super) fn version(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let namespace = namespace(matches);
    let root = kvs::getroot(&mut ctx.open()?, &namespace).map_err(CmdError::doing(namespace))?;
    writeln!(stdout(), "{}", root.rootseq)?;
    Ok(0)
}

pub(super) fn wait_args(command: Command) -> Command {
    namespace_args(command).arg(operand("version", "Version to wait for"))
}

pub(super) fn wait(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let namespace = namespace(matches);
    let Ok(version) = required(matches, "version").parse() else {
        return usage(format!("invalid version '{}'", required(matches, "version")));
    };
    kvs::wait_version(&mut ctx.open()?, &namespace, version).map_err(CmdError::doing(namespace))?;
    Ok(0)
}

pub(super) fn getroot_args(command: Command) -> Command {
    namespace_args(command)
        .arg(flag("sequence", Some('s'), "Show sequence number"))
        .arg(flag("owner", Some('o'), "Show owner"))
        .arg(flag("blobref", Some('b'), "Show blobref"))
}

pub(super) fn getroot(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let namespace = namespace(matches);
    let root = kvs::getroot(&mut ctx.open()?, &namespace).map_err(CmdError::doing(namespace))?;
    let text = if matches.get_flag("owner") {
        root.owner.to_string()
    } else if matches.get_flag("blobref") {
        root.rootref
    } else if matches.get_flag("sequence") {
        root.rootseq.to_string()
    } else {
        root_object(&root.rootref)
    };
    writeln!(stdout(), "{text}")?;
    Ok(0)
}

pub(super) fn sync_args(command: Command) -> Command {
    command
}

pub(super) fn sync(ctx: &Ctx, _matches: &ArgMatches) -> CmdResult {
    kvs::commit(&mut ctx.open()?, "primary", flags::SYNC, &Transaction::new())?;
    Ok(0)
}
