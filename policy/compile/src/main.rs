//! `flux-policy-compile IN.wasm OUT.cwasm`: compiles a policy component to native code for the broker's policy host.
//!
//! A program of its own, so that the broker holds no compiler. Prints the engine's version on success. The output is written under a temporary
//! name and renamed, readable by all and writable by its owner.

#[path = "../../src/engine.rs"]
mod engine;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use wasmtime::Engine;

/// Version of the engine, which the host must have as well.
const ENGINE_VERSION: &str = "48.0.8";

/// Why nothing was compiled.
#[derive(Debug, thiserror::Error)]
enum CompileError {
    #[error("usage: flux-policy-compile IN.wasm OUT.cwasm")]
    Usage,
    #[error("{0}: {1}")]
    File(PathBuf, #[source] io::Error),
    #[error("{0}: {1:#}")]
    Component(PathBuf, wasmtime::Error),
}

fn main() -> ExitCode {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let result = match args.as_slice() {
        [input, output] => compile(input, output),
        _ => Err(CompileError::Usage),
    };
    match result {
        Ok(()) => {
            println!("{ENGINE_VERSION}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("flux-policy-compile: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compile(input: &Path, output: &Path) -> Result<(), CompileError> {
    let failed = |error| CompileError::Component(input.to_owned(), error);
    let component = fs::read(input).map_err(|error| CompileError::File(input.to_owned(), error))?;
    let mut config = engine::config();
    // a policy must give the same answer on every machine
    config.cranelift_nan_canonicalization(true);
    // baseline code for the architecture: nodes of a cluster may be older than the machine that compiles
    let engine = Engine::new(&config).map_err(failed)?;
    let code = engine.precompile_component(&component).map_err(failed)?;
    let temporary = output.with_extension("tmp");
    let write = || {
        fs::write(&temporary, &code)?;
        fs::set_permissions(&temporary, Permissions::from_mode(0o644))?;
        fs::rename(&temporary, output)
    };
    write().map_err(|error| CompileError::File(output.to_owned(), error))
}
