//! `flux kvs link`, `readlink`, `copy`, `move`: names for other keys.

use std::io::Write;

use clap::{ArgMatches, Command};
use flux_client::kvs::{self, From, Transaction, flags};
use serde_json::Value;

use super::put::commit;
use super::{at, namespace, namespace_arg, start};
use crate::common::args::{flag, list, operand, operands, required, text, value};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult};

pub(super) fn link_args(command: Command) -> Command {
    command
        .arg(namespace_arg())
        .arg(value(
            "target-namespace",
            Some('T'),
            "NAME",
            "Specify target's namespace",
        ))
        .arg(flag("treeobj-root", Some('O'), "Show resulting RFC 11 root"))
        .arg(flag("blobref", Some('b'), "Show resulting RFC 11 blobref"))
        .arg(flag("sequence", Some('s'), "Show resulting root sequence"))
        .arg(operand("target", "Key that the link refers to"))
        .arg(operand("linkname", "Key of the link"))
}

pub(super) fn link(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut transaction = Transaction::new();
    transaction.symlink(
        required(matches, "linkname"),
        required(matches, "target"),
        text(matches, "target-namespace"),
    );
    commit(&mut ctx.open()?, matches, 0, &transaction)
}

pub(super) fn readlink_args(command: Command) -> Command {
    command
        .arg(namespace_arg())
        .arg(value(
            "at",
            Some('a'),
            "TREEOBJ",
            "Lookup relative to RFC 11 snapshot reference",
        ))
        .arg(flag(
            "namespace-only",
            Some('o'),
            "Print only namespace if link points to a namespace",
        ))
        .arg(flag(
            "key-only",
            Some('k'),
            "Print only key if link points to a namespace",
        ))
        .arg(operands("key", 1, "Links"))
}

pub(super) fn readlink(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let namespace = namespace(matches);
    let at = at(matches)?;
    let mut handle = ctx.open()?;
    let mut out = stdout();
    for key in list(matches, "key") {
        let from = start(at.as_ref(), &namespace);
        let object = kvs::lookup(&mut handle, from, key, flags::READLINK).map_err(CmdError::doing(key))?;
        let field = |name: &str| object.pointer(&format!("/data/{name}")).and_then(Value::as_str);
        let target = field("target").unwrap_or("");
        match field("namespace") {
            Some(namespace) if matches.get_flag("namespace-only") => writeln!(out, "{namespace}")?,
            Some(namespace) if !matches.get_flag("key-only") => writeln!(out, "{namespace}::{target}")?,
            _ => writeln!(out, "{target}")?,
        }
    }
    out.flush()?;
    Ok(0)
}

pub(super) fn copy_args(command: Command) -> Command {
    command
        .arg(value(
            "src-namespace",
            Some('S'),
            "NAME",
            "Specify source key's namespace",
        ))
        .arg(value(
            "dst-namespace",
            Some('D'),
            "NAME",
            "Specify destination key's namespace",
        ))
        .arg(operand("source", "Key to copy"))
        .arg(operand("destination", "New key"))
}

pub(super) fn copy(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    transfer(ctx, matches, false)
}

pub(super) fn move_key(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    transfer(ctx, matches, true)
}

fn transfer(ctx: &Ctx, matches: &ArgMatches, remove: bool) -> CmdResult {
    let (source, destination) = (required(matches, "source"), required(matches, "destination"));
    let default = kvs::default_namespace();
    let from = text(matches, "src-namespace").unwrap_or(&default);
    let to = text(matches, "dst-namespace").unwrap_or(&default);
    let mut handle = ctx.open()?;
    let object = kvs::lookup(&mut handle, From::Namespace(from), source, flags::TREEOBJ)
        .map_err(CmdError::doing(source))?;
    let mut transaction = Transaction::new();
    transaction.put_treeobj(destination, object);
    if remove && from == to {
        transaction.unlink(source);
    }
    kvs::commit(&mut handle, to, 0, &transaction).map_err(CmdError::doing(destination))?;
    if remove && from != to {
        let mut transaction = Transaction::new();
        transaction.unlink(source);
        kvs::commit(&mut handle, from, 0, &transaction).map_err(CmdError::doing(source))?;
    }
    Ok(0)
}
