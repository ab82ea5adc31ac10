//! `flux kvs namespace`: create, remove, list.

use std::io::Write;

use clap::{ArgMatches, Command};
use flux_client::{NODEID_ANY, kvs};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::super::{Entry, plain};
use crate::common::args::{list, operands, parsed, text, value};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult};
use crate::common::user;

pub(super) static TABLE: &[Entry] = &[
    plain("create", "Create a KVS namespace", create_args, create),
    plain("remove", "Remove a KVS namespace", remove_args, remove),
    plain(
        "list",
        "List namespaces on local rank",
        |command| command,
        list_namespaces,
    ),
];

fn create_args(command: Command) -> Command {
    command
        .arg(value(
            "owner",
            Some('o'),
            "UID",
            "Specify alternate namespace owner via userid",
        ))
        .arg(value(
            "rootref",
            Some('r'),
            "BLOBREF",
            "Initialize namespace with specific root reference",
        ))
        .arg(operands("name", 1, "Namespaces"))
}

fn create(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let owner = parsed(matches, "owner")?.unwrap_or_else(user::own);
    let rootref = text(matches, "rootref").unwrap_or("");
    let mut handle = ctx.open()?;
    for name in list(matches, "name") {
        kvs::namespace_create(&mut handle, name, rootref, owner).map_err(CmdError::doing(name))?;
    }
    Ok(0)
}

fn remove_args(command: Command) -> Command {
    command.arg(operands("name", 1, "Namespaces"))
}

fn remove(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut handle = ctx.open()?;
    for name in list(matches, "name") {
        handle
            .call::<IgnoredAny>("kvs.namespace-remove", 0, &json!({ "namespace": name }))
            .map_err(CmdError::doing(name))?;
    }
    Ok(0)
}

#[derive(Deserialize)]
struct ListResponse {
    namespaces: Vec<Namespace>,
}

#[derive(Deserialize)]
struct Namespace {
    namespace: String,
    owner: u32,
    flags: u32,
}

fn list_namespaces(ctx: &Ctx, _matches: &ArgMatches) -> CmdResult {
    let response: ListResponse = ctx.open()?.call_empty("kvs.namespace-list", NODEID_ANY)?;
    let mut out = stdout();
    writeln!(out, "{:<36} {:>10} {:>10}", "NAMESPACE", "OWNER", "FLAGS")?;
    for entry in response.namespaces {
        writeln!(
            out,
            "{:<36} {:>10} 0x{:08X}",
            entry.namespace, entry.owner, entry.flags
        )?;
    }
    out.flush()?;
    Ok(0)
}
