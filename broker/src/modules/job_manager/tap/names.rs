//! Which file is meant by the name of a plugin, and what may it do?

use crate::service::RpcError;
use flux_formats::errno;
use flux_formats::fsd::Fsd;
use flux_policy::{Grant, OnFailure, PluginSpec, World, own_grants};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Largest memory that the site may give a plugin, in MiB.
const MEMORY_MIB_MAX: u64 = 2048;

/// A plugin to be loaded.
#[derive(Debug, PartialEq)]
pub(super) struct Named {
    /// Name under which it is known: that of the request, without directories.
    pub(super) name: String,
    /// What the host loads.
    pub(super) spec: PluginSpec,
    /// The component that must be compiled first; then `spec.dir` is not known yet.
    pub(super) raw: Option<PathBuf>,
}

/// Returns the plugin's part of service names: `job-manager.NAME.METHOD`.
pub(super) fn service(name: &str) -> &str {
    let name = name.strip_prefix('.').unwrap_or(name);
    name.strip_suffix(".so").unwrap_or(name)
}

/// Returns true when `name` is a plugin known as `known`: `x` and `x.so` are the same.
pub(super) fn is_same(known: &str, name: &str) -> bool {
    known == name || known.strip_suffix(".so").unwrap_or(known) == name.strip_suffix(".so").unwrap_or(name)
}

/// Finds what `flux jobtap load` or the configuration names; `dir` is the directory of policies.
///
/// # Errors
/// ENOENT when there is no such plugin, ENOTSUP for a native one, EINVAL for a bad `[policies.NAME]`.
pub(super) fn find(dir: &Path, config: &Value, load: &str, conf: Option<&Value>) -> Result<Named, RpcError> {
    let base = load.rsplit('/').next().unwrap_or(load);
    let (stem, kind) = match base.rsplit_once('.') {
        Some((stem, kind @ ("so" | "wasm" | "cwasm" | "json"))) if !stem.is_empty() => (stem, kind),
        _ => (base.strip_prefix('.').unwrap_or(base), ""),
    };
    let (place, file) = if load.contains('/') && kind != "so" {
        let place = Path::new(load).parent().unwrap_or(Path::new("/"));
        (place.to_owned(), existing(place, stem))
    } else {
        (dir.to_owned(), existing(dir, stem))
    };
    let raw = (kind == "wasm" && load.contains('/'))
        .then(|| PathBuf::from(load))
        .filter(|wasm| wasm.is_file() && !is_compiled(&place, file.as_deref(), wasm));
    let Some(file) = raw.is_some().then(|| stem.to_owned()).or(file) else {
        return Err(missing(load, &place, stem, kind));
    };
    let mut spec = PluginSpec::new(file, World::Jobtap);
    if place != dir {
        spec.dir = Some(place);
    } else {
        spec.grants = own_grants(&spec.name).to_vec();
    }
    spec.args = conf.cloned().unwrap_or_else(|| json!({}));
    settings(
        &mut spec,
        config.pointer("/policies").and_then(|all| all.get(stem)),
        stem,
    )?;
    let name = if kind == "so" || base.starts_with('.') {
        base.to_owned()
    } else {
        stem.to_owned()
    };
    Ok(Named { name, spec, raw })
}

/// Returns true when the files of a plugin were written after its component, as `flux policy build` does.
fn is_compiled(place: &Path, file: Option<&str>, wasm: &Path) -> bool {
    let written = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let manifest = file.and_then(|file| written(&place.join(format!("{file}.json"))));
    match (manifest, written(wasm)) {
        (Some(manifest), Some(wasm)) => manifest >= wasm,
        _ => false,
    }
}

/// Returns the name of the files of a plugin.
fn existing(dir: &Path, stem: &str) -> Option<String> {
    [format!("jobtap-{stem}"), stem.to_owned()]
        .into_iter()
        .find(|name| dir.join(format!("{name}.json")).is_file())
}

fn missing(load: &str, place: &Path, stem: &str, kind: &str) -> RpcError {
    if kind == "so" {
        let text = format!(
            "{load}: native plugins are not loaded, and there is no WebAssembly component \"{stem}\" for it in {}; see the plugin author's guide",
            place.display()
        );
        return RpcError::new(errno::ENOENT, text);
    }
    let text = format!(
        "{load}: no such plugin: neither {stem}.json nor jobtap-{stem}.json is in {}",
        place.display()
    );
    RpcError::new(errno::ENOENT, text)
}

/// Applies `[policies.NAME]`.
fn settings(spec: &mut PluginSpec, table: Option<&Value>, name: &str) -> Result<(), RpcError> {
    let Some(table) = table else { return Ok(()) };
    let bad = |key: &str, what: &str| RpcError::new(errno::EINVAL, format!("policies.{name}.{key}: {what}"));
    let Value::Object(table) = table else {
        return Err(bad("", "must be a table"));
    };
    for (key, value) in table {
        match key.as_str() {
            "grants" => {
                let names = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let grants = names.iter().map(|name| name.as_str().and_then(Grant::parse));
                spec.grants = grants
                    .collect::<Option<_>>()
                    .filter(|_| value.is_array())
                    .ok_or_else(|| bad(key, "must be a list of \"exec\", \"bypass\", \"service\""))?;
            }
            "sha256" => {
                let hash = value.as_str().filter(|text| text.len() == 64);
                spec.sha256 = Some(
                    hash.ok_or_else(|| bad(key, "must have 64 hexadecimal digits"))?
                        .to_owned(),
                );
            }
            "memory-mib" => {
                let mib = value.as_u64().filter(|mib| (1..=MEMORY_MIB_MAX).contains(mib));
                let mib = mib.ok_or_else(|| bad(key, "must be 1 to 2048"))?;
                spec.limits.memory_bytes_max = usize::try_from(mib << 20).unwrap_or(usize::MAX);
            }
            "deadline" => {
                let time = value.as_str().and_then(|text| text.parse::<Fsd>().ok());
                let time = time.and_then(Fsd::to_duration).filter(|time| !time.is_zero());
                spec.limits.deadline =
                    time.ok_or_else(|| bad(key, "must be a duration such as \"200ms\""))?;
            }
            "on-failure" => {
                spec.on_failure = match value.as_str() {
                    Some("open") => OnFailure::Open,
                    Some("closed") => OnFailure::Closed,
                    _ => return Err(bad(key, "must be \"open\" or \"closed\"")),
                };
            }
            _ => return Err(bad(key, "unknown key")),
        }
    }
    Ok(())
}

/// Checks all `[policies.NAME]` tables.
///
/// # Errors
/// EINVAL with the key.
pub(super) fn check_settings(config: &Value) -> Result<(), RpcError> {
    let Some(Value::Object(all)) = config.get("policies") else {
        return Ok(());
    };
    for (name, table) in all.iter().filter(|(name, _)| *name != "directory") {
        settings(&mut PluginSpec::new(name, World::Jobtap), Some(table), name)?;
    }
    Ok(())
}

/// Returns the directory that a path names.
pub(super) fn display(dir: Option<&PathBuf>, default: &Path, file: &str) -> String {
    dir.map_or(default, PathBuf::as_path)
        .join(format!("{file}.wasm"))
        .display()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn names_and_files() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["jobtap-submit-hold.json", "mine.json", "jobtap-alloc-bypass.json"] {
            std::fs::write(dir.path().join(file), "{}").unwrap();
        }
        let find = |load: &str| find(dir.path(), &json!({}), load, None);
        for (load, name, file) in [
            ("submit-hold.so", "submit-hold.so", "jobtap-submit-hold"),
            (
                "/usr/lib/flux/job-manager/plugins/submit-hold.so",
                "submit-hold.so",
                "jobtap-submit-hold",
            ),
            ("submit-hold", "submit-hold", "jobtap-submit-hold"),
            (".submit-hold", ".submit-hold", "jobtap-submit-hold"),
            ("mine", "mine", "mine"),
            ("mine.wasm", "mine", "mine"),
        ] {
            let found = find(load).unwrap();
            assert_eq!(
                (found.name.as_str(), found.spec.name.as_str()),
                (name, file),
                "{load}"
            );
        }
        let path = dir.path().join("mine.cwasm");
        assert_eq!(find(path.to_str().unwrap()).unwrap().spec.dir, None);
        assert_eq!(find("alloc-bypass.so").unwrap().spec.grants, [Grant::Bypass]);
        let native = find("site.so").unwrap_err();
        assert!(native.text.contains("native plugins are not loaded") && native.errnum == errno::ENOENT);
        assert!(find("nothing").unwrap_err().text.contains("jobtap-nothing.json"));
        assert!(is_same("a.so", "a") && is_same(".a", ".a") && !is_same(".a", "a"));
        assert_eq!(
            (service(".history"), service("perilog.so")),
            ("history", "perilog")
        );
    }

    #[test]
    fn settings_of_the_site() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("mine.json"), "{}").unwrap();
        let config = json!({"policies": {"directory": "/x", "mine": {
            "grants": ["exec", "service"], "memory-mib": 8, "deadline": "50ms", "on-failure": "open",
            "sha256": "a".repeat(64)}}});
        let spec = find(dir.path(), &config, "mine", Some(&json!({"a": 1})))
            .unwrap()
            .spec;
        assert_eq!(spec.grants, [Grant::Exec, Grant::Service]);
        assert_eq!(spec.limits.memory_bytes_max, 8 << 20);
        assert_eq!(spec.limits.deadline, Duration::from_millis(50));
        assert_eq!(spec.on_failure, OnFailure::Open);
        assert_eq!(spec.args, json!({"a": 1}));
        check_settings(&config).unwrap();
        for bad in [
            json!({"grants": ["root"]}),
            json!({"grants": "exec"}),
            json!({"memory-mib": 0}),
            json!({"deadline": 5}),
            json!({"deadline": "0"}),
            json!({"on-failure": "maybe"}),
            json!({"sha256": "xyz"}),
            json!({"colour": 1}),
            json!(5),
        ] {
            assert!(
                check_settings(&json!({"policies": {"mine": bad}})).is_err(),
                "{bad}"
            );
        }
    }
}
