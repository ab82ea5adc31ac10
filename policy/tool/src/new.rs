//! `flux policy new`: a project that builds, with a policy to change.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Arg, ArgMatches, Command};

use crate::lang;
use crate::output::print;

mod packed {
    include!(concat!(env!("OUT_DIR"), "/packed.rs"));
}

pub(crate) use packed::STD_SCRIPT;

/// World, source, test.
const TEMPLATES: &[(&str, &str, &str)] = &[
    (
        "validator",
        include_str!("../templates/rust/validator.rs"),
        include_str!("../templates/rust/validator.json"),
    ),
    (
        "frobnicator",
        include_str!("../templates/rust/frobnicator.rs"),
        include_str!("../templates/rust/frobnicator.json"),
    ),
    (
        "scheduler",
        include_str!("../templates/rust/scheduler.rs"),
        include_str!("../templates/rust/scheduler.json"),
    ),
    (
        "jobtap",
        include_str!("../templates/rust/jobtap.rs"),
        include_str!("../templates/rust/jobtap.json"),
    ),
];

/// Returns the definition of the command.
pub(crate) fn command() -> Command {
    let worlds: Vec<&str> = TEMPLATES.iter().map(|(world, _, _)| *world).collect();
    Command::new("new")
        .about("Make a project for a policy")
        .arg(
            Arg::new("name")
                .value_name("NAME")
                .required(true)
                .help("Name of the policy and of the directory to make"),
        )
        .arg(
            Arg::new("lang")
                .long("lang")
                .value_name("LANGUAGE")
                .default_value("rust")
                .help("Language: rust, c, python or js"),
        )
        .arg(
            Arg::new("world")
                .long("world")
                .value_name("WORLD")
                .value_parser(worlds)
                .default_value("validator")
                .help("What the policy is"),
        )
}

/// Makes one.
///
/// # Errors
/// When the directory exists, the name cannot be that of a crate, or there is no template.
pub(crate) fn main(args: &ArgMatches) -> Result<()> {
    let text = |name: &str| args.get_one::<String>(name).map_or("", String::as_str);
    let (name, world) = (text("name"), text("world"));
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    ensure!(
        name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(letters),
        "'{name}' cannot be the name of a policy: lower-case letters, digits and '-' only, beginning with a letter"
    );
    let dir = PathBuf::from(name);
    ensure!(!dir.exists(), "{name} exists already");
    if text("lang") != "rust" {
        let (source, lang) = lang::new(name, text("lang"), world, put)?;
        tell(name, world, lang, &source.display().to_string());
        return Ok(());
    }
    let (_, source, test) = TEMPLATES
        .iter()
        .find(|(known, _, _)| *known == world)
        .context("a world")?;
    put(&dir.join("src/lib.rs"), source)?;
    put(&dir.join("test.json"), test)?;
    put(&dir.join("Cargo.toml"), &manifest(name, world))?;
    put(&dir.join("Cargo.lock"), packed::LOCK)?;
    for (path, content) in packed::FILES {
        put(&dir.join(path), content)?;
    }
    tell(name, world, "Rust", &format!("{name}/src/lib.rs"));
    Ok(())
}

/// Says what comes next.
fn tell(name: &str, world: &str, lang: &str, source: &str) {
    print(&format!("{name}: a {world} in {lang}. Next:"));
    print(&format!("  $EDITOR {source}"));
    print(&format!("  flux policy build {name}"));
    print(&format!("  flux policy test {name}"));
}

fn put(path: &Path, content: &str) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(failed)?;
    }
    fs::write(path, content).with_context(failed)
}

/// Returns the project's Cargo.toml: a workspace of its own with the SDK's crates, as in our own tree.
fn manifest(name: &str, world: &str) -> String {
    let members: Vec<String> = packed::FILES
        .iter()
        .filter_map(|(path, _)| path.strip_suffix("/Cargo.toml"))
        .map(|dir| format!("    \"{dir}\",\n"))
        .collect();
    let mut sections = packed::WORKSPACE
        .split("\n[")
        .skip(1)
        .map(|section| format!("[{section}"));
    let mut take = |wanted: &str| {
        sections
            .find(|section| section.starts_with(wanted))
            .unwrap_or_default()
    };
    let package = take("[workspace.package]");
    let dependencies: String = take("[workspace.dependencies]")
        .lines()
        .filter(|line| !line.starts_with("flux-") || line.starts_with("flux-policy-sdk"))
        .map(|line| format!("{}\n", line.replace("path = \"sdk", "path = \"flux/sdk")))
        .collect();
    let lints = [take("[workspace.lints.rust]"), take("[workspace.lints.clippy]")].join("\n");
    format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\npublish = false\n\n\
         [package.metadata.flux-policy]\nworld = \"{world}\"\n\n\
         [lib]\ncrate-type = [\"cdylib\", \"rlib\"]\n\n\
         [dependencies]\nflux-policy-sdk.workspace = true\nserde_json.workspace = true\n\n\
         # The rest is the SDK's: its crates are part of this project.\n[workspace]\nresolver = \"3\"\nmembers = [\n{}]\n\n{}\n{}\n{}\n\
         [profile.release]\nopt-level = \"s\"\nlto = true\ncodegen-units = 1\npanic = \"abort\"\nstrip = true\n",
        members.concat(),
        package.trim_end().to_owned() + "\n",
        dependencies.trim_end().to_owned() + "\n",
        lints.trim_end().to_owned() + "\n",
    )
}
