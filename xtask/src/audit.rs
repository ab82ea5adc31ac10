//! What does an auditor of the IMP have to read, and is it within bounds? `make audit`.
//!
//! Prints the figures, and fails when one is above its budget, when a dependency is not on the list, or when a table of
//! `docs/imp/` is not true any more. `--write` brings the line numbers and the table of `unsafe` up to date.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::print;

/// Lines of the IMP itself that run with privilege (no blanks, comments, tests).
const PRIVILEGED_MAX: usize = 2000;
/// Lines of the crate.
const CRATE_MAX: usize = 4000;
/// Crates in the tree, ours among them.
const CRATES_MAX: usize = 21;
/// Attack cases of the list.
const CASES: u32 = 70;
/// Directories and files that run after privilege has been given up for good; all others are counted as privileged.
const UNPRIVILEGED: [&str; 4] = ["relay/", "helpers/", "sys/users.rs", "sys/seal.rs"];
/// Files of the signing crate that the monitor uses.
const SIGN_FILES: [&str; 6] = [
    "kv.rs",
    "token.rs",
    "signer.rs",
    "munge.rs",
    "base64.rs",
    "config.rs",
];
const GOLDEN: &str = "imp/DEPENDENCIES.golden";
const UNSAFE_TABLE: &str = "docs/imp/unsafe.md";
const ORDER_TABLE: &str = "docs/imp/order.md";
const ATTACK_TABLE: &str = "docs/imp/attacks.md";

/// Runs the task.
///
/// # Errors
/// Says which figure is above its budget or which table is not true.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let write = match args {
        [] => false,
        [option] if option == "--write" => true,
        _ => bail!("usage: cargo xtask audit [--write]"),
    };
    let files = sources(Path::new("imp/src"))?;
    let mut total = 0;
    let mut privileged = 0;
    let mut blocks = Vec::new();
    for path in &files {
        let text = fs::read_to_string(path)?;
        let lines = code_lines(&text);
        total += lines;
        let name = path.strip_prefix("imp/src")?.to_string_lossy().into_owned();
        if !UNPRIVILEGED.iter().any(|place| name.starts_with(place)) {
            privileged += lines;
        }
        blocks.extend(unsafe_blocks(&name, &text)?);
    }
    let mut sign = 0;
    for name in SIGN_FILES {
        sign += code_lines(&fs::read_to_string(Path::new("imp/sign/src").join(name))?);
    }
    let crates = dependencies(write)?;
    let order = order(write)?;
    unsafe_table(&blocks, write)?;
    let (proved, reasoned) = cases()?;
    let calls = system_calls()?;
    print(&format!(
        "lines of flux-imp with privilege   {privileged:5}  (at most {PRIVILEGED_MAX})"
    ));
    print(&format!("lines of the signing crate used    {sign:5}"));
    print(&format!(
        "lines of the crate                 {total:5}  (at most {CRATE_MAX})"
    ));
    print(&format!("unsafe blocks                      {:5}", blocks.len()));
    print(&format!(
        "crates in the tree                 {crates:5}  (at most {CRATES_MAX})"
    ));
    print(&format!("system calls on the way            {calls:5}"));
    print(&format!("operations with their lines        {order:5}"));
    print(&format!("attack cases with a test           {proved:5}"));
    print(&format!("attack cases with a reason         {reasoned:5}"));
    ensure!(
        privileged <= PRIVILEGED_MAX,
        "{privileged} lines run with privilege"
    );
    ensure!(total <= CRATE_MAX, "the crate has {total} lines");
    ensure!(crates <= CRATES_MAX, "{crates} crates are in the tree");
    Ok(())
}

/// Source files, sorted, without those of tests.
fn sources(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("{}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if !path.to_string_lossy().ends_with("tests.rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The text up to its module of tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

fn code_lines(text: &str) -> usize {
    let code = |line: &&str| !line.is_empty() && !line.starts_with("//");
    without_tests(text).lines().map(str::trim).filter(code).count()
}

/// One use of `unsafe`: file, line, the line's text, and why it is sound.
struct Unsafe {
    file: String,
    line: usize,
    code: String,
    why: String,
}

fn unsafe_blocks(file: &str, text: &str) -> Result<Vec<Unsafe>> {
    let lines: Vec<&str> = without_tests(text).lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim();
        if code.starts_with("//") || !(code.contains("unsafe {") || code.starts_with("unsafe ")) {
            continue;
        }
        // Declarations are calls' business; methods of an unsafe trait are explained at their impl.
        if code.starts_with("unsafe extern") || code.starts_with("unsafe fn") {
            continue;
        }
        let before = lines
            .get(..at)
            .unwrap_or_default()
            .iter()
            .rev()
            .map(|line| line.trim());
        // A statement may begin some lines above its block.
        let mut reason: Vec<&str> = Vec::new();
        for text in before.take(12) {
            let comment = text.strip_prefix("//");
            match comment.filter(|text| !text.starts_with('/')) {
                Some(comment) => reason.push(comment.trim()),
                None if reason.is_empty() => {}
                None => break,
            }
        }
        reason.reverse();
        let why = reason.join(" ");
        let why = why.split_once("SAFETY: ").map(|(_, why)| why.to_owned());
        found.push(Unsafe {
            file: file.to_owned(),
            line: at + 1,
            code: code.replace('|', "\\|"),
            why: why
                .with_context(|| format!("{file}:{}: no SAFETY comment", at + 1))?
                .replace('|', "\\|"),
        });
    }
    Ok(found)
}

fn unsafe_table(blocks: &[Unsafe], write: bool) -> Result<()> {
    let mut text = "# Each use of `unsafe`\n\nMade by `cargo run -p xtask -- audit --write` from the comments beside the code; `make audit` compares. \
                    All are in `imp/src/sys/` and `imp/src/pam/sys.rs`;\nevery other file refuses `unsafe`.\n\n| where | code | why it is sound |\n|---|---|---|\n"
        .to_owned();
    for block in blocks {
        let in_sys = block.file.starts_with("sys/") || block.file == "pam/sys.rs";
        ensure!(
            in_sys,
            "{}:{}: unsafe outside of the sys modules",
            block.file,
            block.line
        );
        writeln!(
            text,
            "| {}:{} | `{}` | {} |",
            block.file, block.line, block.code, block.why
        )?;
    }
    same(UNSAFE_TABLE, &text, write)
}

/// Compares a file that is made with what it should be, or writes it.
fn same(path: &str, text: &str, write: bool) -> Result<()> {
    if write {
        return Ok(fs::write(path, text)?);
    }
    let found = fs::read_to_string(path).with_context(|| path.to_owned())?;
    ensure!(
        found == text,
        "{path} is out of date: cargo run -p xtask -- audit --write"
    );
    Ok(())
}

/// Checks (or sets) the lines of the table of operations; returns how many there are.
fn order(write: bool) -> Result<usize> {
    let found = fs::read_to_string(ORDER_TABLE).with_context(|| ORDER_TABLE.to_owned())?;
    let mut text = String::new();
    let mut count = 0;
    for line in found.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let place = cells.get(4).and_then(|place| place.split_once(".rs:"));
        let (Some((file, _)), [number, who, calls, code, _]) = (place, cells.as_slice()) else {
            writeln!(text, "{line}")?;
            continue;
        };
        count += 1;
        let code = code.trim_matches('`');
        let source = fs::read_to_string(format!("imp/{file}.rs"))
            .with_context(|| format!("{ORDER_TABLE}: {file}.rs"))?;
        let mut at = without_tests(&source)
            .lines()
            .enumerate()
            .filter(|(_, line)| line.contains(code));
        let (Some((at, _)), None) = (at.next(), at.next()) else {
            bail!("{ORDER_TABLE}: {number}: `{code}` is not on exactly one line of {file}.rs");
        };
        writeln!(
            text,
            "| {number} | {who} | {calls} | `{code}` | {file}.rs:{} |",
            at + 1
        )?;
    }
    same(ORDER_TABLE, &text.replace("|  |", "| |"), write)?;
    Ok(count)
}

/// Checks that every attack case has a test that exists, or a reason; returns how many have which.
fn cases() -> Result<(u32, u32)> {
    let table = fs::read_to_string(ATTACK_TABLE).with_context(|| ATTACK_TABLE.to_owned())?;
    let mut tests = String::new();
    for path in [sources(Path::new("imp/tests"))?, sources(Path::new("imp/src"))?].concat() {
        tests.push_str(&fs::read_to_string(&path)?);
    }
    for entry in fs::read_dir("imp/sign/src")? {
        tests.push_str(&fs::read_to_string(entry?.path())?);
    }
    let (mut proved, mut reasoned) = (0, 0);
    for number in 1..=CASES {
        let row = table
            .lines()
            .find(|line| line.starts_with(&format!("| {number} |")));
        let row = row.with_context(|| format!("{ATTACK_TABLE}: case {number} is missing"))?;
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [_, _, test, reason] = cells.as_slice() else {
            bail!("{ATTACK_TABLE}: case {number} has not four cells");
        };
        let names: Vec<&str> = test.split('`').skip(1).step_by(2).collect();
        for name in &names {
            ensure!(
                tests.contains(&format!("fn {name}(")),
                "{ATTACK_TABLE}: case {number}: no test {name}"
            );
        }
        ensure!(
            !names.is_empty() || !reason.is_empty(),
            "{ATTACK_TABLE}: case {number} has neither test nor reason"
        );
        if names.is_empty() {
            reasoned += 1;
        } else {
            proved += 1;
        }
    }
    Ok((proved, reasoned))
}

/// Counts the system calls on the list, which a test compares with a trace.
fn system_calls() -> Result<usize> {
    let list = fs::read_to_string("docs/imp/syscalls.txt").context("docs/imp/syscalls.txt")?;
    Ok(list.split_whitespace().count())
}

/// Compares the crates of flux-imp with the list; returns how many there are.
fn dependencies(write: bool) -> Result<usize> {
    let output = Command::new("cargo")
        .args([
            "tree",
            "--manifest-path",
            "imp/Cargo.toml",
            "--package",
            "flux-imp",
            "--locked",
        ])
        .args(["--edges", "normal,build", "--prefix", "none", "--format", "{p}"])
        .output()
        .context("cargo tree")?;
    ensure!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout)?;
    let mut crates: Vec<String> = text
        .lines()
        .filter_map(|line| {
            Some(line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).filter(|l| !l.is_empty())
        })
        .collect();
    crates.sort();
    crates.dedup();
    let derive = crates
        .iter()
        .find(|name| name.contains("derive") || name.starts_with("syn "));
    ensure!(derive.is_none(), "a derive macro is in the tree: {derive:?}");
    let mut list =
        "# Crates of flux-imp: `cargo run -p xtask -- audit --write`; docs/imp/dependencies.md says why.\n"
            .to_owned();
    crates.iter().for_each(|name| list.extend([name.as_str(), "\n"]));
    same(GOLDEN, &list, write)?;
    Ok(crates.len())
}
