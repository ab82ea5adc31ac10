//! Is a component refused, by name, that wants more than there is, was built for another version, or is broken?
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail the test"
)]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use common::component::{compile, replace, with_memory, with_table};
use flux_policy::{HostConfig, PluginSpec, PolicyHost, World};

const NAME: &str = "validator-hostile";

fn good() -> Vec<u8> {
    fs::read(common::policies(true).join(format!("{NAME}.wasm"))).unwrap()
}

/// Compiles and loads a component; returns whole chain of errors.
fn load(component: &[u8]) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    compile(dir.path(), NAME, "validator", component).map_err(|said| format!("compiler: {said}"))?;
    let config = HostConfig {
        validators: vec![PluginSpec::new(NAME, World::Validator)],
        dir: dir.path().to_owned(),
        ..HostConfig::default()
    };
    match PolicyHost::inline(config) {
        Err(error) => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text.push_str(": ");
                text.push_str(&cause.to_string());
                source = cause.source();
            }
            assert!(text.contains(NAME), "the plugin is named: {text}");
            Err(text)
        }
        Ok(mut host) => {
            let (end, _) = common::ingest(&mut host, 1.0, "fine");
            end.map(|_| ()).map_err(|refusal| refusal.text)
        }
    }
}

#[test]
fn taking_apart_and_putting_together_changes_nothing() {
    assert_eq!(load(&good()), Ok(()));
    assert_eq!(load(&with_memory(&good(), 40)), Ok(()));
    assert_eq!(load(&with_table(&good(), 2000)), Ok(()));
}

#[test]
fn tables_and_memories_of_4_gib() {
    for (what, component) in [
        ("table", with_table(&good(), 1 << 30)),
        ("table", with_table(&good(), 200_000)),
        ("memory", with_memory(&good(), 1 << 16)),
        ("memory", with_memory(&good(), 1025)),
    ] {
        let error = load(&component).unwrap_err();
        assert!(error.contains(what), "{what}: {error}");
    }
}

#[test]
fn imports_that_nobody_granted_are_named() {
    for foreign in [
        "wasi:clocks/wcall@0.2.0",
        "flux:policy/power@0.1.0",
        "flux:policy/timer@0.1.0",
    ] {
        let error = load(&replace(&good(), "flux:policy/clock@0.1.0", foreign)).unwrap_err();
        assert!(error.contains(foreign), "{foreign}: {error}");
    }
}

/// The manifest says 0.1.0; the code does not.
#[test]
fn another_version_of_the_interface() {
    for version in ["@0.2.0", "@1.0.0", "@9.9.9"] {
        let error = load(&replace(&good(), "@0.1.0", version)).unwrap_err();
        assert!(error.contains("flux:policy"), "{version}: {error}");
    }
}

#[test]
fn what_is_no_component_does_not_compile() {
    let good = good();
    for bad in [
        &b""[..],
        b"\0asm",
        b"\0asm\x01\0\0\0",
        b"no component at all",
        &good[..good.len() / 2],
        &good[..good.len() - 1],
    ] {
        let error = load(bad).unwrap_err();
        assert!(error.starts_with("compiler: "), "{} bytes: {error}", bad.len());
    }
}

/// A component with one bit flipped is refused, or does no harm.
#[test]
fn flipped_bits() {
    let good = good();
    let mut refused = 0;
    let rounds = 24;
    for round in 0..rounds {
        let mut bad = good.clone();
        // spread over the whole file, other bits each time
        let at = 8 + (bad.len() - 9) * round / rounds;
        bad[at] ^= 1 << (round % 8);
        refused += usize::from(load(&bad).is_err());
    }
    println!("{refused} of {rounds} components with a flipped bit were refused");
}
