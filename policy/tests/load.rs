//! Is compiled code refused unless nobody else could have written it and it is what the manifest says?
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail the test"
)]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use flux_policy::{HostConfig, PluginSpec, PolicyError, PolicyHost, World};

const NAME: &str = "validator-jobspec";

/// Returns a directory with a copy of one plugin.
fn copy() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    for ext in ["json", "cwasm"] {
        let name = format!("{NAME}.{ext}");
        fs::copy(common::policies(false).join(&name), dir.path().join(&name)).unwrap();
    }
    dir
}

fn load(dir: &Path, spec: PluginSpec) -> Result<PolicyHost, PolicyError> {
    let mut config = HostConfig {
        dir: dir.to_owned(),
        ..HostConfig::default()
    };
    match spec.world {
        World::Validator => config.validators.push(spec),
        World::Frobnicator => config.frobnicators.push(spec),
        World::Scheduler => config.scheduler = Some(spec),
        World::Jobtap => unreachable!("loaded by commands"),
    }
    PolicyHost::inline(config)
}

fn validator() -> PluginSpec {
    PluginSpec::new(NAME, World::Validator)
}

fn edit_manifest(dir: &Path, edit: impl Fn(&mut serde_json::Value)) {
    let path = dir.join(format!("{NAME}.json"));
    let mut manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut manifest);
    fs::write(&path, manifest.to_string()).unwrap();
}

#[test]
fn a_good_copy_loads() {
    assert!(load(copy().path(), validator()).is_ok());
}

#[test]
fn writable_by_others_is_refused() {
    let dir = copy();
    for (path, bad, good) in [
        (dir.path().to_owned(), 0o775, 0o755),
        (dir.path().join(format!("{NAME}.json")), 0o666, 0o644),
        (dir.path().join(format!("{NAME}.cwasm")), 0o664, 0o644),
    ] {
        fs::set_permissions(&path, Permissions::from_mode(bad)).unwrap();
        let error = load(dir.path(), validator()).unwrap_err();
        assert!(
            matches!(&error, PolicyError::Unsafe { path: named, .. } if *named == path),
            "{error}"
        );
        fs::set_permissions(&path, Permissions::from_mode(good)).unwrap();
    }
    assert!(load(dir.path(), validator()).is_ok());
}

#[test]
fn changed_or_cut_code_is_refused() {
    let dir = copy();
    let path = dir.path().join(format!("{NAME}.cwasm"));
    let code = fs::read(&path).unwrap();
    let mut flipped = code.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for bad in [&flipped[..], &code[..middle], &[]] {
        fs::write(&path, bad).unwrap();
        assert!(matches!(
            load(dir.path(), validator()),
            Err(PolicyError::Hash { .. })
        ));
    }
    // a hash that fits does not make it code of this engine
    fs::write(&path, "no code at all").unwrap();
    let found = match load(dir.path(), validator()) {
        Err(PolicyError::Hash { found, .. }) => found,
        other => panic!("{other:?}"),
    };
    edit_manifest(dir.path(), |manifest| {
        manifest["cwasm_sha256"] = found.clone().into()
    });
    let error = load(dir.path(), validator()).unwrap_err();
    assert!(
        matches!(&error, PolicyError::Compiled { name, .. } if name == NAME),
        "{error}"
    );
}

#[test]
fn wrong_world_version_or_name_is_refused_and_named() {
    let dir = copy();
    let error = load(dir.path(), PluginSpec::new(NAME, World::Scheduler)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin validator-jobspec is a validator, not a scheduler"
    );
    edit_manifest(dir.path(), |manifest| manifest["wit"] = "9.0.0".into());
    let error = load(dir.path(), validator()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin validator-jobspec was built for flux:policy@9.0.0; this host speaks 0.1.0: build it again with this version of Flux"
    );
    // a manifest that lies about the world: the code has not what the world needs
    edit_manifest(dir.path(), |manifest| {
        manifest["wit"] = "0.1.0".into();
        manifest["world"] = "frobnicator".into();
    });
    let error = load(dir.path(), PluginSpec::new(NAME, World::Frobnicator)).unwrap_err();
    assert!(
        matches!(&error, PolicyError::Export { function, .. } if function.contains("frobnicate")),
        "{error}"
    );
    // and a scheduler's pool is not granted to a validator, the other way round jobs is not
    edit_manifest(dir.path(), |manifest| manifest["world"] = "scheduler".into());
    let error = load(dir.path(), PluginSpec::new(NAME, World::Scheduler)).unwrap_err();
    assert!(
        format!("{error:?}").contains("flux:policy/jobs@0.1.0"),
        "{error:?}"
    );
    for name in ["../x", "", ".hidden", "a/b", "a\0b"] {
        assert!(matches!(
            load(dir.path(), PluginSpec::new(name, World::Validator)),
            Err(PolicyError::Name(_))
        ));
    }
    fs::write(dir.path().join(format!("{NAME}.json")), "{}").unwrap();
    assert!(matches!(
        load(dir.path(), validator()),
        Err(PolicyError::Manifest { .. })
    ));
}
