//! `flux bulksubmit`: submit a job for each combination of input values.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::Path;

use clap::{ArgMatches, Command};

use super::submit::{Maker, after, with_copies};
use crate::common::args::{flag, list, text, trailing, value, values};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::submission::{self, Process};

pub(super) fn args(command: Command) -> Command {
    with_copies(command)
        .arg(flag(
            "shuffle",
            None,
            "Shuffle list of commands before submission",
        ))
        .arg(value(
            "sep",
            None,
            "STRING",
            "Set the input argument separator (default: newline)",
        ))
        .arg(
            values(
                "define",
                None,
                "NAME=CODE",
                "Define a named method for transforming any input",
            )
            .hide(true),
        )
        .arg(trailing(
            "command",
            false,
            "Command with {} for inputs, then ::: inputs, :::: files, :::+ linked inputs",
        ))
}

/// One list of input values; a linked one advances together with the list before it.
#[derive(Debug, PartialEq)]
struct Input {
    linked: bool,
    values: Vec<String>,
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    if !list(matches, "define").is_empty() {
        return fail("--define needs Python and is not available in this version");
    }
    let trailing = list(matches, "command");
    let options = ctx.words.len().saturating_sub(trailing.len());
    let mut option_words: Vec<String> = ctx
        .words
        .iter()
        .take(options)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    if option_words.last().is_some_and(|word| word == "--") {
        option_words.pop();
    }
    let separator = text(matches, "sep").unwrap_or("\n");
    let (mut command, inputs) = split(&trailing, separator)?;
    if command.is_empty() {
        command.push("{}".to_owned());
    }
    let mut rows = combinations(&inputs);
    if matches.get_flag("shuffle") {
        shuffle(&mut rows);
    }
    let dry_run = matches.get_flag("dry-run");
    let process = Process::current(&ctx.env)?;
    let mut lines = Vec::with_capacity(rows.len());
    for (seq, row) in rows.iter().enumerate() {
        let words = option_words
            .iter()
            .filter(|word| *word != "--dry-run")
            .chain(&command);
        let words: Result<Vec<String>, CmdError> = words.map(|word| substitute(word, row, seq)).collect();
        lines.push(words?);
    }
    if dry_run {
        let mut out = stdout();
        for words in &lines {
            writeln!(out, "bulksubmit: submit {}", words.join(" "))?;
        }
        out.flush()?;
        return Ok(0);
    }
    let mut makers = Vec::with_capacity(lines.len());
    for words in lines {
        let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        let parse = std::iter::once(OsString::from("flux bulksubmit")).chain(words.iter().cloned());
        let parsed =
            match args(Command::new("flux bulksubmit").infer_long_args(true)).try_get_matches_from(parse) {
                Ok(parsed) => parsed,
                Err(err) => return usage(err.to_string()),
            };
        makers.push(Maker::new(words, &parsed, &process, args)?);
    }
    let total = makers.iter().map(|maker| maker.copies().count()).sum();
    let jobs = makers
        .iter()
        .flat_map(|maker| maker.copies().ids().into_iter().map(move |cc| maker.job(cc)));
    submission::submit_all(ctx, jobs, after(matches, total)?)
}

/// Separates the command from the lists of inputs.
fn split(words: &[&str], separator: &str) -> Result<(Vec<String>, Vec<Input>), CmdError> {
    let mut command = Vec::new();
    let mut inputs: Vec<Input> = Vec::new();
    let mut files = false;
    for word in words {
        let marker = match *word {
            ":::" => Some((false, false)),
            "::::" => Some((true, false)),
            ":::+" => Some((false, true)),
            "::::+" => Some((true, true)),
            _ => None,
        };
        if let Some((from_files, linked)) = marker {
            if linked && inputs.is_empty() {
                return usage("linked inputs (:::+) need inputs before them");
            }
            files = from_files;
            inputs.push(Input {
                linked,
                values: Vec::new(),
            });
            continue;
        }
        match inputs.last_mut() {
            None => command.push((*word).to_owned()),
            Some(input) if files => input.values.extend(read_values(word, separator)?),
            Some(input) => input.values.push((*word).to_owned()),
        }
    }
    if inputs.is_empty() {
        inputs.push(Input {
            linked: false,
            values: read_values("-", separator)?,
        });
    }
    Ok((command, inputs))
}

fn read_values(path: &str, separator: &str) -> Result<Vec<String>, CmdError> {
    let mut content = String::new();
    if path == "-" {
        std::io::stdin()
            .read_to_string(&mut content)
            .map_err(CmdError::file("standard input"))?;
    } else {
        content = std::fs::read_to_string(path).map_err(CmdError::file(path))?;
    }
    let values = content.split(separator).map(|value| value.trim_end_matches('\n'));
    Ok(values
        .filter(|value| !value.is_empty())
        .map(str::to_owned)
        .collect())
}

/// Returns every combination of the lists; the last list varies fastest, linked lists go along with theirs.
fn combinations(inputs: &[Input]) -> Vec<Vec<String>> {
    let mut groups: Vec<Vec<&Input>> = Vec::new();
    for input in inputs {
        match groups.last_mut() {
            Some(group) if input.linked => group.push(input),
            _ => groups.push(vec![input]),
        }
    }
    let mut rows: Vec<Vec<String>> = vec![Vec::new()];
    for group in groups {
        let length = group.iter().map(|input| input.values.len()).min().unwrap_or(0);
        let mut next = Vec::with_capacity(rows.len() * length);
        for row in &rows {
            for at in 0..length {
                let mut longer = row.clone();
                longer.extend(group.iter().filter_map(|input| input.values.get(at).cloned()));
                next.push(longer);
            }
        }
        rows = next;
    }
    rows
}

/// Replaces `{}`, `{N}`, `{seq}`, `{seq1}` and the forms with `.%`, `./`, `.//`, `./%`; other braces stay.
fn substitute(word: &str, row: &[String], seq: usize) -> Result<String, CmdError> {
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    let mut automatic = 0;
    while let Some((head, tail)) = rest.split_once('{') {
        out.push_str(head);
        if let Some(tail) = tail.strip_prefix('{') {
            out.push_str("{{");
            rest = tail;
            continue;
        }
        let Some((name, after)) = tail.split_once('}') else {
            out.push('{');
            rest = tail;
            continue;
        };
        let (field, method) = name
            .split_once('.')
            .map_or((name, None), |(field, method)| (field, Some(method)));
        let value = match field {
            "" => {
                automatic += 1;
                row.get(automatic - 1).cloned()
            }
            "seq" => Some(seq.to_string()),
            "seq1" => Some((seq + 1).to_string()),
            number => match number.parse::<usize>() {
                Ok(at) => row.get(at).cloned(),
                Err(_) => {
                    out.push('{');
                    out.push_str(name);
                    out.push('}');
                    rest = after;
                    continue;
                }
            },
        };
        let Some(value) = value else {
            return fail(format!(
                "Invalid replacement string in command: '{word}' ({} inputs given)",
                row.len()
            ));
        };
        out.push_str(&transform(&value, method)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn transform(value: &str, method: Option<&str>) -> Result<String, CmdError> {
    let path = Path::new(value);
    let text =
        |part: Option<&std::ffi::OsStr>| part.map_or_else(String::new, |p| p.to_string_lossy().into_owned());
    Ok(match method {
        None => value.to_owned(),
        Some("%") => path.with_extension("").to_string_lossy().into_owned(),
        Some("/") => text(path.file_name()),
        Some("//") => text(path.parent().map(Path::as_os_str)),
        Some("/%") => text(path.file_stem()),
        Some(other) => {
            return fail(format!(
                "unknown transformation '.{other}' (use .%, ./, .// or ./%)"
            ));
        }
    })
}

/// Puts rows into a random order (Fisher-Yates with a generator seeded by the clock).
fn shuffle(rows: &mut [Vec<String>]) {
    let mut state = crate::common::time::now().to_bits() | 1;
    for at in (1..rows.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let bound = u64::try_from(at + 1).unwrap_or(u64::MAX);
        rows.swap(at, usize::try_from(state % bound).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_and_combinations() {
        let (command, inputs) = split(&["echo", "{}", ":::", "1", "2", ":::", "a", "b"], "\n").unwrap();
        assert_eq!(command, ["echo", "{}"]);
        assert_eq!(
            combinations(&inputs),
            [["1", "a"], ["1", "b"], ["2", "a"], ["2", "b"]]
        );
        let (_, inputs) = split(&["x", ":::", "1", "2", ":::+", "a", "b", "c"], "\n").unwrap();
        assert_eq!(combinations(&inputs), [["1", "a"], ["2", "b"]]);
        assert!(split(&["x", ":::+", "1"], "\n").is_err());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in");
        std::fs::write(&path, "a b,c\n").unwrap();
        assert_eq!(read_values(path.to_str().unwrap(), ",").unwrap(), ["a b", "c"]);
    }

    #[test]
    fn substitutions() {
        let row = ["dir/f.txt".to_owned(), "2".to_owned()];
        let cases = [
            ("{}", "dir/f.txt"),
            ("-n{1}", "-n2"),
            ("{0}:{1}:{seq}:{seq1}", "dir/f.txt:2:4:5"),
            ("{} {}", "dir/f.txt 2"),
            ("{.%}|{0./}|{0.//}|{0./%}", "dir/f|f.txt|dir|f"),
            ("{{id}} {cc} ${HOME} {", "{{id}} {cc} ${HOME} {"),
        ];
        for (word, want) in cases {
            assert_eq!(
                substitute(word, &row, 4).map_err(|_| ()),
                Ok(want.to_owned()),
                "{word}"
            );
        }
        assert!(substitute("{7}", &row, 0).is_err());
        assert!(substitute("{.x}", &row, 0).is_err());
    }

    #[test]
    fn shuffling_keeps_the_rows() {
        let mut rows: Vec<Vec<String>> = (0..50).map(|n| vec![n.to_string()]).collect();
        let before = rows.clone();
        shuffle(&mut rows);
        rows.sort_by_key(|row| row[0].parse::<u32>().unwrap());
        assert_eq!(rows, before);
    }
}
