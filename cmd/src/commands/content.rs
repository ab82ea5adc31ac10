//! `flux content`: load and store blobs, flush and drop caches, list and set the KVS root's checkpoints.

use std::io::{BufRead, Read, Write};

use bytes::Bytes;
use clap::{ArgMatches, Command};
use flux_client::NODEID_ANY;
use serde::de::IgnoredAny;

use super::{Entry, group, plain};
use crate::common::args::{flag, list, operand, operands, parsed, required, value};
use crate::common::blob::{
    Checkpoint, Door, checkpoints_raw, hash_type, kvs_is_running, load_start, parse, put_checkpoint,
    store_finish, store_start,
};
use crate::common::ctx::{Ctx, Style, stdout};
use crate::common::error::{CmdError, CmdResult, fail};
use crate::common::time::utc;

pub(super) static TABLE: &[Entry] = &[
    plain("load", "Load blobs by reference to stdout", load_args, load),
    plain(
        "store",
        "Store stdin as a blob and print its reference",
        store_args,
        store,
    ),
    plain(
        "flush",
        "Flush dirty entries of the local content cache",
        |c| c,
        flush,
    ),
    plain(
        "dropcache",
        "Drop non-essential entries of the local content cache",
        |c| c,
        dropcache,
    ),
    group(
        "checkpoint",
        "List and update checkpoints of the KVS root",
        Style::Plain,
        CHECKPOINT,
    ),
];

static CHECKPOINT: &[Entry] = &[
    plain("list", "List checkpoints", list_args, list_checkpoints),
    plain(
        "update",
        "Set the root with which the KVS starts",
        update_args,
        update,
    ),
];

fn bypass() -> clap::Arg {
    flag(
        "bypass-cache",
        Some('b'),
        "Bypass the cache: talk to the backing store",
    )
}

fn load_args(command: Command) -> Command {
    command.arg(bypass()).arg(operands(
        "blobref",
        0,
        "References; read from standard input if absent",
    ))
}

fn load(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let door = Door::bypassing(matches.get_flag("bypass-cache"));
    let mut words: Vec<String> = list(matches, "blobref").into_iter().map(str::to_owned).collect();
    if words.is_empty() {
        for line in std::io::stdin().lock().lines() {
            words.push(line.map_err(CmdError::file("standard input"))?.trim().to_owned());
        }
        words.retain(|word| !word.is_empty());
    }
    if words.is_empty() {
        return fail("no blobrefs were specified");
    }
    let mut handle = ctx.open()?;
    let mut out = stdout();
    for word in &words {
        let rpc = load_start(&mut handle, door, &parse(word)?)?;
        let message = handle
            .wait(&rpc)
            .map_err(CmdError::doing(format!("error loading blob {word}")))?;
        out.write_all(&message.payload.unwrap_or_default())?;
    }
    out.flush()?;
    Ok(0)
}

fn store_args(command: Command) -> Command {
    command.arg(bypass()).arg(value(
        "chunksize",
        None,
        "N",
        "Store data in blobs of at most N bytes",
    ))
}

fn store(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let door = Door::bypassing(matches.get_flag("bypass-cache"));
    let chunk: usize = parsed(matches, "chunksize")?.unwrap_or(0);
    let mut data = Vec::new();
    std::io::stdin()
        .read_to_end(&mut data)
        .map_err(CmdError::file("standard input"))?;
    let mut handle = ctx.open()?;
    let hash = hash_type(&mut handle)?;
    let data = Bytes::from(data);
    let size = if chunk == 0 { data.len().max(1) } else { chunk };
    let mut rest = data;
    let mut out = stdout();
    loop {
        let blob = rest.split_to(size.min(rest.len()));
        let rpc = store_start(&mut handle, door, blob)?;
        writeln!(out, "{}", store_finish(&mut handle, &rpc, hash)?)?;
        if rest.is_empty() {
            break;
        }
    }
    out.flush()?;
    Ok(0)
}

fn flush(ctx: &Ctx, _matches: &ArgMatches) -> CmdResult {
    ctx.open()?
        .call_empty::<IgnoredAny>("content.flush", NODEID_ANY)
        .map_err(CmdError::doing("content.flush"))?;
    Ok(0)
}

fn dropcache(ctx: &Ctx, _matches: &ArgMatches) -> CmdResult {
    ctx.open()?
        .call_empty::<IgnoredAny>("content.dropcache", NODEID_ANY)
        .map_err(CmdError::doing("content.dropcache"))?;
    Ok(0)
}

fn list_args(command: Command) -> Command {
    command
        .arg(flag("no-header", Some('n'), "Do not output column headers"))
        .arg(flag("json", Some('j'), "Output raw JSON checkpoint data"))
}

fn list_checkpoints(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let as_json = matches.get_flag("json");
    let list = checkpoints_raw(&mut ctx.open()?).map_err(CmdError::doing("error fetching checkpoints"))?;
    let mut out = stdout();
    if !as_json && !matches.get_flag("no-header") {
        writeln!(out, "{:<10} {:<10} {:<20} Rootref", "Index", "Sequence", "Time")?;
    }
    for (at, value) in list.into_iter().enumerate() {
        if as_json {
            writeln!(out, "{value}")?;
            continue;
        }
        let checkpoint: Checkpoint =
            serde_json::from_value(value).map_err(CmdError::json(format!("checkpoint {at}")))?;
        let time = utc(checkpoint.timestamp);
        writeln!(
            out,
            "{at:<10} {:<10} {time:<20} {}",
            checkpoint.sequence, checkpoint.rootref
        )?;
    }
    out.flush()?;
    Ok(0)
}

fn update_args(command: Command) -> Command {
    command.arg(operand(
        "blobref",
        "Root directory; the kvs module must not be loaded",
    ))
}

fn update(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let rootref = parse(required(matches, "blobref"))?;
    let mut handle = ctx.open()?;
    if kvs_is_running(&mut handle)? {
        return fail("please unload kvs module before updating checkpoint");
    }
    let rpc = load_start(&mut handle, Door::Backing, &rootref)?;
    let message = handle
        .wait(&rpc)
        .map_err(CmdError::doing(format!("{rootref}: error loading blob")))?;
    if let Err(err) = flux_formats::treeobj::TreeObj::decode_dir(&message.payload.unwrap_or_default()) {
        return fail(format!("{rootref} is not a directory of the KVS: {err}"));
    }
    let checkpoint = Checkpoint {
        rootref,
        sequence: 0,
        timestamp: crate::common::time::now(),
    };
    put_checkpoint(&mut handle, &checkpoint)?;
    Ok(0)
}
