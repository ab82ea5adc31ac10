//! C: bindings are made of the interface, then a compiler for wasm32-wasi makes a component of a few KB.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::{Project, on_path};

/// The bindings want the metadata as an object file; here it is added to the module afterwards.
const LINKED: &str = "void __component_type_object_force_link_policy(void) {}\n";

/// Makes a component.
///
/// # Errors
/// What the compiler says, or how to get one.
pub(super) fn build(project: &Project) -> Result<Vec<u8>> {
    let failed = |error: anyhow::Error| anyhow::anyhow!("{}: {error:#}", project.dir.join("wit").display());
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(project.dir.join("wit")).map_err(failed)?;
    let world = resolve.select_world(&[package], Some("policy")).map_err(failed)?;
    let mut files = wit_bindgen_core::Files::default();
    let mut generator = wit_bindgen_c::Opts::default().build();
    generator
        .generate(&mut resolve, world, &mut files)
        .map_err(failed)?;
    for (name, content) in files.iter().filter(|(name, _)| !name.ends_with(".o")) {
        put(project, name, content)?;
    }
    put(project, "linked.c", LINKED.as_bytes())?;
    let mut words = compiler()?.into_iter();
    let mut command = Command::new(words.next().context("FLUX_POLICY_CC is empty")?);
    command
        .args(words)
        .args([
            "-target",
            "wasm32-wasi",
            "-mexec-model=reactor",
            "-Os",
            "-Wall",
            "-I",
        ])
        .arg(&project.work)
        .arg(&project.source)
        .args(["policy.c", "linked.c"].map(|name| project.work.join(name)))
        .arg("-o")
        .arg(project.work.join("module.wasm"));
    project.run(&mut command)?;
    let mut module = project.built("module.wasm")?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).map_err(failed)?;
    let encoded = ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|encoder| encoder.encode());
    encoded.map_err(|error| {
        anyhow::anyhow!("it cannot be made a component: {error:#}\n(functions of the C library that reach outside, such as printf and getenv, are not there)")
    })
}

fn put(project: &Project, name: &str, content: &[u8]) -> Result<()> {
    let path = project.work.join(name);
    std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// Returns the compiler's words: FLUX_POLICY_CC, else zig on PATH, else zig as Python package.
fn compiler() -> Result<Vec<OsString>> {
    if let Some(words) = std::env::var_os("FLUX_POLICY_CC") {
        let words = words.to_string_lossy().into_owned();
        return Ok(words.split_whitespace().map(OsString::from).collect());
    }
    if let Some(zig) = on_path("zig") {
        return Ok(vec![zig.into(), "cc".into()]);
    }
    for python in ["python3", "python"].iter().filter_map(|name| on_path(name)) {
        let probe = Command::new(&python)
            .args(["-c", "import ziglang"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if probe.is_ok_and(|status| status.success()) {
            return Ok(["-m", "ziglang", "cc"]
                .iter()
                .fold(vec![python.into()], |mut words, word| {
                    words.push(word.into());
                    words
                }));
        }
    }
    bail!(
        "no compiler for policies in C: pip install ziglang==0.17.0, or name one that takes '-target wasm32-wasi' with FLUX_POLICY_CC"
    )
}
