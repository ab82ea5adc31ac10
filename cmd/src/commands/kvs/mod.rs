//! `flux kvs`: read and change the key-value store.

mod dir;
mod eventlog;
mod get;
mod links;
mod namespace;
mod put;
mod root;

use clap::{Arg, ArgMatches};
use flux_client::kvs::{self, From};
use serde_json::Value;

use super::{Entry, group, plain};
use crate::common::args::{text, value};
use crate::common::ctx::Style;
use crate::common::error::{CmdError, fail};
use crate::common::json::sorted;

/// The sub-commands of `flux kvs`.
pub(super) static TABLE: &[Entry] = &[
    group(
        "namespace",
        "Perform KVS namespace operations",
        Style::Plain,
        namespace::TABLE,
    ),
    plain("get", "Get value stored under key", get::args, get::run),
    plain("put", "Store value under key", put::args, put::run),
    plain("dir", "Display all keys under directory", dir::dir_args, dir::dir),
    plain("ls", "List directory", dir::ls_args, dir::ls),
    plain("unlink", "Remove key", put::unlink_args, put::unlink),
    plain(
        "link",
        "Create a new name for target",
        links::link_args,
        links::link,
    ),
    plain(
        "readlink",
        "Retrieve the key a link refers to",
        links::readlink_args,
        links::readlink,
    ),
    plain("mkdir", "Create a directory", put::mkdir_args, put::mkdir),
    plain(
        "copy",
        "Copy source key to destination key",
        links::copy_args,
        links::copy,
    ),
    plain(
        "move",
        "Move source key to destination key",
        links::copy_args,
        links::move_key,
    ),
    plain(
        "version",
        "Display current KVS version",
        root::namespace_args,
        root::version,
    ),
    plain(
        "wait",
        "Block until the KVS reaches version",
        root::wait_args,
        root::wait,
    ),
    plain(
        "getroot",
        "Get KVS root treeobj",
        root::getroot_args,
        root::getroot,
    ),
    plain(
        "sync",
        "Sync and checkpoint the primary namespace",
        root::sync_args,
        root::sync,
    ),
    group(
        "eventlog",
        "Manipulate a KVS eventlog",
        Style::Plain,
        eventlog::TABLE,
    ),
];

/// Returns the `-N, --namespace` option.
fn namespace_arg() -> Arg {
    value("namespace", Some('N'), "NAME", "Specify KVS namespace to use")
}

/// Returns the namespace to use.
fn namespace(matches: &ArgMatches) -> String {
    text(matches, "namespace").map_or_else(kvs::default_namespace, str::to_owned)
}

/// Reads the tree object given to `--at`.
fn at(matches: &ArgMatches) -> Result<Option<Value>, CmdError> {
    let Some(object) = text(matches, "at") else {
        return Ok(None);
    };
    serde_json::from_str(object)
        .map(Some)
        .map_err(CmdError::json("--at: treeobj"))
}

/// Returns where lookups start: a snapshot or the namespace's current root.
fn start<'a>(at: Option<&'a Value>, namespace: &'a str) -> From<'a> {
    at.map_or(From::Namespace(namespace), From::Root)
}

/// Returns a tree object's JSON as the original prints it.
fn treeobj_text(object: Value) -> String {
    sorted(object).to_string()
}

/// Returns the `dirref` object of a root.
fn root_object(rootref: &str) -> String {
    format!(r#"{{"data":["{rootref}"],"type":"dirref","ver":1}}"#)
}

/// Splits `KEY=VALUE`.
fn key_value(word: &str) -> Result<(&str, &str), CmdError> {
    match word.split_once('=') {
        Some(pair) => Ok(pair),
        None => fail(format!("{word}: missing '=' (use KEY=VALUE)")),
    }
}
