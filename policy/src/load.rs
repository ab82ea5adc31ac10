//! May this compiled code be run? (Verified directory, manifest, hash, then the one unsafe call.)
//!
//! Compiled code is machine code: whoever can write it can do anything that the broker can. So the directory and each file must
//! belong to root or to this user and be writable by nobody else, the code must have the hash that its manifest names, and the engine
//! refuses code made by another version or configuration.
//!
//! The code is mapped from its file: pages that no plugin runs take no memory, and brokers of one node share the others. So a file is
//! replaced (`install`, `rename`) and never written in place while a broker runs.

use std::fs::{File, Metadata};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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

/// The compiled code of a plugin: an open file and the hash that it must have.
#[derive(Debug)]
pub(crate) struct Code {
    name: String,
    path: PathBuf,
    file: File,
    sha256: String,
}

/// Opens a plugin's compiled code in `dir` and reads its manifest.
pub(crate) fn open_code(dir: &Path, spec: &PluginSpec) -> Result<(Code, Manifest), PolicyError> {
    check_name(&spec.name)?;
    let (_, metadata) = open(dir)?;
    check(dir, &metadata)?;
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
    let file = open_checked(&path, CODE_BYTES_MAX)?;
    let code = Code {
        name: spec.name.clone(),
        path,
        file,
        sha256: manifest.cwasm_sha256.clone(),
    };
    Ok((code, manifest))
}

impl Code {
    /// Verifies the code and maps it. The file stays open: it can be mapped again when another has its name by then.
    #[expect(
        unsafe_code,
        reason = "precompiled code is the only kind that the broker runs"
    )]
    pub(crate) fn map(&self, engine: &Engine) -> Result<Component, PolicyError> {
        let found = hash(&self.file).map_err(|source| PolicyError::Io {
            path: self.path.clone(),
            source,
        })?;
        if found != self.sha256 {
            return Err(PolicyError::Hash {
                path: self.path.clone(),
                expected: self.sha256.clone(),
                found,
            });
        }
        // the open file that was verified, not whatever has its name by now
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        // SAFETY: the file must hold what `Component::serialize` of this version of wasmtime made, now and as long as it is mapped. Only root
        // or this user can write it or its directory, and it hashes to what the manifest beside it named, which the build wrote
        // together with the code; wasmtime checks its own version and configuration. Both users could change this process anyway.
        let component = unsafe { Component::deserialize_file(engine, path) };
        component.map_err(|source| PolicyError::Compiled {
            name: self.name.clone(),
            source,
        })
    }
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
    let mut bytes = Vec::new();
    open_checked(path, bytes_max)?
        .take(bytes_max)
        .read_to_end(&mut bytes)
        .map_err(|source| PolicyError::Io {
            path: path.to_owned(),
            source,
        })?;
    Ok(bytes)
}

/// Opens a file that nobody else may have written and that is not larger than `bytes_max`.
fn open_checked(path: &Path, bytes_max: u64) -> Result<File, PolicyError> {
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
    Ok(file)
}

/// Returns the SHA-256 of a file's content in hexadecimal; it is not held in memory.
fn hash(mut file: &File) -> std::io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = Sha256::new();
    let mut reader = BufReader::with_capacity(64 << 10, file.take(CODE_BYTES_MAX));
    loop {
        let block = reader.fill_buf()?;
        if block.is_empty() {
            break;
        }
        hasher.update(block);
        let bytes = block.len();
        reader.consume(bytes);
    }
    Ok(hex(&hasher.finalize()))
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
