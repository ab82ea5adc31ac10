//! Which options does a batch script bring along? Lines such as `# flux: -N4`, the submission directives of RFC 36.
//!
//! All directives of a script begin with the same characters (the sentinel); they end at the first line that does not
//! begin with the sentinel's prefix. A triple quote opens text of several lines.

use crate::common::error::{CmdError, fail};
use crate::common::words::split;

/// The words of one directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    /// Line of the script, counted from 1.
    pub(super) line: usize,
    /// Options as the shell would pass them.
    pub(super) words: Vec<String>,
}

/// A triple quote that is open.
#[derive(Debug)]
struct Block {
    quote: &'static str,
    line: usize,
    indent: String,
    first: String,
    lines: Vec<String>,
}

/// Finds the directives of a script.
///
/// # Errors
/// `line N: ...` for a directive that is malformed, or in the wrong place.
pub(super) fn parse(script: &str) -> Result<Vec<Directive>, CmdError> {
    let mut parser = Parser::default();
    for (number, line) in (1..).zip(script.lines()) {
        if let Err(text) = parser.line(number, line) {
            return fail(format!("line {number}: {text}"));
        }
    }
    match parser.block {
        Some(block) => fail(format!("line {}: unterminated multi-line quote", block.line)),
        None => Ok(parser.directives),
    }
}

#[derive(Debug, Default)]
struct Parser {
    directives: Vec<Directive>,
    /// What stands before the tag, and the tag.
    sentinel: Option<(String, String)>,
    /// The last line in which directives were allowed.
    closed: Option<usize>,
    block: Option<Block>,
}

/// Splits a line into what stands before `flux:`, the tag itself, and the rest.
fn sentinel_of(line: &str) -> Option<(&str, &str, &str)> {
    let end = line.find(|c: char| c.is_alphanumeric() || c == '_')?;
    let (prefix, rest) = line.split_at_checked(end)?;
    let tag = rest.get(..5).filter(|tag| matches!(*tag, "flux:" | "FLUX:"))?;
    Some((prefix, tag, rest.get(5..).unwrap_or("")))
}

impl Parser {
    fn line(&mut self, number: usize, line: &str) -> Result<(), String> {
        let Some((prefix, tag, value)) = sentinel_of(line) else {
            return self.other_line(number, line);
        };
        if let Some(last) = self.closed {
            return Err(format!(
                "orphan '{tag}' detected: directives disabled after line {last}"
            ));
        }
        match &self.sentinel {
            None => self.sentinel = Some((prefix.to_owned(), tag.to_owned())),
            Some((first, kind)) if first != prefix || kind != tag => {
                return Err(format!(
                    "sentinel changed from '{first}{kind}' to '{prefix}{tag}' (to disable a directive, put a # after \
                     the sentinel)"
                ));
            }
            Some(_) => {}
        }
        self.value(number, value)
    }

    fn other_line(&mut self, number: usize, line: &str) -> Result<(), String> {
        if let Some(block) = &self.block {
            return Err(format!("unterminated multi-line quote of line {}", block.line));
        }
        let Some((prefix, _)) = &self.sentinel else {
            return Ok(());
        };
        if self.closed.is_none() && !line.trim().is_empty() && !line.starts_with(prefix.trim_end()) {
            self.closed = Some(number - 1);
        }
        Ok(())
    }

    fn value(&mut self, number: usize, value: &str) -> Result<(), String> {
        let quote = ["\"\"\"", "'''"].into_iter().find(|quote| value.ends_with(quote));
        if let Some(block) = &mut self.block {
            let text = value.strip_prefix(block.indent.as_str()).unwrap_or(value);
            if quote != Some(block.quote) {
                block.lines.push(text.to_owned());
                return Ok(());
            }
            block
                .lines
                .push(text.strip_suffix(block.quote).unwrap_or(text).to_owned());
            let Some(block) = self.block.take() else {
                return Ok(());
            };
            let mut words = split(&block.first)?;
            let text = block.lines.join("\n");
            // the text belongs to the word that the quote stands in
            match words.last_mut() {
                Some(word) if !block.first.ends_with([' ', '\t']) => word.push_str(&text),
                _ => words.push(text),
            }
            return self.add(block.line, words);
        }
        let pairs = quote.map_or(0, |quote| value.matches(quote).count());
        match quote {
            Some(quote) if pairs % 2 == 1 => {
                let first = value.trim_start();
                self.block = Some(Block {
                    quote,
                    line: number,
                    indent: value.get(..value.len() - first.len()).unwrap_or("").to_owned(),
                    first: first.strip_suffix(quote).unwrap_or(first).to_owned(),
                    lines: Vec::new(),
                });
                Ok(())
            }
            _ => self.add(number, split(value)?),
        }
    }

    fn add(&mut self, line: usize, words: Vec<String>) -> Result<(), String> {
        match words.first() {
            None => Ok(()),
            Some(word) if word.starts_with('-') => {
                self.directives.push(Directive { line, words });
                Ok(())
            }
            Some(word) => Err(format!("unknown directive '{word}' (only options are allowed)")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(script: &str) -> Vec<Vec<String>> {
        parse(script)
            .unwrap()
            .into_iter()
            .map(|directive| directive.words)
            .collect()
    }

    #[test]
    fn directives_of_a_script() {
        let script = "#!/bin/sh\n\n# flux: -N4 --queue=batch # a comment\n# a word in between\n# flux:\n\
                      # flux: --job-name=\"my job\" --setattr=a=\\\"b\\\"\n\necho\n# another comment\n";
        assert_eq!(
            words(script),
            [
                vec!["-N4", "--queue=batch"],
                vec!["--job-name=my job", "--setattr=a=\"b\""]
            ]
        );
        assert_eq!(
            words("#FLUX: -n1\n#FLUX: -t 'a b'\n"),
            [vec!["-n1"], vec!["-t", "a b"]]
        );
        assert_eq!(words("-- flux: -n1\n"), [["-n1"]]);
        assert_eq!(parse("#!/bin/sh\necho no directives\n").unwrap(), []);
        assert_eq!(parse("#flux: -n1\n").unwrap()[0].line, 1);
    }

    #[test]
    fn text_of_several_lines() {
        let script = "# flux: --conf=\"\"\"\n# flux: [resource]\n# flux:   noverify = true\n# flux: \"\"\"\n";
        assert_eq!(words(script), [["--conf=[resource]\n  noverify = true\n"]]);
        assert_eq!(words("# flux: --x='''a \"b\" c'''\n"), [["--x=a \"b\" c"]]);
    }

    #[test]
    fn errors_name_the_line() {
        for (script, text) in [
            (
                "# flux: -n1\necho\n# flux: -n2\n",
                "line 3: orphan 'flux:' detected: directives disabled after line 1",
            ),
            (
                "# flux: -n1\n# FLUX: -n2\n",
                "line 2: sentinel changed from '# flux:' to '# FLUX:'",
            ),
            ("#flux: -n1\n# flux: -n2\n", "line 2: sentinel changed"),
            ("# flux: run\n", "line 1: unknown directive 'run'"),
            ("# flux: --x=\"y\n", "line 1: the quote \" is not closed"),
            ("# flux: --x='''\n# flux: a\n", "line 1: unterminated"),
            ("# flux: --x='''\necho\n", "line 2: unterminated"),
        ] {
            let err = parse(script).unwrap_err().to_string();
            assert!(err.contains(text), "{script}: {err}");
        }
    }
}
