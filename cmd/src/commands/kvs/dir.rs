//! `flux kvs dir` and `ls`: what is in a directory?

use std::io::{IsTerminal, Write};

use clap::{ArgMatches, Command};
use flux_client::Handle;
use flux_client::kvs::{self, flags};
use serde_json::{Map, Value};

use super::{at, namespace, namespace_arg, start};
use crate::common::args::{flag, list, operand_optional, operands, parsed, text, value};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail};

/// Width of the output when nobody says otherwise.
const WIDTH_DEFAULT: usize = 80;

/// Where lookups go, and how wide lines are.
struct Walk<'a> {
    handle: &'a mut Handle,
    at: Option<Value>,
    namespace: String,
    width: usize,
}

impl Walk<'_> {
    fn lookup(&mut self, key: &str, bits: u32) -> Result<Value, CmdError> {
        let from = start(self.at.as_ref(), &self.namespace);
        kvs::lookup(self.handle, from, key, bits).map_err(CmdError::doing(key))
    }

    /// Returns the entries of a directory, sorted by name.
    fn entries(&mut self, key: &str) -> Result<Vec<(String, Value)>, CmdError> {
        let mut object = self.lookup(key, flags::READDIR)?;
        let data = object.get_mut("data").map(Value::take);
        let Some(Value::Object(map)) = data else {
            return fail(format!("{key}: Not a directory"));
        };
        let mut entries: Vec<(String, Value)> = Map::into_iter(map).collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }
}

fn width(matches: &ArgMatches) -> Result<usize, CmdError> {
    if let Some(width) = parsed::<usize>(matches, "width")? {
        return Ok(if width == 0 { usize::MAX } else { width });
    }
    let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    if std::io::stdout().is_terminal()
        && let Ok(size) = flux_process::pty::winsize(std::io::stdout())
        && size.cols > 0
    {
        return Ok(usize::from(size.cols));
    }
    Ok(columns.unwrap_or(WIDTH_DEFAULT))
}

fn kind(object: &Value) -> &str {
    object.get("type").and_then(Value::as_str).unwrap_or("")
}

fn is_dir(object: &Value) -> bool {
    matches!(kind(object), "dir" | "dirref")
}

fn join(dir: &str, name: &str) -> String {
    if dir == "." {
        name.to_owned()
    } else {
        format!("{dir}.{name}")
    }
}

pub(super) fn dir_args(command: Command) -> Command {
    command
        .arg(namespace_arg())
        .arg(flag(
            "recursive",
            Some('R'),
            "Recursively display keys under subdirectories",
        ))
        .arg(flag(
            "directory",
            Some('d'),
            "List directory entries and not values",
        ))
        .arg(value(
            "width",
            Some('w'),
            "N",
            "Set output width to N. 0 means no limit",
        ))
        .arg(value(
            "at",
            Some('a'),
            "TREEOBJ",
            "Lookup relative to RFC 11 snapshot reference",
        ))
        .arg(operand_optional("key", "Directory (default: the root)"))
}

pub(super) fn dir(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut handle = ctx.open()?;
    let mut walk = Walk {
        handle: &mut handle,
        at: at(matches)?,
        namespace: namespace(matches),
        width: width(matches)?,
    };
    let mut out = stdout();
    let (recursive, names_only) = (matches.get_flag("recursive"), matches.get_flag("directory"));
    let result = dump(
        &mut walk,
        text(matches, "key").unwrap_or("."),
        recursive,
        names_only,
        &mut out,
    );
    out.flush()?;
    result?;
    Ok(0)
}

fn dump(
    walk: &mut Walk<'_>,
    key: &str,
    recursive: bool,
    names_only: bool,
    out: &mut impl Write,
) -> Result<(), CmdError> {
    for (name, object) in walk.entries(key)? {
        let path = join(key, &name);
        match kind(&object) {
            "dir" | "dirref" if recursive => dump(walk, &path, recursive, names_only, out)?,
            "dir" | "dirref" => writeln!(out, "{path}.")?,
            "symlink" => writeln!(out, "{path} -> {}", link_target(&object))?,
            _ if names_only => writeln!(out, "{path}")?,
            _ => {
                let object = if kind(&object) == "val" {
                    object
                } else {
                    walk.lookup(&path, 0)?
                };
                let value = kvs::value_of(&object).unwrap_or_default();
                writeln!(out, "{}", fit(&format!("{path} = "), &value, walk.width))?;
            }
        }
    }
    Ok(())
}

fn link_target(object: &Value) -> String {
    let field = |name: &str| object.pointer(&format!("/data/{name}")).and_then(Value::as_str);
    let target = field("target").unwrap_or("");
    field("namespace").map_or_else(|| target.to_owned(), |namespace| format!("{namespace}::{target}"))
}

/// Returns label and value in one line of at most `width` characters; what is cut off ends with dots.
fn fit(label: &str, value: &[u8], width: usize) -> String {
    let value = String::from_utf8_lossy(value);
    let shown = value.trim_end_matches('\n');
    let first = shown.split('\n').next().unwrap_or("");
    let room = width.saturating_sub(label.chars().count());
    if first.len() == shown.len() && first.chars().count() <= room {
        return format!("{label}{first}");
    }
    let kept: String = first.chars().take(room.saturating_sub(3)).collect();
    format!("{label}{kept}...")
}

pub(super) fn ls_args(command: Command) -> Command {
    command
        .arg(namespace_arg())
        .arg(flag("recursive", Some('R'), "List directory recursively"))
        .arg(flag("directory", Some('d'), "List directory instead of contents"))
        .arg(value(
            "width",
            Some('w'),
            "N",
            "Set output width to N. 0 means no limit",
        ))
        .arg(flag("1", Some('1'), "Force one entry per line"))
        .arg(flag(
            "classify",
            Some('F'),
            "Append indicator (one of .@) to entries",
        ))
        .arg(operands("key", 0, "Keys (default: the root)"))
}

struct Ls {
    recursive: bool,
    classify: bool,
    single: bool,
    need_blank: bool,
}

pub(super) fn ls(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut handle = ctx.open()?;
    let mut walk = Walk {
        handle: &mut handle,
        at: None,
        namespace: namespace(matches),
        width: width(matches)?,
    };
    let mut keys = list(matches, "key");
    if keys.is_empty() {
        keys.push(".");
    }
    let mut ls = Ls {
        recursive: matches.get_flag("recursive"),
        classify: matches.get_flag("classify"),
        single: matches.get_flag("1"),
        need_blank: false,
    };
    let titled = keys.len() > 1 || ls.recursive;
    let mut out = stdout();
    // Single keys come first in one table, directories follow one by one.
    let mut files = Vec::new();
    let mut dirs = Vec::new();
    for key in keys {
        let object = walk.lookup(key, flags::TREEOBJ)?;
        if is_dir(&object) && !matches.get_flag("directory") {
            dirs.push(key);
        } else {
            files.push(ls.label(key, &object));
        }
    }
    if !files.is_empty() {
        ls.columns(&files, walk.width, &mut out)?;
        ls.need_blank = true;
    }
    for key in dirs {
        ls.directory(&mut walk, key, titled, &mut out)?;
    }
    out.flush()?;
    Ok(0)
}

impl Ls {
    /// Returns a name with its indicator, which does not count for the column's width.
    fn label(&self, name: &str, object: &Value) -> (String, usize) {
        let indicator = match kind(object) {
            "dir" | "dirref" => ".",
            "symlink" => "@",
            _ => "",
        };
        let width = name.chars().count();
        (
            if self.classify {
                format!("{name}{indicator}")
            } else {
                name.to_owned()
            },
            width,
        )
    }

    fn directory(
        &mut self,
        walk: &mut Walk<'_>,
        key: &str,
        titled: bool,
        out: &mut impl Write,
    ) -> Result<(), CmdError> {
        let entries = walk.entries(key)?;
        if self.need_blank {
            writeln!(out)?;
        }
        self.need_blank = true;
        if titled {
            writeln!(out, "{key}:")?;
        }
        let labels: Vec<(String, usize)> = entries
            .iter()
            .map(|(name, object)| self.label(name, object))
            .collect();
        self.columns(&labels, walk.width, out)?;
        if self.recursive {
            for (name, _) in entries.iter().filter(|(_, object)| is_dir(object)) {
                self.directory(walk, &join(key, name), titled, out)?;
            }
        }
        Ok(())
    }

    fn columns(
        &self,
        labels: &[(String, usize)],
        width: usize,
        out: &mut impl Write,
    ) -> Result<(), CmdError> {
        let column = labels.iter().map(|(_, width)| *width).max().unwrap_or(0) + 4;
        let per_line = if self.single { 1 } else { (width / column).max(1) };
        for line in labels.chunks(per_line) {
            let padded: Vec<String> = line
                .iter()
                .map(|(label, _)| format!("{label:<column$}"))
                .collect();
            writeln!(out, "{}", padded.concat().trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut() {
        let value = br#"{"timestamp":1795240136.0675054,"name":"start","context":{"version":"1"}}"#;
        let line = fit("admin.eventlog = ", value, 80);
        assert_eq!(
            line,
            r#"admin.eventlog = {"timestamp":1795240136.0675054,"name":"start","context":{"v..."#
        );
        assert_eq!(line.len(), 80);
        assert_eq!(fit("foo = ", b"1", 80), "foo = 1");
        assert_eq!(fit("foo = ", b"a\nb\n", 80), "foo = a...");
        assert_eq!(fit("foo = ", b"a\n", usize::MAX), "foo = a");
    }

    #[test]
    fn columns_like_the_original() {
        let ls = Ls {
            recursive: false,
            classify: true,
            single: false,
            need_blank: false,
        };
        let labels: Vec<_> = ["J", "R", "eventlog", "guest.", "jobspec"]
            .map(|n| (n.to_owned(), n.trim_end_matches('.').len()))
            .to_vec();
        let mut out = Vec::new();
        ls.columns(&labels, 80, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "J           R           eventlog    guest.      jobspec\n"
        );
        let mut out = Vec::new();
        ls.columns(&labels, 30, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), 3);
    }
}
