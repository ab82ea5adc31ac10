//! Policies in other languages than Rust: what a project has, and which tools make a component of it.
//!
//! A project is `policy.json`, a source, the interface in `wit/` and `test.json`. The tools come from the languages' own registries; a missing one is
//! an error that says how to get it.

mod c;
mod js;
mod python;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The interface that all projects have.
const WIT: &[(&str, &str)] = &[
    (
        "frobnicator.wit",
        include_str!("../../../../wit/flux-policy-0.1/frobnicator.wit"),
    ),
    (
        "jobtap.wit",
        include_str!("../../../../wit/flux-policy-0.1/jobtap.wit"),
    ),
    (
        "scheduler.wit",
        include_str!("../../../../wit/flux-policy-0.1/scheduler.wit"),
    ),
    (
        "types.wit",
        include_str!("../../../../wit/flux-policy-0.1/types.wit"),
    ),
    (
        "validator.wit",
        include_str!("../../../../wit/flux-policy-0.1/validator.wit"),
    ),
];

/// World, what the project needs of it, test.
const WORLDS: &[(&str, &str, &str)] = &[
    (
        "validator",
        include_str!("../../templates/validator.wit"),
        include_str!("../../templates/rust/validator.json"),
    ),
    (
        "jobtap",
        include_str!("../../templates/jobtap.wit"),
        include_str!("../../templates/rust/jobtap.json"),
    ),
];

/// A language.
struct Lang {
    name: &'static str,
    /// For people.
    title: &'static str,
    extension: &'static str,
    /// World and source.
    sources: &'static [(&'static str, &'static str)],
    /// Makes a component of the source.
    build: fn(&Project) -> Result<Vec<u8>>,
}

const LANGS: &[Lang] = &[
    Lang {
        name: "c",
        title: "C",
        extension: "c",
        sources: &[
            ("validator", include_str!("../../templates/c/validator.c")),
            ("jobtap", include_str!("../../templates/c/jobtap.c")),
        ],
        build: c::build,
    },
    Lang {
        name: "python",
        title: "Python",
        extension: "py",
        sources: &[
            ("validator", include_str!("../../templates/python/validator.py")),
            ("jobtap", include_str!("../../templates/python/jobtap.py")),
        ],
        build: python::build,
    },
    Lang {
        name: "js",
        title: "JavaScript",
        extension: "js",
        sources: &[
            ("validator", include_str!("../../templates/js/validator.js")),
            ("jobtap", include_str!("../../templates/js/jobtap.js")),
        ],
        build: js::build,
    },
];

/// `policy.json`.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct About {
    name: String,
    version: String,
    lang: String,
    world: String,
}

/// A project that is built.
struct Project {
    dir: PathBuf,
    source: PathBuf,
    /// Intermediate files.
    work: PathBuf,
}

/// Returns the names of the languages.
pub(crate) fn names() -> Vec<&'static str> {
    LANGS.iter().map(|lang| lang.name).collect()
}

/// Makes a project; returns the file to edit and the language's name for people.
///
/// # Errors
/// There is no such language, or no template of this world in it.
pub(crate) fn new(
    name: &str,
    lang: &str,
    world: &str,
    put: fn(&Path, &str) -> Result<()>,
) -> Result<(PathBuf, &'static str)> {
    let Some(lang) = LANGS.iter().find(|known| known.name == lang) else {
        bail!(
            "unknown language '{lang}'; there are templates for rust, {}",
            names().join(", ")
        );
    };
    let source = lang.sources.iter().find(|(known, _)| *known == world);
    let needs = WORLDS.iter().find(|(known, _, _)| *known == world);
    let (Some((_, source)), Some((_, needs, test))) = (source, needs) else {
        let worlds: Vec<&str> = lang.sources.iter().map(|(world, _)| *world).collect();
        bail!(
            "there is no template for a {world} in {}, only for: {}; Rust has one",
            lang.title,
            worlds.join(", ")
        );
    };
    let dir = PathBuf::from(name);
    let file = dir.join(format!("policy.{}", lang.extension));
    put(&file, source)?;
    put(&dir.join("test.json"), test)?;
    put(&dir.join("wit/world.wit"), needs)?;
    for (name, text) in WIT {
        put(&dir.join("wit/deps/flux-policy").join(name), text)?;
    }
    let about = About {
        name: name.to_owned(),
        version: "0.1.0".to_owned(),
        lang: lang.name.to_owned(),
        world: world.to_owned(),
    };
    put(
        &dir.join("policy.json"),
        &format!("{}\n", serde_json::to_string_pretty(&about)?),
    )?;
    put(&dir.join(".gitignore"), "/build\n/policies\n/node_modules\n")?;
    Ok((file, lang.title))
}

/// Builds a project that [`new`] made; returns its name, version and component. None when it is none.
///
/// # Errors
/// What the tools say, or which one is missing.
pub(crate) fn build(dir: &Path) -> Result<Option<(String, String, Vec<u8>)>> {
    let path = dir.join("policy.json");
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let about: About = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let lang = LANGS.iter().find(|lang| lang.name == about.lang);
    let lang = lang.with_context(|| format!("{}: unknown language '{}'", path.display(), about.lang))?;
    let dir = dir.canonicalize()?;
    let project = Project {
        source: dir.join(format!("policy.{}", lang.extension)),
        work: dir.join("build"),
        dir,
    };
    fs::create_dir_all(&project.work).with_context(|| format!("cannot make {}", project.work.display()))?;
    crate::output::note(&format!("building {}", about.name));
    let component = (lang.build)(&project)?;
    Ok(Some((about.name, about.version, component)))
}

impl Project {
    /// Runs a tool in the project's directory.
    fn run(&self, command: &mut Command) -> Result<()> {
        let program = command.get_program().to_string_lossy().into_owned();
        let output = command
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {program}"))?;
        if !output.status.success() {
            let text = [output.stdout, output.stderr].concat();
            bail!("{program} failed:\n{}", String::from_utf8_lossy(&text).trim());
        }
        Ok(())
    }

    /// Returns a file of `build/`.
    fn built(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.work.join(name);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}

/// Returns the program of this name on PATH.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}
