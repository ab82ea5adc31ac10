//! `flux-policy-compile IN.wasm OUT.cwasm`: compiles a policy component to native code for the broker's policy host.
//!
//! `flux-policy-compile --cache=DIR IN.wasm` keeps the result, with its manifest, in a directory of its own below DIR that is named after the
//! content of IN.wasm, the engine and its configuration; what is there already is not compiled again. Prints that directory.
//!
//! A program of its own, so that the broker holds no compiler, with limits of its own: a component that would take the compiler hours or
//! gigabytes is refused. Prints the engine's version on success. Output is written under a temporary name and renamed, readable by all
//! and writable by its owner.

#[path = "../../src/engine.rs"]
mod engine;

mod cache;
mod world;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use wasmtime::{Config, Engine};

/// Version of the engine, which the host must have as well.
const ENGINE_VERSION: &str = "48.0.8";
/// CPU time of one compilation, all threads together.
const CPU_SECS_MAX: u64 = 600;
/// Address space; an interpreter of some megabytes takes one gigabyte.
const MEMORY_BYTES_MAX: u64 = 8 << 30;
/// Largest compiled component, as the host reads it.
const CODE_BYTES_MAX: u64 = 256 << 20;
/// Largest component.
const WASM_BYTES_MAX: u64 = 64 << 20;

/// Why nothing was compiled.
#[derive(Debug, thiserror::Error)]
enum CompileError {
    #[error("usage: flux-policy-compile IN.wasm OUT.cwasm, or flux-policy-compile --cache=DIR IN.wasm")]
    Usage,
    #[error("{0}: {1}")]
    File(PathBuf, #[source] io::Error),
    #[error("{0}: {1:#}")]
    Component(PathBuf, wasmtime::Error),
    #[error("{0}: {1}")]
    World(PathBuf, world::WorldError),
    #[error("{0}: the name may have letters, digits, '-', '_' and '.' only and must not start with '.'")]
    Name(PathBuf),
    #[error("{0} is larger than 64 MiB")]
    Large(PathBuf),
}

fn main() -> ExitCode {
    bound();
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let result = match args.as_slice() {
        [first, second] => match first.to_str().and_then(|text| text.strip_prefix("--cache=")) {
            Some(dir) => cache::get(Path::new(dir), second).map(|dir| dir.display().to_string()),
            None => write(first, second).map(|()| ENGINE_VERSION.to_owned()),
        },
        _ => Err(CompileError::Usage),
    };
    match result {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("flux-policy-compile: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Bounds this process; what is bounded more tightly already stays so.
fn bound() {
    for (resource, most) in [
        (Resource::RLIMIT_CPU, CPU_SECS_MAX),
        (Resource::RLIMIT_AS, MEMORY_BYTES_MAX),
        (Resource::RLIMIT_FSIZE, CODE_BYTES_MAX),
        (Resource::RLIMIT_CORE, 0),
    ] {
        let limit = getrlimit(resource).map_or(most, |(_, hard)| hard.min(most));
        // lowering is always allowed; where it is not, the machine's own bounds remain
        let _allowed = setrlimit(resource, limit, limit);
    }
}

/// Reads a component.
fn read(path: &Path) -> Result<Vec<u8>, CompileError> {
    let failed = |error| CompileError::File(path.to_owned(), error);
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > WASM_BYTES_MAX {
        return Err(CompileError::Large(path.to_owned()));
    }
    fs::read(path).map_err(failed)
}

/// Returns the settings of the compiler.
fn settings() -> Config {
    let mut config = engine::config();
    // a policy must give the same answer on every machine
    config.cranelift_nan_canonicalization(true);
    config
}

/// Returns the engine that compiles.
fn engine(input: &Path) -> Result<Engine, CompileError> {
    // baseline code for the architecture: nodes of a cluster may be older than the machine that compiles
    Engine::new(&settings()).map_err(|error| CompileError::Component(input.to_owned(), error))
}

fn compile(engine: &Engine, input: &Path, component: &[u8]) -> Result<Vec<u8>, CompileError> {
    let code = engine.precompile_component(component);
    code.map_err(|error| CompileError::Component(input.to_owned(), error))
}

fn write(input: &Path, output: &Path) -> Result<(), CompileError> {
    let component = read(input)?;
    let code = compile(&engine(input)?, input, &component)?;
    put(output, &code).map_err(|error| CompileError::File(output.to_owned(), error))
}

/// Writes a file at once or not at all.
fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, content)?;
    fs::set_permissions(&temporary, Permissions::from_mode(0o644))?;
    fs::rename(&temporary, path)
}
