//! Has anything changed that the policies are made of?

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

/// What the policies are made of, relative to the root.
const INPUTS: &[&str] = &[
    "plugins-wasm",
    "wit",
    "policy/compile",
    "policy/src/engine.rs",
    "xtask/src/wasm",
    "xtask/Cargo.toml",
];

/// What the compiler of components is made of.
const COMPILER: &[&str] = &["policy/compile", "policy/src/engine.rs"];

/// Returns a hash of all inputs' names and contents and of the compiler's version.
pub(super) fn fingerprint(root: &Path) -> Result<String> {
    hash(root, INPUTS)
}

/// Returns the same of the compiler of components.
pub(super) fn compiler(root: &Path) -> Result<String> {
    hash(root, COMPILER)
}

fn hash(root: &Path, inputs: &[&str]) -> Result<String> {
    let mut files = Vec::new();
    for input in inputs {
        list(&root.join(input), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file);
        let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        hash.update(name.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update(content.len().to_le_bytes());
        hash.update(content);
    }
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc)
        .arg("-vV")
        .output()
        .context("cannot run rustc")?;
    ensure!(version.status.success(), "rustc -vV failed");
    hash.update(version.stdout);
    Ok(super::output::hex(&hash.finalize()))
}

/// Appends all files below `path`, but for build output.
fn list(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
        let entry = entry?;
        if entry.file_name() != "target" && entry.file_name() != "dist" {
            list(&entry.path(), files)?;
        }
    }
    Ok(())
}
