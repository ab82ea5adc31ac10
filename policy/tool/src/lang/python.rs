//! Python: componentize-py puts the interpreter and the source into a component (18 MB).

use std::process::Command;

use anyhow::{Context, Result};

use super::{Project, on_path};

/// Makes a component.
///
/// # Errors
/// What componentize-py says, or how to get it.
pub(super) fn build(project: &Project) -> Result<Vec<u8>> {
    let program = std::env::var_os("FLUX_POLICY_COMPONENTIZE_PY")
        .map(Into::into)
        .or_else(|| on_path("componentize-py"))
        .context(
            "componentize-py is needed to build policies in Python, and is not on PATH: pip install componentize-py==0.25.1",
        )?;
    let mut command = Command::new(program);
    command
        .args([
            "-d",
            "wit",
            "-w",
            "policy",
            "componentize",
            "--stub-wasi",
            "policy",
            "-o",
        ])
        .arg(project.work.join("policy.wasm"));
    project.run(&mut command)?;
    project.built("policy.wasm")
}
