//! Has a released interface changed? `wit/flux-policy-V/` is frozen: components that were built of it must run for ever.
//!
//! `wit/` is reduced to a list of lines, one for each function, type and item of a world, without comments, and compared with the list that was
//! recorded (`xtask/wit/flux-policy-V.txt`). A line that is gone or different breaks components; so does a new function in an interface that they
//! export. What is new besides is recorded with `cargo xtask wit --bless`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use wit_component::{OutputToString, WitPrinter};
use wit_parser::Resolve;

use crate::report;

/// Runs `cargo xtask wit [--bless]`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let bless = match args {
        [] => false,
        [word] if word == "--bless" => true,
        _ => bail!("usage: cargo xtask wit [--bless]"),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask has no parent directory")?;
    let mut count = 0;
    for entry in fs::read_dir(root.join("wit"))? {
        let dir = entry?.path();
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !dir.is_dir() {
            continue;
        }
        count += 1;
        let now = surface(&dir).with_context(|| name.clone())?;
        let path = root.join(format!("xtask/wit/{name}.txt"));
        let recorded = match fs::read_to_string(&path) {
            Ok(text) => text.lines().map(str::to_owned).collect(),
            Err(_) if bless => BTreeSet::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let (broken, new) = compare(&recorded, &now);
        ensure!(
            broken.is_empty(),
            "wit/{name} is released, and this change breaks components that were built of it (a new version is a new directory):\n  {}",
            broken.join("\n  ")
        );
        if new.is_empty() {
            continue;
        }
        ensure!(
            bless,
            "wit/{name} has more than was recorded; if older hosts need not know it, record it with 'cargo xtask wit --bless':\n  {}",
            new.join("\n  ")
        );
        let text: String = now.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        report(&format!(
            "wit: {}: {} new lines recorded",
            path.display(),
            new.len()
        ));
    }
    ensure!(count > 0, "there is no interface in wit/");
    Ok(())
}

/// Returns what a directory of `wit/` says, one line for each item, with the interface or world that it is in.
fn surface(dir: &Path) -> Result<BTreeSet<String>> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(dir)?;
    let mut printer = WitPrinter::new(OutputToString::default());
    printer.emit_docs(false);
    printer.print(&resolve, package, &[])?;
    Ok(lines(&String::from(printer.output)))
}

/// Splits printed WIT into items. A block of an interface, world or resource gives its name to the lines in it; any other block is one item.
fn lines(text: &str) -> BTreeSet<String> {
    let mut items = BTreeSet::new();
    let mut place: Vec<String> = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(open) = &mut block {
            open.push(' ');
            open.push_str(line);
            if line == "}" {
                items.insert(format!("{}: {open}", place.join(" ")));
                block = None;
            }
        } else if let Some(head) = line.strip_suffix(" {") {
            let kind = head.split_whitespace().next().unwrap_or("");
            if matches!(kind, "interface" | "world" | "resource") {
                place.push(head.to_owned());
                // a resource without functions is an item, too
                items.insert(format!("{}:", place.join(" ")));
            } else {
                block = Some(line.to_owned());
            }
        } else if line == "}" {
            place.pop();
        } else {
            items.insert(format!("{}: {line}", place.join(" ")));
        }
    }
    items
}

/// Returns what breaks components, and what is merely new.
fn compare(recorded: &BTreeSet<String>, now: &BTreeSet<String>) -> (Vec<String>, Vec<String>) {
    let interface = |item: &str| {
        Some(
            item.strip_prefix("interface ")?
                .split([' ', ':'])
                .next()?
                .to_owned(),
        )
    };
    let exported: BTreeSet<String> = recorded
        .iter()
        .filter_map(|item| Some(item.split_once(": export ")?.1.trim_end_matches(';').to_owned()))
        .collect();
    let mut broken: Vec<String> = recorded
        .difference(now)
        .map(|item| format!("gone or changed: {item}"))
        .collect();
    let mut new = Vec::new();
    for item in now.difference(recorded) {
        // the host would look for a function that no component has
        if interface(item).is_some_and(|name| exported.contains(&name)) && item.contains("func(") {
            broken.push(format!("new in an exported interface: {item}"));
        } else {
            new.push(item.clone());
        }
    }
    (broken, new)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "package a:b;
interface types {
  record refusal {
    errnum: u32,
  }
  resource job {
    id: func() -> u64;
  }
}
interface check {
  validate: func(id: u64) -> bool;
}
world w {
  import types;
  export check;
}
";

    fn changed(from: &str, to: &str) -> (Vec<String>, Vec<String>) {
        assert!(BEFORE.contains(from));
        compare(&lines(BEFORE), &lines(&BEFORE.replace(from, to)))
    }

    #[test]
    fn items() {
        let items = lines(BEFORE);
        for item in [
            "interface types: record refusal { errnum: u32, }",
            "interface types resource job: id: func() -> u64;",
            "interface check: validate: func(id: u64) -> bool;",
            "world w: export check;",
        ] {
            assert!(items.contains(item), "{item}: {items:#?}");
        }
    }

    #[test]
    fn what_breaks_and_what_does_not() {
        for (from, to) in [
            ("id: func() -> u64;", "id: func() -> u32;"),
            ("    errnum: u32,", "    errnum: u32,\n    text: string,"),
            ("  validate: func(id: u64) -> bool;", ""),
            ("-> bool;", "-> bool;\n  more: func();"),
            ("  export check;", ""),
        ] {
            assert!(!changed(from, to).0.is_empty(), "{to}");
        }
        for (from, to) in [
            (
                "id: func() -> u64;",
                "id: func() -> u64;\n    name: func() -> string;",
            ),
            (
                "interface check",
                "interface more {\n  tell: func();\n}\ninterface check",
            ),
            ("  export check;", "  export check;\n  export more;"),
        ] {
            let (broken, new) = changed(from, to);
            assert!(broken.is_empty() && !new.is_empty(), "{to}: {broken:?}");
        }
        assert!(changed("package a:b;", "/// Words.\npackage a:b;").0.is_empty());
    }
}
