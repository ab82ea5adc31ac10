//! Where are the programs under test, and the files that tests bring along?

use std::path::{Path, PathBuf};

/// Returns the directory of `flux`, `flux-broker` and `flux-shell`.
///
/// # Panics
/// When there is no `flux` in it: build the programs first.
#[must_use]
pub fn bindir() -> PathBuf {
    let dir = std::env::var_os("FLUX_TEST_BINDIR").map_or_else(beside_this_test, PathBuf::from);
    assert!(
        dir.join("flux").is_file(),
        "no flux program in {}: run 'cargo build --bins --workspace' first, or set FLUX_TEST_BINDIR",
        dir.display()
    );
    dir
}

/// Returns the profile's directory: a test program is `target/PROFILE/deps/NAME`.
fn beside_this_test() -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows its own path");
    let dir = exe.parent().expect("a program is in a directory");
    let up = if dir.ends_with("deps") {
        dir.parent().unwrap_or(dir)
    } else {
        dir
    };
    up.to_path_buf()
}

/// Returns the path of a file below `tests/`.
#[must_use]
pub fn data_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Returns the path of `flux-imp`, which has a workspace and a target directory of its own.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn imp() -> PathBuf {
    let path = std::env::var_os("FLUX_TEST_IMP")
        .map_or_else(|| bindir().join("../imp/debug/flux-imp"), PathBuf::from);
    assert!(
        path.is_file(),
        "no {}: run 'cargo build --manifest-path imp/Cargo.toml --target-dir target/imp' first, or set FLUX_TEST_IMP",
        path.display()
    );
    path
}
