//! What did the checks find? Findings, their look, and whether one is a failure.

use std::io::{self, Write};

use serde_json::{Value, json};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should be.
    Good,
    /// Works, but may surprise.
    Warning,
    /// A multi-user instance will not work like this.
    Bad,
    /// Could not be checked.
    Skipped,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Good => "ok",
            Verdict::Warning => "warning",
            Verdict::Bad => "FAILED",
            Verdict::Skipped => "skipped",
        }
    }
}

#[derive(Debug)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    text: String,
    advice: String,
}

/// All findings, in order.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Finding>);

impl Report {
    fn add(&mut self, check: &'static str, verdict: Verdict, text: String, advice: String) {
        self.0.push(Finding {
            check,
            verdict,
            text,
            advice,
        });
    }

    /// Something is as it should be.
    pub(super) fn good(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(check, Verdict::Good, text.into(), String::new());
    }

    /// Something could not be checked.
    pub(super) fn skipped(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(check, Verdict::Skipped, text.into(), String::new());
    }

    /// Something may surprise.
    pub(super) fn warning(
        &mut self,
        check: &'static str,
        text: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(check, Verdict::Warning, text.into(), advice.into());
    }

    /// Something does not work.
    pub(super) fn bad(&mut self, check: &'static str, text: impl Into<String>, advice: impl Into<String>) {
        self.add(check, Verdict::Bad, text.into(), advice.into());
    }

    /// Returns true when a check failed.
    pub(super) fn failed(&self) -> bool {
        self.0.iter().any(|finding| finding.verdict == Verdict::Bad)
    }

    /// Returns the findings as `[{check, result, text, advice?}]`.
    pub(super) fn json(&self) -> Value {
        let finding = |finding: &Finding| {
            let mut value = json!({
                "check": finding.check, "result": finding.verdict.word(), "text": finding.text,
            });
            if !finding.advice.is_empty()
                && let Some(object) = value.as_object_mut()
            {
                object.insert("advice".to_owned(), Value::from(finding.advice.as_str()));
            }
            value
        };
        Value::Array(self.0.iter().map(finding).collect())
    }

    /// Prints one line per finding, and below it what to do.
    ///
    /// # Errors
    /// Those of the output.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        for finding in &self.0 {
            let Finding {
                check,
                verdict,
                text,
                advice,
            } = finding;
            writeln!(out, "{:<8} {check:<13} {text}", verdict.word())?;
            if !advice.is_empty() {
                writeln!(out, "         {:<13} -> {advice}", "")?;
            }
        }
        let count = |verdict| self.0.iter().filter(|finding| finding.verdict == verdict).count();
        writeln!(
            out,
            "{} checks passed, {} failed, {} warnings, {} skipped",
            count(Verdict::Good),
            count(Verdict::Bad),
            count(Verdict::Warning),
            count(Verdict::Skipped)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_and_advise() {
        let mut report = Report::default();
        report.good("munge", "answers");
        report.skipped("peers", "not asked");
        report.warning("clock", "unknown", "look");
        assert!(!report.failed());
        report.bad("imp", "not setuid", "chmod 4755");
        assert!(report.failed());
        let mut out = Vec::new();
        report.print(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("FAILED   imp           not setuid\n"), "{text}");
        assert!(text.contains("-> chmod 4755"), "{text}");
        assert!(
            text.ends_with("1 checks passed, 1 failed, 1 warnings, 1 skipped\n"),
            "{text}"
        );
        let json = report.json();
        assert_eq!(json[3]["advice"], "chmod 4755");
        assert_eq!(json[0]["result"], "ok");
    }
}
