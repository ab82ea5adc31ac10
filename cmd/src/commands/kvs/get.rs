//! `flux kvs get`: what is the value of a key, now or at every change?

use std::io::Write;

use clap::{ArgMatches, Command};
use flux_client::kvs::{self, flags};
use flux_client::{Handle, Rpc};
use flux_formats::errno::ENODATA;
use serde_json::Value;

use super::{at, namespace, namespace_arg, start, treeobj_text};
use crate::common::args::{flag, list, operands, parsed, value};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail};

pub(super) fn args(command: Command) -> Command {
    command
        .arg(namespace_arg())
        .arg(flag("raw", Some('r'), "Interpret value(s) as raw data"))
        .arg(flag("treeobj", Some('t'), "Show RFC 11 object"))
        .arg(value(
            "at",
            Some('a'),
            "TREEOBJ",
            "Lookup relative to RFC 11 snapshot reference",
        ))
        .arg(flag("label", Some('l'), "Print key= before value"))
        .arg(flag(
            "waitcreate",
            Some('W'),
            "Wait for creation to occur on watch",
        ))
        .arg(flag("watch", Some('w'), "Monitor key writes"))
        .arg(flag(
            "uniq",
            Some('u'),
            "Only monitor key writes if values have changed",
        ))
        .arg(flag(
            "append",
            Some('A'),
            "Only get newly appended data on monitor",
        ))
        .arg(flag(
            "full",
            Some('f'),
            "Monitor key changes with more complete accuracy",
        ))
        .arg(value(
            "count",
            Some('c'),
            "COUNT",
            "Display at most COUNT changes",
        ))
        .arg(flag("stream", Some('S'), "Stream the value blob by blob"))
        .arg(operands("key", 1, "Keys"))
}

struct Options {
    flags: u32,
    raw: bool,
    treeobj: bool,
    label: bool,
    watch: bool,
    count: Option<u64>,
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let flag_bits = [
        ("treeobj", flags::TREEOBJ),
        ("waitcreate", flags::WAITCREATE),
        ("watch", flags::WATCH),
        ("uniq", flags::WATCH_UNIQ),
        ("append", flags::WATCH_APPEND),
        ("full", flags::WATCH_FULL),
        ("stream", flags::STREAM),
    ];
    let bits = flag_bits
        .iter()
        .filter(|(name, _)| matches.get_flag(name))
        .fold(0, |bits, (_, bit)| bits | bit);
    let options = Options {
        flags: bits,
        raw: matches.get_flag("raw"),
        treeobj: matches.get_flag("treeobj"),
        label: matches.get_flag("label"),
        watch: matches.get_flag("watch"),
        count: parsed(matches, "count")?,
    };
    let namespace = namespace(matches);
    let at = at(matches)?;
    let mut handle = ctx.open()?;
    let keys = list(matches, "key");
    // All requests leave at once; the answers are printed in the order of the keys.
    let mut requests = Vec::with_capacity(keys.len());
    for key in keys {
        let request = kvs::lookup_start(&mut handle, start(at.as_ref(), &namespace), key, options.flags)?;
        requests.push((key, request));
    }
    let mut out = stdout();
    for (key, request) in &requests {
        let result = options.print_all(&mut handle, key, request, &mut out);
        if result.is_err() {
            out.flush()?;
            result?;
        }
    }
    out.flush()?;
    Ok(0)
}

impl Options {
    fn print_all(
        &self,
        handle: &mut Handle,
        key: &str,
        request: &Rpc,
        out: &mut impl Write,
    ) -> Result<(), CmdError> {
        let streams = flags::WATCH | flags::WAITCREATE | flags::STREAM;
        let endless = self.flags & streams != 0;
        let mut seen = 0;
        loop {
            let object = match kvs::lookup_finish(handle, request) {
                Err(err) if endless && err.is_rpc(ENODATA) => return Ok(()),
                other => other.map_err(CmdError::doing(key))?,
            };
            self.print(key, object, out)?;
            if self.flags & (flags::WATCH | flags::STREAM) == 0 {
                return Ok(());
            }
            out.flush()?;
            seen += 1;
            if self.watch && self.count == Some(seen) {
                return Ok(kvs::watch_cancel(handle, request)?);
            }
        }
    }

    fn print(&self, key: &str, object: Value, out: &mut impl Write) -> Result<(), CmdError> {
        if self.label {
            write!(out, "{key}=")?;
        }
        if self.treeobj {
            writeln!(out, "{}", treeobj_text(object))?;
            return Ok(());
        }
        let Some(bytes) = kvs::value_of(&object) else {
            return fail(format!("{key}: Is a directory"));
        };
        out.write_all(&bytes)?;
        // Raw data, and the pieces of a streamed or appended value, are printed as they are.
        if !self.raw && self.flags & (flags::STREAM | flags::WATCH_APPEND) == 0 {
            writeln!(out)?;
        }
        Ok(())
    }
}
