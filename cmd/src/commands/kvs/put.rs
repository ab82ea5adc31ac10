//! `flux kvs put`, `mkdir`, `unlink`: change keys in one transaction.

use std::io::{Read, Write};

use clap::{ArgMatches, Command};
use flux_client::Handle;
use flux_client::kvs::{self, Committed, From, Transaction, flags};
use flux_formats::errno;
use serde_json::Value;

use super::{key_value, namespace, namespace_arg, root_object};
use crate::common::args::{flag, list, operands};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail};

/// Adds `-O`, `-b`, `-s`: what to print of the new root.
fn root_options(command: Command) -> Command {
    command
        .arg(flag("treeobj-root", Some('O'), "Show resulting RFC 11 root"))
        .arg(flag("blobref", Some('b'), "Show resulting RFC 11 blobref"))
        .arg(flag("sequence", Some('s'), "Show resulting root sequence"))
}

fn print_root(matches: &ArgMatches, root: &Committed) -> Result<(), CmdError> {
    if matches.get_flag("treeobj-root") {
        writeln!(stdout(), "{}", root_object(&root.rootref))?;
    } else if matches.get_flag("blobref") {
        writeln!(stdout(), "{}", root.rootref)?;
    } else if matches.get_flag("sequence") {
        writeln!(stdout(), "{}", root.rootseq)?;
    }
    Ok(())
}

/// Commits a transaction and prints what was asked for.
pub(super) fn commit(
    handle: &mut Handle,
    matches: &ArgMatches,
    commit_flags: u32,
    transaction: &Transaction,
) -> CmdResult {
    let root = kvs::commit(handle, &namespace(matches), commit_flags, transaction)
        .map_err(CmdError::doing("commit"))?;
    print_root(matches, &root)?;
    Ok(0)
}

pub(super) fn args(command: Command) -> Command {
    root_options(command)
        .arg(namespace_arg())
        .arg(flag(
            "raw",
            Some('r'),
            "Store value(s) as-is without adding NULL termination",
        ))
        .arg(flag("treeobj", Some('t'), "Store RFC 11 object"))
        .arg(flag("no-merge", Some('n'), "Set the NO_MERGE flag on commit"))
        .arg(flag(
            "append",
            Some('A'),
            "Append value(s) to key instead of overwriting",
        ))
        .arg(flag("sync", Some('S'), "Commit and sync to disk"))
        .arg(operands(
            "key=value",
            1,
            "Keys with values; KEY=- reads raw data and tree objects from standard input",
        ))
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let (raw, treeobj, append) = (
        matches.get_flag("raw"),
        matches.get_flag("treeobj"),
        matches.get_flag("append"),
    );
    let mut transaction = Transaction::new();
    for word in list(matches, "key=value") {
        let (key, text) = key_value(word)?;
        let mut value = text.as_bytes().to_vec();
        if text == "-" && (raw || treeobj) {
            value.clear();
            std::io::stdin()
                .read_to_end(&mut value)
                .map_err(CmdError::file("standard input"))?;
        }
        if treeobj {
            let object = parse_treeobj(&value);
            let Some(object) = object else {
                return fail(format!("{key}: Protocol error"));
            };
            transaction.put_treeobj(key, object);
        } else {
            if append {
                transaction.append(key, &value);
            } else {
                transaction.put_raw(key, &value);
            }
        }
    }
    let mut bits = 0;
    if matches.get_flag("no-merge") {
        bits |= flags::NO_MERGE;
    }
    if matches.get_flag("sync") {
        bits |= flags::SYNC;
    }
    commit(&mut ctx.open()?, matches, bits, &transaction)
}

fn parse_treeobj(bytes: &[u8]) -> Option<Value> {
    let object: Value = serde_json::from_slice(bytes).ok()?;
    let known = matches!(
        object.get("type")?.as_str()?,
        "val" | "valref" | "dir" | "dirref" | "symlink"
    );
    (object.get("ver")?.as_i64()? == 1 && object.get("data").is_some() && known).then_some(object)
}

pub(super) fn mkdir_args(command: Command) -> Command {
    root_options(command)
        .arg(namespace_arg())
        .arg(operands("key", 1, "Directories"))
}

pub(super) fn mkdir(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut transaction = Transaction::new();
    for key in list(matches, "key") {
        transaction.mkdir(key);
    }
    commit(&mut ctx.open()?, matches, 0, &transaction)
}

pub(super) fn unlink_args(command: Command) -> Command {
    root_options(command)
        .arg(namespace_arg())
        .arg(flag(
            "recursive",
            Some('R'),
            "Remove directory contents recursively",
        ))
        .arg(flag("force", Some('f'), "ignore nonexistent files"))
        .arg(operands("key", 1, "Keys"))
}

pub(super) fn unlink(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let (recursive, force) = (matches.get_flag("recursive"), matches.get_flag("force"));
    let namespace = namespace(matches);
    let mut handle = ctx.open()?;
    let mut transaction = Transaction::new();
    for key in list(matches, "key") {
        if !(recursive && force) {
            check_unlink(&mut handle, &namespace, key, recursive, force)?;
        }
        transaction.unlink(key);
    }
    commit(&mut handle, matches, 0, &transaction)
}

/// Refuses to remove what is not there or a directory that is not empty.
fn check_unlink(
    handle: &mut Handle,
    namespace: &str,
    key: &str,
    recursive: bool,
    force: bool,
) -> Result<(), CmdError> {
    let object = match kvs::lookup(handle, From::Namespace(namespace), key, flags::TREEOBJ) {
        Err(err) if force && err.is_rpc(errno::ENOENT) => return Ok(()),
        other => other.map_err(CmdError::doing(key))?,
    };
    let kind = object.get("type").and_then(Value::as_str).unwrap_or("");
    if recursive || !matches!(kind, "dir" | "dirref") {
        return Ok(());
    }
    let dir =
        kvs::lookup(handle, From::Namespace(namespace), key, flags::READDIR).map_err(CmdError::doing(key))?;
    let empty = dir
        .get("data")
        .and_then(Value::as_object)
        .is_none_or(serde_json::Map::is_empty);
    if empty {
        Ok(())
    } else {
        fail(format!("{key}: Directory not empty"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_objects_are_checked() {
        assert!(parse_treeobj(b"1").is_none());
        assert!(parse_treeobj(br#"{"data":"","type":"val","ver":1}"#).is_some());
        assert!(parse_treeobj(br#"{"data":"","type":"val","ver":2}"#).is_none());
    }
}
