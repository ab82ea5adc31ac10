//! Which components were compiled before? One directory each, named after everything that the code depends on.
//!
//! The broker reads the manifest and the code, and checks both as it checks installed ones; it never believes that a directory was made by
//! this program.

use std::fs::DirBuilder;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::{CompileError, ENGINE_VERSION, compile, engine, put, read, settings, world};

/// Returns the directory of a component's compiled code below `cache`, compiling it where there is none.
pub(crate) fn get(cache: &Path, input: &Path) -> Result<PathBuf, CompileError> {
    let name = name_of(input).ok_or_else(|| CompileError::Name(input.to_owned()))?;
    let component = read(input)?;
    let engine = engine(input)?;
    let sha256 = hex(&Sha256::digest(&component));
    // a change of the engine's settings, not of its version, shows here
    let mut configuration = DefaultHasher::new();
    format!("{:?}", settings()).hash(&mut configuration);
    let key = format!(
        "{}-{ENGINE_VERSION}-{:016x}",
        sha256.get(..32).unwrap_or(&sha256),
        configuration.finish()
    );
    let dir = cache.join(key);
    // the manifest is written last: where it is, all is there
    if dir.join(format!("{name}.json")).is_file() {
        return Ok(dir);
    }
    let (kind, wit) = world::of(&component).map_err(|error| CompileError::World(input.to_owned(), error))?;
    let code = compile(&engine, input, &component)?;
    let cwasm_sha256 = hex(&Sha256::digest(&code));
    let manifest = format!(
        "{{\n  \"name\": \"{name}\",\n  \"world\": \"{kind}\",\n  \"wit\": \"{wit}\",\n  \"version\": \"0.0.0\",\n  \
         \"wasm_sha256\": \"{sha256}\",\n  \"cwasm_sha256\": \"{cwasm_sha256}\",\n  \"engine\": \"{ENGINE_VERSION}\"\n}}\n"
    );
    let failed = |error| CompileError::File(dir.clone(), error);
    make(&dir).map_err(failed)?;
    put(&dir.join(format!("{name}.cwasm")), &code).map_err(failed)?;
    put(&dir.join(format!("{name}.json")), manifest.as_bytes()).map_err(failed)?;
    Ok(dir)
}

/// Makes a directory that nobody else can write.
fn make(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Returns the plugin's name: that of the file.
fn name_of(input: &Path) -> Option<String> {
    let name = input.file_stem()?.to_str()?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let good = !name.is_empty() && name.len() <= 128 && !name.starts_with('.') && name.chars().all(allowed);
    good.then(|| name.to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
