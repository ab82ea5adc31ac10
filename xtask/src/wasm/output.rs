//! What lies in `target/policies/`, and is it all there?

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::component::WIT_VERSION;
use super::{Compiler, Places, Plugin};

/// What the last build made of which inputs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) fingerprint: String,
    pub(super) built: Vec<Built>,
}

/// A plugin that was built.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Built {
    pub(super) name: String,
    pub(super) test: bool,
    pub(super) core_sha256: String,
    pub(super) compiler_sha256: String,
}

/// The manifest that the broker's policy host reads (`flux_policy::Manifest`).
#[derive(Serialize)]
struct Manifest<'a> {
    name: &'a str,
    world: &'a str,
    wit: &'a str,
    version: &'a str,
    wasm_sha256: String,
    cwasm_sha256: String,
    engine: String,
}

impl Stamp {
    /// Returns true when all files are there.
    pub(super) fn is_complete(&self, out: &Path) -> bool {
        self.built.iter().all(|built| built.exists(out))
    }
}

impl Built {
    /// Returns true when the plugin's files are there.
    pub(super) fn exists(&self, out: &Path) -> bool {
        let dir = dir(out, self.test);
        ["wasm", "cwasm", "json"]
            .iter()
            .all(|ext| dir.join(format!("{}.{ext}", self.name)).is_file())
    }
}

/// Returns where plugins go; those that only tests use stay apart, as all the others are installed.
pub(super) fn dir(out: &Path, test: bool) -> PathBuf {
    if !test {
        return out.to_owned();
    }
    let mut name = out.as_os_str().to_owned();
    name.push("-test");
    PathBuf::from(name)
}

/// Makes a directory that the policy host trusts, whatever the umask.
pub(super) fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o755))?;
    Ok(())
}

/// Writes a component, its native code and its manifest.
pub(super) fn write(places: &Places, plugin: &Plugin, component: &[u8], compiler: &Compiler) -> Result<()> {
    let dir = dir(&places.out, plugin.test);
    let path = |ext: &str| dir.join(format!("{}.{ext}", plugin.name));
    let temporary = path("new");
    let _left_behind = fs::remove_file(&temporary);
    put(&path("wasm"), component)?;
    let out = Command::new(&compiler.program)
        .arg(path("wasm"))
        .arg(&temporary)
        .output();
    let out = out.with_context(|| format!("cannot run {}", compiler.program.display()))?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(
        out.status.success(),
        "{} cannot be compiled: {}",
        plugin.name,
        said.trim()
    );
    let code = fs::read(&temporary)?;
    fs::remove_file(&temporary)?;
    put(&path("cwasm"), &code)?;
    let manifest = Manifest {
        name: &plugin.name,
        world: &plugin.world,
        wit: WIT_VERSION,
        version: &plugin.version,
        wasm_sha256: sha256(component),
        cwasm_sha256: sha256(&code),
        engine: String::from_utf8_lossy(&out.stdout).trim().to_owned(),
    };
    put(
        &path("json"),
        format!("{}\n", serde_json::to_string_pretty(&manifest)?).as_bytes(),
    )
}

/// Writes a file at once or not at all.
fn put(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let put = || -> std::io::Result<()> {
        fs::write(&temporary, content)?;
        fs::set_permissions(&temporary, Permissions::from_mode(0o644))?;
        fs::rename(&temporary, path)
    };
    put().with_context(|| format!("cannot write {}", path.display()))
}

/// Returns what the last build left, if anything.
pub(super) fn read_stamp(out: &Path) -> Option<Stamp> {
    serde_json::from_slice(&fs::read(out.join(".stamp")).ok()?).ok()
}

pub(super) fn write_stamp(out: &Path, stamp: &Stamp) -> Result<()> {
    put(&out.join(".stamp"), serde_json::to_string(stamp)?.as_bytes())
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
