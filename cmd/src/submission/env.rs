//! Which environment does a job get? The caller's, changed by the rules of `--env`.

use std::path::Path;

use indexmap::IndexMap;
use regex_lite::Regex;

use crate::common::error::{CmdError, fail};
use crate::common::glob;

/// Variables by name, in order.
pub(crate) type Environment = IndexMap<String, String>;

/// The result of the rules.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Applied {
    /// What the job starts with.
    pub(crate) environment: Environment,
    /// Values with `{{tags}}`, which the shell expands.
    pub(crate) expand: Environment,
}

/// Applies rules in order to a copy of `process`.
///
/// # Errors
/// An unreadable rules file, a bad regular expression, or `$NAME` of a variable that does not exist.
pub(crate) fn apply(rules: &[String], process: &Environment) -> Result<Applied, CmdError> {
    let mut applied = Applied {
        environment: process.clone(),
        expand: Environment::new(),
    };
    for rule in rules {
        applied.rule(rule, process, 0)?;
    }
    Ok(applied)
}

impl Applied {
    fn rule(&mut self, rule: &str, process: &Environment, depth: u32) -> Result<(), CmdError> {
        if let Some(pattern) = rule.strip_prefix('-') {
            let pattern = Pattern::new(pattern)?;
            self.environment.retain(|name, _| !pattern.matches(name));
            self.expand.retain(|name, _| !pattern.matches(name));
            return Ok(());
        }
        if let Some(path) = rule.strip_prefix('^') {
            return self.file(path, process, depth);
        }
        let Some((name, value)) = rule.split_once('=') else {
            let pattern = Pattern::new(rule)?;
            for (name, value) in process.iter().filter(|(name, _)| pattern.matches(name)) {
                self.environment
                    .entry(name.clone())
                    .or_insert_with(|| value.clone());
            }
            return Ok(());
        };
        let value = self.expand_value(rule, value, process)?;
        if flux_formats::mustache::has_tags(&value) {
            self.expand.insert(name.to_owned(), value);
        } else {
            self.environment.insert(name.to_owned(), value);
        }
        Ok(())
    }

    fn file(&mut self, path: &str, process: &Environment, depth: u32) -> Result<(), CmdError> {
        const DEPTH_MAX: u32 = 16;
        if depth > DEPTH_MAX {
            return fail(format!("{path}: environment rules files include each other"));
        }
        let expanded = match path.strip_prefix("~/") {
            Some(rest) => Path::new(process.get("HOME").map_or("/", String::as_str)).join(rest),
            None => Path::new(path).to_owned(),
        };
        let text = std::fs::read_to_string(&expanded).map_err(CmdError::file(path))?;
        for line in text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            self.rule(line, process, depth + 1)?;
        }
        Ok(())
    }

    /// Replaces `$NAME` and `${NAME}`: from what has been built, else from the process; `$$` is a dollar.
    fn expand_value(&self, rule: &str, value: &str, process: &Environment) -> Result<String, CmdError> {
        let mut out = String::with_capacity(value.len());
        let mut rest = value;
        while let Some((head, tail)) = rest.split_once('$') {
            out.push_str(head);
            if let Some(tail) = tail.strip_prefix('$') {
                out.push('$');
                rest = tail;
                continue;
            }
            let (name, after) = match tail.strip_prefix('{') {
                Some(inner) => match inner.split_once('}') {
                    Some(parts) => parts,
                    None => return fail(format!("--env: Unable to substitute {rule}: missing '}}'")),
                },
                None => {
                    let end = tail
                        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                        .unwrap_or(tail.len());
                    tail.split_at(end)
                }
            };
            match self.environment.get(name).or_else(|| process.get(name)) {
                Some(value) => out.push_str(value),
                None => {
                    return fail(format!(
                        "--env: Unable to substitute {rule}: environment variable '{name}' not set"
                    ));
                }
            }
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }
}

/// A glob, or a regular expression when it begins with `/`.
enum Pattern {
    Glob(String),
    Regex(Regex),
}

impl Pattern {
    fn new(text: &str) -> Result<Self, CmdError> {
        let Some(body) = text.strip_prefix('/') else {
            return Ok(Pattern::Glob(text.to_owned()));
        };
        let body = body.strip_suffix('/').unwrap_or(body);
        match Regex::new(body) {
            Ok(regex) => Ok(Pattern::Regex(regex)),
            Err(err) => fail(format!("--env: invalid regular expression '{body}': {err}")),
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Pattern::Glob(pattern) => glob::matches(pattern, name),
            Pattern::Regex(regex) => regex.is_match(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> Environment {
        [
            ("PATH", "/bin"),
            ("HOME", "/home/u"),
            ("FOO_A", "1"),
            ("FOO_B", "2"),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
    }

    fn run(rules: &[&str]) -> String {
        let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
        let applied = apply(&rules, &process()).unwrap();
        let pairs: Vec<String> = applied
            .environment
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        pairs.join(" ")
    }

    #[test]
    fn rules_in_order() {
        assert_eq!(run(&[]), "PATH=/bin HOME=/home/u FOO_A=1 FOO_B=2");
        assert_eq!(
            run(&["-*", "FOO=bar", "PATH=/usr/bin:$PATH"]),
            "FOO=bar PATH=/usr/bin:/bin"
        );
        assert_eq!(run(&["-FOO_*"]), "PATH=/bin HOME=/home/u");
        assert_eq!(run(&["-*", "FOO_?"]), "FOO_A=1 FOO_B=2");
        assert_eq!(run(&["-/^FOO/", "-/^H.*E$/"]), "PATH=/bin");
        assert_eq!(run(&["-*", "A=1", "B=${A}2$$"]), "A=1 B=12$");
    }

    #[test]
    fn files_tags_and_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rules");
        std::fs::write(&path, "# comment\n-*\n\nX=$HOME\n").unwrap();
        assert_eq!(run(&[&format!("^{}", path.display())]), "X=/home/u");
        std::fs::write(&path, format!("^{}\n", path.display())).unwrap();
        assert!(apply(&[format!("^{}", path.display())], &process()).is_err());
        let applied = apply(
            &["T={{id}}".to_owned(), "-*".to_owned(), "U={{id}}".to_owned()],
            &process(),
        )
        .unwrap();
        assert!(applied.environment.is_empty());
        assert_eq!(applied.expand.get("U").map(String::as_str), Some("{{id}}"));
        for bad in ["X=$NOPE", "X=${PATH", "-/(/", "^/does/not/exist"] {
            assert!(apply(&[bad.to_owned()], &process()).is_err(), "{bad}");
        }
    }
}
