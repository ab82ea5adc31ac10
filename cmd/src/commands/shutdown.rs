//! `flux shutdown`: end the instance in good order.

use std::io::{IsTerminal, Write};

use clap::{ArgMatches, Command};
use flux_client::{Error, Handle, attr};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::common::args::{flag, operand_optional, text, value, verbose, verbosity};
use crate::common::ctx::{Ctx, eprint};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::uri;

/// Log level shown without `-v`: errors.
const LEVEL_DEFAULT: u32 = 3;

pub(super) fn args(command: Command) -> Command {
    verbose(command)
        .arg(flag(
            "skip-gc",
            None,
            "Skip KVS garbage collection this time, if already enabled",
        ))
        .arg(flag("gc", None, "Garbage collect KVS (short for --dump=auto)"))
        .arg(value(
            "dump",
            None,
            "PATH",
            "Dump KVS content to specified archive file",
        ))
        .arg(flag(
            "background",
            None,
            "Exit the command immediately after initiating shutdown",
        ))
        .arg(flag("quiet", None, "Show only log messages <= LOG_WARNING level"))
        .arg(flag("yes", Some('y'), "Answer yes to any yes/no questions"))
        .arg(flag("no", Some('n'), "Answer no to any yes/no questions"))
        .arg(operand_optional("target", "URI of the instance, or a job id"))
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut handle = match text(matches, "target") {
        Some(target) => uri::open(ctx, target)?,
        None => ctx.open()?,
    };
    prepare_dump(&mut handle, matches)?;
    let level = match verbosity(matches)? {
        _ if matches.get_flag("quiet") => 4,
        0 => LEVEL_DEFAULT.max(6),
        _ => 7,
    };
    let stream = handle.stream("shutdown.start", 0, &json!({ "loglevel": level }))?;
    if matches.get_flag("background") {
        handle.flush()?;
        // The broker refuses at once or not at all; an answer to a question behind it tells that it has begun.
        let probe = attr::request(&mut handle, "rank", 0)?;
        return match attr::finish(&mut handle, &probe) {
            Ok(_) | Err(Error::Closed) => Ok(0),
            Err(err) => Err(err.into()),
        };
    }
    #[derive(Deserialize)]
    struct Response {
        #[serde(default)]
        log: String,
    }
    loop {
        match handle.next_json::<Response>(&stream) {
            Ok(Some(response)) => eprint(response.log.trim_end()),
            // The broker that answers is the one that ends.
            Ok(None) | Err(Error::Closed) => return Ok(0),
            Err(err) => return Err(err.into()),
        }
    }
}

/// Tells the broker to dump and load its content when asked, or when enough has been written since the last time.
fn prepare_dump(handle: &mut Handle, matches: &ArgMatches) -> Result<(), CmdError> {
    let (skip, gc) = (matches.get_flag("skip-gc"), matches.get_flag("gc"));
    let dump = text(matches, "dump");
    if skip && (gc || dump.is_some()) {
        return usage("--skip-gc and --gc or --dump are mutually exclusive");
    }
    if skip {
        return set(handle, "");
    }
    if let Some(path) = dump {
        let absolute = std::path::absolute(path).map_err(CmdError::file(path))?;
        return set(handle, &absolute.to_string_lossy());
    }
    if gc {
        return set(handle, "auto");
    }
    let config: Value = handle.call_empty("config.get", 0).unwrap_or(Value::Null);
    let Some(threshold) = config.pointer("/kvs/gc-threshold").and_then(Value::as_i64) else {
        return Ok(());
    };
    let version = flux_client::kvs::getroot(handle, "primary")?.rootseq;
    if threshold <= 0 || version < threshold || matches.get_flag("no") {
        return Ok(());
    }
    if !matches.get_flag("yes") && !ask(threshold)? {
        return Ok(());
    }
    set(handle, "auto")
}

fn set(handle: &mut Handle, value: &str) -> Result<(), CmdError> {
    attr::set(handle, "content.dump", value, false).map_err(CmdError::doing("content.dump"))
}

fn ask(threshold: i64) -> Result<bool, CmdError> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return fail("gc threshold reached but standard input is not a terminal: use -y, -n or --skip-gc");
    }
    let mut err = std::io::stderr();
    write!(
        err,
        "gc threshold of {threshold} has been reached. Perform offline garbage collection? [Y/n]: "
    )?;
    let mut line = String::new();
    stdin
        .read_line(&mut line)
        .map_err(CmdError::file("standard input"))?;
    Ok(!line.trim().to_ascii_lowercase().starts_with('n'))
}
