//! `flux policy build`: from sources, or from a component, to what the broker loads.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::{Arg, ArgMatches, Command, value_parser};
use flux_policy::Manifest;
use serde_json::Value;
use sha2::{Digest, Sha256};
use wit_component::ComponentEncoder;

use crate::output::{note, print};
use crate::plugins::{check, contents, hex};
use crate::{dirs, lang, new};

/// The target that imports nothing by itself.
const TARGET: &str = "wasm32-unknown-unknown";

/// Returns the definition of the command.
pub(crate) fn command() -> Command {
    Command::new("build")
        .about("Build a policy and compile it for the broker")
        .arg(
            Arg::new("project")
                .value_name("PROJECT")
                .default_value(".")
                .value_parser(value_parser!(PathBuf))
                .help("Directory that 'flux policy new' made, or a component (.wasm)"),
        )
        .arg(
            Arg::new("out")
                .long("out")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("Directory for the result [default: policies/ in the project]"),
        )
}

/// Builds.
///
/// # Errors
/// What the compiler says, or why the result may not be loaded.
pub(crate) fn main(args: &ArgMatches) -> Result<()> {
    let project = args.get_one::<PathBuf>("project").context("a project")?;
    let out = args.get_one::<PathBuf>("out").cloned();
    let (name, version, component, out) = if project.is_file() {
        let name = project
            .file_stem()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let bytes = fs::read(project).with_context(|| format!("cannot read {}", project.display()))?;
        let beside = project
            .parent()
            .map_or_else(PathBuf::new, Path::to_path_buf)
            .join("policies");
        (name, "0.0.0".to_owned(), bytes, out.unwrap_or(beside))
    } else {
        let (name, version, component) = match lang::build(project)? {
            Some(built) => built,
            None => rust(project)?,
        };
        (
            name,
            version,
            component,
            out.unwrap_or_else(|| project.join("policies")),
        )
    };
    let what = contents(&component).with_context(|| format!("{name} is no component"))?;
    let world = check(&what).with_context(|| format!("{name} cannot be loaded"))?;
    let cwasm = write(&out, &name, &component)?;
    let manifest = serde_json::json!({"name": name, "world": world, "wit": what.wit, "version": version,
        "wasm_sha256": hex(&Sha256::digest(&component)), "cwasm_sha256": hex(&Sha256::digest(&cwasm.code)), "engine": cwasm.engine});
    let checked: Manifest =
        serde_json::from_value(manifest.clone()).context("this world cannot be loaded by this version")?;
    put(
        &out.join(format!("{name}.json")),
        format!("{}\n", serde_json::to_string_pretty(&manifest)?).as_bytes(),
    )?;
    print(&format!(
        "{name}: {} {}, {} KB, {} KB compiled, in {}",
        checked.world,
        checked.version,
        component.len().div_ceil(1000),
        cwasm.code.len().div_ceil(1000),
        out.display()
    ));
    Ok(())
}

struct Compiled {
    code: Vec<u8>,
    engine: String,
}

/// Writes and compiles a component.
fn write(out: &Path, name: &str, component: &[u8]) -> Result<Compiled> {
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    // the policy host trusts no directory that others can write
    fs::set_permissions(out, Permissions::from_mode(0o755))?;
    let wasm = out.join(format!("{name}.wasm"));
    put(&wasm, component)?;
    let program = dirs::compiler();
    let cwasm = out.join(format!("{name}.cwasm"));
    let compiled = Process::new(&program)
        .arg(&wasm)
        .arg(&cwasm)
        .output()
        .with_context(|| {
            format!(
                "cannot run {}; FLUX_POLICY_COMPILE names another one",
                program.display()
            )
        })?;
    let said = String::from_utf8_lossy(&compiled.stderr);
    ensure!(
        compiled.status.success(),
        "{name} cannot be compiled: {}",
        said.trim()
    );
    fs::set_permissions(&cwasm, Permissions::from_mode(0o644))?;
    Ok(Compiled {
        code: fs::read(&cwasm)?,
        engine: String::from_utf8_lossy(&compiled.stdout).trim().to_owned(),
    })
}

/// Builds a Rust project; returns its name, version and component.
fn rust(project: &Path) -> Result<(String, String, Vec<u8>)> {
    let manifest = project.join("Cargo.toml");
    ensure!(
        manifest.is_file(),
        "{} is neither a project of 'flux policy new' nor a component file",
        project.display()
    );
    let metadata = cargo(project, &["metadata", "--no-deps", "--format-version=1"], None)?;
    let metadata: Value = serde_json::from_slice(&metadata).context("cargo metadata")?;
    let packages = metadata["packages"].as_array().context("cargo metadata")?;
    let policy = packages
        .iter()
        .find(|package| {
            package
                .pointer("/metadata/flux-policy/world")
                .is_some_and(Value::is_string)
        })
        .with_context(|| {
            format!(
                "{} has no [package.metadata.flux-policy] with a world",
                manifest.display()
            )
        })?;
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let (name, version) = (text(&policy["name"]), text(&policy["version"]));
    let flags = standard_library()?;
    note(&format!("building {name}"));
    cargo(
        project,
        &["build", "--quiet", "--release", "--target", TARGET, "-p", &name],
        Some(&flags),
    )?;
    let target = PathBuf::from(text(&metadata["target_directory"]));
    let core = target
        .join(TARGET)
        .join("release")
        .join(format!("{}.wasm", name.replace('-', "_")));
    let core = fs::read(&core).with_context(|| format!("cannot read {}", core.display()))?;
    let component = ComponentEncoder::default()
        .validate(true)
        .module(&core)
        .and_then(|encoder| encoder.encode())
        .map_err(|error| anyhow::anyhow!("{name} cannot be made a component: {error:#}"))?;
    Ok((name, version, component))
}

fn cargo(project: &Path, args: &[&str], flags: Option<&str>) -> Result<Vec<u8>> {
    let mut process = Process::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    process.current_dir(project).args(args).stderr(Stdio::inherit());
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        process.env_remove(name);
    }
    if let Some(flags) = flags {
        process.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", flags);
    }
    let output = process
        .output()
        .context("cannot run cargo: Rust is needed to build this policy")?;
    ensure!(
        output.status.success(),
        "cargo {} failed",
        args.first().unwrap_or(&"")
    );
    Ok(output.stdout)
}

/// Returns the flags under which guests find their standard library; builds it where there is none.
fn standard_library() -> Result<String> {
    let out = dirs::standard_library();
    let mut shell = Process::new("sh")
        .args(["-s"])
        .env("OUT", &out)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("cannot run sh")?;
    if let Some(mut input) = shell.stdin.take() {
        std::io::Write::write_all(&mut input, new::STD_SCRIPT.as_bytes())?;
    }
    let output = shell.wait_with_output()?;
    if !output.status.success() {
        bail!("there is no standard library for {TARGET}; see above for the ways to get it");
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Writes a file at once or not at all.
fn put(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, content)
        .and_then(|()| fs::set_permissions(&temporary, Permissions::from_mode(0o644)))
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
