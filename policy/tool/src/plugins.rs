//! `flux policy list` and `inspect`: which policies are there, and what is one made of?

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command};
use flux_policy::{Limits, Manifest};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use wasmparser::{Parser, Payload};

use crate::dirs;
use crate::output::print;

/// Returns the definition of `list`.
pub(crate) fn list_command() -> Command {
    Command::new("list")
        .about("List the compiled policies of a directory")
        .arg(dirs::argument())
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print JSON"),
        )
}

/// Returns the definition of `inspect`.
pub(crate) fn inspect_command() -> Command {
    Command::new("inspect")
        .about("Show world, version, imports, size, hash and limits of a policy")
        .arg(
            Arg::new("policy")
                .value_name("POLICY")
                .required(true)
                .help("Name of a compiled policy, or a component file (.wasm)"),
        )
        .arg(dirs::argument())
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print JSON"),
        )
}

/// Lists.
///
/// # Errors
/// When the directory cannot be read.
pub(crate) fn list(args: &ArgMatches) -> Result<()> {
    let dir = dirs::policies(args.get_one::<PathBuf>("dir"));
    let entries = std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".cwasm").map(str::to_owned))
        .collect();
    names.sort_unstable();
    let mut all = Vec::new();
    for name in &names {
        all.push(manifest(&dir, name)?);
    }
    if args.get_flag("json") {
        print(&json!(all).to_string());
        return Ok(());
    }
    print(&format!(
        "{:28}{:14}{:10}{:8}{}",
        "NAME", "WORLD", "VERSION", "WIT", "SHA256"
    ));
    for manifest in &all {
        let hash = manifest.wasm_sha256.get(..16).unwrap_or("");
        print(&format!(
            "{:28}{:14}{:10}{:8}{hash}",
            manifest.name,
            manifest.world.name(),
            manifest.version,
            manifest.wit
        ));
    }
    Ok(())
}

/// Reads the manifest beside compiled code.
///
/// # Errors
/// When there is none, with the names that there are.
pub(crate) fn manifest(dir: &Path, name: &str) -> Result<Manifest> {
    let path = dir.join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "no policy '{name}' in {}; 'flux policy list' shows those that are there",
            dir.display()
        )
    })?;
    serde_json::from_str(&text).with_context(|| format!("{} is no manifest of a policy", path.display()))
}

/// Shows one.
///
/// # Errors
/// When it is no component of ours.
pub(crate) fn inspect(args: &ArgMatches) -> Result<()> {
    let name = args.get_one::<String>("policy").context("a policy")?;
    let path = Path::new(name);
    let (path, manifest) = if path.extension().is_some_and(|ext| ext == "wasm") {
        (path.to_owned(), None)
    } else {
        let dir = dirs::policies(args.get_one::<PathBuf>("dir"));
        let manifest = manifest(&dir, name)?;
        (dir.join(format!("{name}.wasm")), Some(manifest))
    };
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let contents = contents(&bytes).with_context(|| format!("{} is no component", path.display()))?;
    let world = world(&contents.exports);
    let limits = Limits::default();
    let shown = json!({
        "file": path.display().to_string(),
        "world": world,
        "version": manifest.as_ref().map(|manifest| manifest.version.clone()),
        "wit": contents.wit,
        "imports": contents.imports,
        "exports": contents.exports,
        "size_bytes": bytes.len(),
        "sha256": hex(&Sha256::digest(&bytes)),
        "limits": {"memory_bytes": limits.memory_bytes_max, "deadline_ms": u64::try_from(limits.deadline.as_millis()).unwrap_or(u64::MAX),
            "answer_bytes": limits.answer_bytes_max, "log_per_second": limits.log_rate},
    });
    if args.get_flag("json") {
        print(&shown.to_string());
        return Ok(());
    }
    for (key, value) in shown.as_object().into_iter().flatten() {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            Value::Array(list) => list
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(", "),
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| format!("{key} {value}"))
                .collect::<Vec<_>>()
                .join(", "),
            other => other.to_string(),
        };
        print(&format!("{:12}{text}", key.replace('_', " ")));
    }
    Ok(())
}

/// The outermost imports and exports of a component.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
    /// Version of `flux:policy`.
    pub(crate) wit: Option<String>,
}

/// Reads a component.
///
/// # Errors
/// When it is malformed, or a core module.
pub(crate) fn contents(bytes: &[u8]) -> Result<Contents> {
    let mut contents = Contents::default();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.context("malformed component")? {
            Payload::Version { encoding, .. } if depth == 0 => {
                ensure!(
                    encoding == wasmparser::Encoding::Component,
                    "it is a core module, not a component"
                );
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    contents.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    contents.exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    let ours = contents
        .exports
        .iter()
        .find_map(|name| name.strip_prefix("flux:policy/plugin@"));
    contents.wit = ours.map(str::to_owned);
    Ok(contents)
}

/// Returns the world whose interface a component exports.
pub(crate) fn world(exports: &[String]) -> Option<&'static str> {
    let has = |interface: &str| {
        exports
            .iter()
            .any(|name| name.starts_with(&format!("flux:policy/{interface}@")))
    };
    WORLDS
        .iter()
        .find(|(_, interface)| has(interface))
        .map(|(world, _)| *world)
}

/// Worlds and the interface by which one is told.
const WORLDS: &[(&str, &str)] = &[
    ("validator", "validation"),
    ("frobnicator", "frobnication"),
    ("scheduler", "scheduling"),
    ("jobtap", "callbacks"),
];

/// Refuses what a policy may not import.
///
/// # Errors
/// Names the import or the export that is missing.
pub(crate) fn check(contents: &Contents) -> Result<&'static str> {
    for import in &contents.imports {
        ensure!(
            import.starts_with("flux:policy/"),
            "it imports {import}; only the interfaces of flux:policy are granted to a policy"
        );
    }
    match world(&contents.exports) {
        Some(world) if contents.wit.is_some() => Ok(world),
        _ => bail!(
            "it exports no world of flux:policy, only: {}",
            contents.exports.join(", ")
        ),
    }
}

/// Returns bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
