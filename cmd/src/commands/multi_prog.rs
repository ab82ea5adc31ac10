//! `flux multi-prog`: run another program for each task of a job, as a file says.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command as Process;

use clap::{ArgMatches, Command};
use flux_formats::idset::IdSet;

use crate::common::args::{operand, required, text, value};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::words::{quote, split};

pub(super) fn args(command: Command) -> Command {
    command
        .arg(value(
            "dry-run",
            Some('n'),
            "IDS",
            "Do not run anything. Instead, print what would be run for each rank in IDS",
        ))
        .arg(operand(
            "config",
            "File with lines 'RANKS COMMAND...'; * is every other rank, %t the rank, %o its place in RANKS",
        ))
}

/// One line of the file.
#[derive(Debug, PartialEq)]
struct Line {
    /// Ranks; `None` is every rank that no other line names.
    ranks: Option<IdSet>,
    words: Vec<String>,
}

/// Reads the file; lines without words are left out.
fn parse(name: &str, content: &str) -> Result<Vec<Line>, CmdError> {
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(content.lines()) {
        let place = format!("{name}: line {number}");
        let mut words = match split(line) {
            Ok(words) => words,
            Err(err) => return fail(format!("{place}: '{line}': {err}")),
        };
        if words.is_empty() {
            continue;
        }
        let targets = words.remove(0);
        let ranks = match targets.as_str() {
            "*" => None,
            text => match text.parse() {
                Ok(ranks) => Some(ranks),
                Err(_) => return fail(format!("{place}: invalid idset: {targets}")),
            },
        };
        if words.is_empty() {
            return fail(format!("{place}: a command is missing after {targets}"));
        }
        lines.push(Line { ranks, words });
    }
    Ok(lines)
}

/// Returns the command of a rank.
fn command_of(name: &str, lines: &[Line], rank: u32) -> Result<Vec<String>, CmdError> {
    let named = lines
        .iter()
        .find(|line| line.ranks.as_ref().is_some_and(|ranks| ranks.contains(rank)));
    let Some(line) = named.or_else(|| lines.iter().rev().find(|line| line.ranks.is_none())) else {
        return fail(format!("{name}: No matching line for rank {rank}"));
    };
    let place = line
        .ranks
        .as_ref()
        .and_then(|ranks| ranks.iter().position(|id| id == rank))
        .unwrap_or(0);
    Ok(line
        .words
        .iter()
        .map(|word| substitute(word, rank, place))
        .collect())
}

/// Replaces `%t` and `%o`.
fn substitute(word: &str, rank: u32, place: usize) -> String {
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(at) = rest.find('%') {
        let (head, tail) = rest.split_at(at);
        out.push_str(head);
        match tail.get(..2) {
            Some("%t") => out.push_str(&rank.to_string()),
            Some("%o") => out.push_str(&place.to_string()),
            _ => {
                out.push('%');
                rest = tail.get(1..).unwrap_or("");
                continue;
            }
        }
        rest = tail.get(2..).unwrap_or("");
    }
    out.push_str(rest);
    out
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let name = required(matches, "config");
    let content = std::fs::read_to_string(name).map_err(CmdError::file(name))?;
    let lines = parse(name, &content)?;
    if let Some(word) = text(matches, "dry-run") {
        let Ok(ranks) = word.parse::<IdSet>() else {
            return usage(format!("--dry-run={word}: invalid idset"));
        };
        let mut out = stdout();
        for rank in &ranks {
            let words: Vec<String> = command_of(name, &lines, rank)?
                .iter()
                .map(|word| quote(word))
                .collect();
            writeln!(out, "{rank}: {}", words.join(" "))?;
        }
        out.flush()?;
        return Ok(0);
    }
    let Some(rank) = ctx.env_str("FLUX_TASK_RANK").and_then(|rank| rank.parse().ok()) else {
        return fail("FLUX_TASK_RANK not found or invalid: run this command as a task of a job");
    };
    let words = command_of(name, &lines, rank)?;
    let Some((program, rest)) = words.split_first() else {
        return fail(format!("{name}: no command for rank {rank}"));
    };
    // the task's own environment, not the one with this command's search paths
    let err = Process::new(program).args(rest).exec();
    Err(CmdError::Exit {
        code: if err.kind() == std::io::ErrorKind::NotFound {
            127
        } else {
            126
        },
        text: CmdError::file(program.as_str())(err).to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_ranks() {
        let lines = parse("f", "# comment\n0,2-3 echo '%t %o' 100%\n\n* other %t\n").unwrap();
        let show = |rank| command_of("f", &lines, rank).unwrap().join("|");
        assert_eq!(show(2), "echo|2 1|100%");
        assert_eq!(show(1), "other|1");
        for bad in ["x echo", "0", "0 'a"] {
            let err = parse("f", bad).unwrap_err().to_string();
            assert!(err.starts_with("f: line 1"), "{err}");
        }
        assert!(command_of("f", &parse("f", "0 a").unwrap(), 1).is_err());
    }
}
