//! Packs what a new policy needs into the program: the SDK, the interface, the script that makes the standard library.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for (from, to) in [("plugins-wasm/sdk", "flux/sdk"), ("wit", "wit")] {
        let from = root.join(from);
        list(&from, Path::new(to), &mut files);
        println!("cargo::rerun-if-changed={}", from.display());
    }
    files.sort();
    let mut out = String::from(
        "/// Path in a new project and content.\npub(crate) const FILES: &[(&str, &str)] = &[\n",
    );
    for (to, from) in &files {
        println!("cargo::rerun-if-changed={}", from.display());
        let _ = writeln!(
            out,
            "    ({:?}, include_str!({:?})),",
            to.display().to_string(),
            from.display().to_string()
        );
    }
    out.push_str("];\n");
    for (name, path) in [
        ("WORKSPACE", "plugins-wasm/Cargo.toml"),
        ("LOCK", "plugins-wasm/Cargo.lock"),
        ("STD_SCRIPT", "etc/build/wasm-std.sh"),
    ] {
        let path = root.join(path);
        println!("cargo::rerun-if-changed={}", path.display());
        let _ = writeln!(
            out,
            "/// Content of that file.\npub(crate) const {name}: &str = include_str!({:?});",
            path.display().to_string()
        );
    }
    let dir = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    if let Err(error) = fs::write(dir.join("packed.rs"), out) {
        println!("cargo::error=cannot write packed.rs: {error}");
    }
}

/// Appends the files below a directory, but for build output.
fn list(from: &Path, to: &Path, files: &mut Vec<(PathBuf, PathBuf)>) {
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_file() {
            files.push((to, path));
        } else if entry.file_name() != "target" {
            list(&path, &to, files);
        }
    }
}
