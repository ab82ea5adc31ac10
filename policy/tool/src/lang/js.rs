//! JavaScript: componentize-js puts an engine and the source into a component (12 MB).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Project, on_path};

const PACKAGE: &str = "@bytecodealliance/componentize-js";
const BUILD: &str = include_str!("../../templates/js/build.mjs");

/// Makes a component.
///
/// # Errors
/// What componentize-js says, or how to get it.
pub(super) fn build(project: &Project) -> Result<Vec<u8>> {
    let install =
        format!("npm install {PACKAGE}@0.23.0 in the project, or name its node_modules with NODE_PATH");
    let node = on_path("node").with_context(|| {
        format!(
            "Node.js is needed to build policies in JavaScript, and node is not on PATH; with it, {install}"
        )
    })?;
    let package = find(&project.dir)
        .with_context(|| format!("{PACKAGE} is needed to build policies in JavaScript: {install}"))?;
    let script = project.work.join("build.mjs");
    std::fs::write(&script, BUILD).with_context(|| format!("cannot write {}", script.display()))?;
    let mut command = Command::new(node);
    command
        .arg(script)
        .arg(package.join("src/componentize.js"))
        .arg(&project.source)
        .arg(project.dir.join("wit"))
        .arg(project.work.join("policy.wasm"));
    project.run(&mut command)?;
    project.built("policy.wasm")
}

/// Finds the package as node would: `node_modules` of the project and of the directories above it, then NODE_PATH.
fn find(project: &Path) -> Option<PathBuf> {
    let above = project.ancestors().map(|dir| dir.join("node_modules"));
    let named = std::env::var_os("NODE_PATH").unwrap_or_default();
    above
        .chain(std::env::split_paths(&named))
        .map(|dir| dir.join(PACKAGE))
        .find(|dir| dir.join("src/componentize.js").is_file())
}
