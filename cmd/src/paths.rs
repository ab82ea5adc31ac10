//! Where are the installed parts? As [`flux_formats::paths`] says, overridden by what lies beside the executable.

use std::path::PathBuf;

use flux_formats::paths;

/// Returns a compiled-in path by the key that `flux config builtin` takes.
pub(crate) fn builtin(key: &str) -> String {
    paths::builtin(key).unwrap_or_default()
}

/// Returns the configuration directory of the system instance.
pub(crate) fn system_config() -> PathBuf {
    PathBuf::from(paths::sysconfdir()).join("flux/system/conf.d")
}

/// Returns the directory of the running executable.
pub(crate) fn executable_dir() -> Option<PathBuf> {
    Some(std::env::current_exe().ok()?.parent()?.to_owned())
}

/// Finds a program of ours: environment variable, beside this executable, then the installed place.
pub(crate) fn find_program(name: &str, variable: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
        return PathBuf::from(path);
    }
    let beside = executable_dir()
        .map(|dir| dir.join(name))
        .filter(|path| path.is_file());
    beside.unwrap_or_else(|| libexecdir().join(name))
}

/// Returns the directory of our programs in the installed tree that this one is in.
fn libexecdir() -> PathBuf {
    paths::prefix_of(std::env::current_exe().ok().as_deref()).join("libexec/flux")
}

/// Returns the directory of external sub-commands.
pub(crate) fn exec_path() -> String {
    libexecdir().join("cmd").display().to_string()
}
