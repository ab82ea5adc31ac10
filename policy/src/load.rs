//! May this compiled code be run? (Verified directory, manifest, hash, then the one unsafe call.)
//!
//! Compiled code is machine code: whoever can write it can do anything that the broker can. So the directory and each file must
//! belong to root or to this user and be writable by nobody else, the code must have the hash that its manifest names, and the engine
//! refuses code made by another version or configuration.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::error::PolicyError;
use crate::plugin::{PluginSpec, WIT_VERSIONS, World};

/// Largest compiled component that is read; Python and JavaScript guests compile to tens of megabytes.
const CODE_BYTES_MAX: u64 = 256 << 20;
/// Largest manifest.
const MANIFEST_BYTES_MAX: u64 = 64 << 10;

/// What the build writes beside each component (`NAME.json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Name of the plugin and of its files.
    pub name: String,
    /// World that it implements.
    pub world: World,
    /// Version of `flux:policy` that it was built for.
    pub wit: String,
    /// Version of the plugin.
    pub version: String,
    /// SHA-256 of `NAME.wasm`, in hexadecimal.
    pub wasm_sha256: String,
    /// SHA-256 of `NAME.cwasm`, in hexadecimal.
    pub cwasm_sha256: String,
    /// Version of the engine that compiled it.
    pub engine: String,
}

/// Loads a plugin's compiled code from `dir`.
pub(crate) fn load(
    engine: &Engine,
    dir: &Path,
    spec: &PluginSpec,
) -> Result<(Component, Manifest), PolicyError> {
    check_name(&spec.name)?;
    let dir = spec.dir.as_deref().unwrap_or(dir);
    let place = open(dir)?;
    check(dir, &place.1)?;
    let path = dir.join(format!("{}.json", spec.name));
    let text = read(&path, MANIFEST_BYTES_MAX)?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|source| PolicyError::Manifest { path, source })?;
    if manifest.world != spec.world {
        return Err(PolicyError::World {
            name: spec.name.clone(),
            wanted: spec.world,
            found: manifest.world,
        });
    }
    if !WIT_VERSIONS.contains(&manifest.wit.as_str()) {
        return Err(PolicyError::Version {
            name: spec.name.clone(),
            found: manifest.wit,
            speaks: WIT_VERSIONS.join(", "),
        });
    }
    if let Some(pinned) = &spec.sha256
        && !pinned.eq_ignore_ascii_case(&manifest.wasm_sha256)
    {
        return Err(PolicyError::Pinned {
            name: spec.name.clone(),
            pinned: pinned.clone(),
            found: manifest.wasm_sha256,
        });
    }
    let path = dir.join(format!("{}.cwasm", spec.name));
    let code = read(&path, CODE_BYTES_MAX)?;
    let found = hex(&Sha256::digest(&code));
    if found != manifest.cwasm_sha256 {
        return Err(PolicyError::Hash {
            path,
            expected: manifest.cwasm_sha256,
            found,
        });
    }
    let component = deserialize(engine, &code).map_err(|source| PolicyError::Load {
        name: spec.name.clone(),
        source,
    })?;
    Ok((component, manifest))
}

/// Makes a component of code that was verified by [`load`].
#[expect(
    unsafe_code,
    reason = "precompiled code is the only kind that the broker runs"
)]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes must be what `Component::serialize` of this version of wasmtime made, unchanged. They were read from a file that only
    // root or this user can write, in such a directory, and hash to what the manifest beside it names, which the build wrote
    // together with the code; wasmtime checks its own version and configuration. The bytes are in memory: nobody changes them now.
    unsafe { Component::deserialize(engine, code) }
}

/// Refuses names that could leave the directory.
fn check_name(name: &str) -> Result<(), PolicyError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 128 || name.starts_with('.') || !name.chars().all(allowed) {
        return Err(PolicyError::Name(name.to_owned()));
    }
    Ok(())
}

fn open(path: &Path) -> Result<(File, Metadata), PolicyError> {
    let error = |source| PolicyError::Io {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(error)?;
    let metadata = file.metadata().map_err(error)?;
    Ok((file, metadata))
}

/// Refuses what others may have written.
fn check(path: &Path, metadata: &Metadata) -> Result<(), PolicyError> {
    let owner = metadata.uid();
    let problem = if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        "belongs to another user"
    } else if metadata.mode() & 0o022 != 0 {
        "is writable by group or others"
    } else {
        return Ok(());
    };
    Err(PolicyError::Unsafe {
        path: path.to_owned(),
        problem,
    })
}

/// Reads a whole file after checking it, on the same descriptor.
fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, PolicyError> {
    let (file, metadata) = open(path)?;
    check(path, &metadata)?;
    let unsafe_file = |problem| PolicyError::Unsafe {
        path: path.to_owned(),
        problem,
    };
    if !metadata.is_file() {
        return Err(unsafe_file("is no regular file"));
    }
    if metadata.len() > bytes_max {
        return Err(unsafe_file("is too large"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.take(bytes_max)
        .read_to_end(&mut bytes)
        .map_err(|source| PolicyError::Io {
            path: path.to_owned(),
            source,
        })?;
    Ok(bytes)
}

/// Returns bytes in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
