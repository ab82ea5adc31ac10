//! How do the sources of our policies become the files that the broker loads?
//!
//! `plugins-wasm/` is compiled for wasm32-unknown-unknown, each core module is turned into a component, checked for imports, and compiled to
//! native code by `flux-policy-compile`. The result is `target/policies/NAME.{wasm,cwasm,json}`; plugins that only tests use go to
//! `target/policies-test/`. Nothing is done when no input has changed.

mod component;
mod inputs;
mod output;

use std::fs::{self, File};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::report;
use output::{Built, Stamp};

/// The target that imports nothing by itself.
const TARGET: &str = "wasm32-unknown-unknown";

/// Where everything is.
struct Places {
    root: PathBuf,
    /// Results.
    out: PathBuf,
    /// Intermediate files.
    work: PathBuf,
}

/// A crate of `plugins-wasm/` that is a policy.
#[derive(Clone, Debug)]
struct Plugin {
    name: String,
    version: String,
    world: String,
    test: bool,
}

/// Runs `cargo xtask wasm [--out DIR] [--force] [--release-compiler]`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask has no parent directory")?
        .to_owned();
    let mut places = Places {
        out: root.join("target/policies"),
        work: root.join("target/wasm"),
        root,
    };
    let (mut force, mut release) = (false, false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--out" => places.out = PathBuf::from(args.next().context("--out needs a directory")?),
            "--force" => force = true,
            "--release-compiler" => release = true,
            other => bail!(
                "unknown argument '{other}'; usage: cargo xtask wasm [--out DIR] [--force] [--release-compiler]"
            ),
        }
    }
    if let Some(target) = std::env::var_os("CARGO_TARGET_DIR") {
        places.work = Path::new(&target).join("wasm");
    }
    output::make_dir(&places.out)?;
    output::make_dir(&output::dir(&places.out, true))?;
    // two builds at once must not mix their files
    let lock = File::create(places.out.join(".lock"))?;
    lock.lock()?;
    let fingerprint = inputs::fingerprint(&places.root)?;
    let old = output::read_stamp(&places.out).filter(|_| !force);
    // it is installed, too
    let compiler = release.then(|| compiler(&places, release)).transpose()?;
    if old
        .as_ref()
        .is_some_and(|old| old.fingerprint == fingerprint && old.is_complete(&places.out))
    {
        return Ok(());
    }
    build(&places, &fingerprint, compiler, old)
}

fn build(places: &Places, fingerprint: &str, compiler: Option<Compiler>, old: Option<Stamp>) -> Result<()> {
    let flags = standard_library(places)?;
    report("wasm: building the policies");
    let guests = places.work.join("guests");
    let mut cargo = cargo(&places.root.join("plugins-wasm"), &guests);
    cargo.args(["build", "--quiet", "--release", "--locked", "--target", TARGET]);
    cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", flags);
    check("cargo build (plugins-wasm)", &mut cargo)?;
    let compiler = match compiler {
        Some(compiler) => compiler,
        None => self::compiler(places, false)?,
    };
    let plugins = plugins(places)?;
    let built: Mutex<Vec<Option<Built>>> = Mutex::new(vec![None; plugins.len()]);
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(plugin) = plugins.get(index) else {
                return Ok(());
            };
            let done = build_plugin(places, plugin, &guests, &compiler, old.as_ref())?;
            let mut built = built.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = built.get_mut(index) {
                *place = Some(done);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    let built = built.into_inner().unwrap_or_else(PoisonError::into_inner);
    let built = built.into_iter().flatten().collect();
    output::write_stamp(
        &places.out,
        &Stamp {
            fingerprint: fingerprint.to_owned(),
            built,
        },
    )
}

/// Makes the files of a plugin, unless those of the last build are what they would be.
fn build_plugin(
    places: &Places,
    plugin: &Plugin,
    guests: &Path,
    compiler: &Compiler,
    old: Option<&Stamp>,
) -> Result<Built> {
    let core = guests
        .join(TARGET)
        .join("release")
        .join(format!("{}.wasm", plugin.name.replace('-', "_")));
    let core = fs::read(&core).with_context(|| format!("cannot read {}", core.display()))?;
    let core_sha256 = output::sha256(&core);
    let fresh = |old: &&Built| {
        old.name == plugin.name
            && old.core_sha256 == core_sha256
            && old.compiler_sha256 == compiler.sha256
            && old.exists(&places.out)
    };
    if let Some(old) = old.and_then(|old| old.built.iter().find(fresh)) {
        return Ok(old.clone());
    }
    let component = component::encode(&core, &plugin.world)
        .with_context(|| format!("{} cannot be made a component", plugin.name))?;
    report(&format!(
        "wasm: {} ({} KB)",
        plugin.name,
        component.len().div_ceil(1000)
    ));
    output::write(places, plugin, &component, compiler)?;
    Ok(Built {
        name: plugin.name.clone(),
        test: plugin.test,
        core_sha256,
        compiler_sha256: compiler.sha256.clone(),
    })
}

/// Returns the flags under which guests find their standard library.
fn standard_library(places: &Places) -> Result<String> {
    let script = places.root.join("etc/build/wasm-std.sh");
    let out = Command::new("sh")
        .arg(&script)
        .env("OUT", places.work.join("std"))
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", script.display()))?;
    ensure!(
        out.status.success(),
        "there is no standard library for {TARGET}; see above for the ways to get it"
    );
    Ok(String::from_utf8(out.stdout)?.trim().to_owned())
}

/// The program that compiles components, and what it is made of: another compiler makes other code, however optimised it is itself.
struct Compiler {
    program: PathBuf,
    sha256: String,
}

/// Builds the compiler, or takes the program that FLUX_POLICY_COMPILE names.
fn compiler(places: &Places, release: bool) -> Result<Compiler> {
    if let Some(program) = std::env::var_os("FLUX_POLICY_COMPILE").map(PathBuf::from) {
        let content = fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
        return Ok(Compiler {
            program,
            sha256: output::sha256(&content),
        });
    }
    report("wasm: building flux-policy-compile (minutes, the first time)");
    let target = places.work.join("compile");
    let mut cargo = cargo(&places.root.join("policy/compile"), &target);
    cargo.args(["build", "--quiet", "--locked"]);
    if release {
        cargo.arg("--release");
    }
    check("cargo build (policy/compile)", &mut cargo)?;
    let kind = if release { "release" } else { "debug" };
    Ok(Compiler {
        program: target.join(kind).join("flux-policy-compile"),
        sha256: inputs::compiler(&places.root)?,
    })
}

/// Returns a cargo command for another workspace, free of what this cargo call has set.
fn cargo(dir: &Path, target: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(dir).env("CARGO_TARGET_DIR", target);
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(name);
    }
    cargo
}

fn check(what: &str, command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {what}"))?;
    ensure!(status.success(), "{what} failed");
    Ok(())
}

/// Asks cargo which crates are policies (`[package.metadata.flux-policy]`).
fn plugins(places: &Places) -> Result<Vec<Plugin>> {
    let mut cargo = cargo(&places.root.join("plugins-wasm"), &places.work.join("guests"));
    let out = cargo
        .args(["metadata", "--no-deps", "--format-version=1", "--locked"])
        .output()?;
    ensure!(
        out.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    let mut plugins = Vec::new();
    for package in metadata
        .get("packages")
        .and_then(|list| list.as_array())
        .into_iter()
        .flatten()
    {
        let text = |pointer: &str| {
            package
                .pointer(pointer)
                .and_then(|value| value.as_str())
                .map(str::to_owned)
        };
        let Some(world) = text("/metadata/flux-policy/world") else {
            continue;
        };
        plugins.push(Plugin {
            name: text("/name").context("a package without a name")?,
            version: text("/version").context("a package without a version")?,
            world,
            test: package
                .pointer("/metadata/flux-policy/test")
                .is_some_and(|value| value == true),
        });
    }
    Ok(plugins)
}
