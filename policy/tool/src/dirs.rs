//! Where are compiled policies, and the programs and sources that make them?

use std::path::{Path, PathBuf};

/// Returns the directory of compiled policies: the one asked for, else that of the build tree which this program is in, else the installed one.
pub(crate) fn policies(asked: Option<&PathBuf>) -> PathBuf {
    if let Some(dir) = asked {
        return dir.clone();
    }
    let beside = std::env::current_exe().ok().and_then(|exe| {
        // target/debug/flux-policy and target/debug/deps/TEST: target/policies
        let dirs = exe.ancestors().skip(1).take(3);
        dirs.map(|dir| dir.join("policies")).find(|dir| dir.is_dir())
    });
    beside.unwrap_or_else(|| Path::new(&flux_formats::paths::policydir()).to_owned())
}

/// Returns the option that names the directory of compiled policies.
pub(crate) fn argument() -> clap::Arg {
    clap::Arg::new("dir")
        .long("dir")
        .value_name("DIR")
        .value_parser(clap::value_parser!(PathBuf))
        .help("Directory of compiled policies [default: those of Flux]")
}

/// Returns the program that compiles components: `FLUX_POLICY_COMPILE`, else that of the build tree, else the installed one.
pub(crate) fn compiler() -> PathBuf {
    const NAME: &str = "flux-policy-compile";
    if let Some(program) = std::env::var_os("FLUX_POLICY_COMPILE") {
        return program.into();
    }
    let beside = std::env::current_exe().ok().and_then(|exe| {
        let dirs = exe.ancestors().skip(1).take(3);
        dirs.flat_map(|dir| [dir.join(NAME), dir.join("wasm/compile/debug").join(NAME)])
            .find(|path| path.is_file())
    });
    beside.unwrap_or_else(|| Path::new(&flux_formats::paths::libexecdir()).join(NAME))
}

/// Returns where the standard library of policies in Rust is kept: in the build tree, else in the user's cache.
pub(crate) fn standard_library() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|exe| {
        let dirs = exe.ancestors().skip(1).take(3);
        dirs.map(|dir| dir.join("wasm/std")).find(|dir| dir.is_dir())
    });
    let cache = || {
        let home = |name: &str| std::env::var_os(name).map(PathBuf::from);
        home("XDG_CACHE_HOME")
            .or_else(|| Some(home("HOME")?.join(".cache")))
            .unwrap_or_else(std::env::temp_dir)
            .join("flux/wasm-std")
    };
    beside.unwrap_or_else(cache)
}
