//! Where are the installed parts? Fixed when the program is built, overridden by what lies beside the executable.

use std::path::PathBuf;

macro_rules! built_in {
    ($($(#[$doc:meta])* $name:ident = $var:literal, $default:literal;)*) => {
        $($(#[$doc])* pub(crate) const $name: &str = match option_env!($var) {
            Some(path) => path,
            None => $default,
        };)*
    };
}

built_in! {
    /// Programs that only other parts of Flux start.
    LIBEXECDIR = "FLUX_BUILD_LIBEXECDIR", "/usr/libexec/flux";
    /// Configuration of the site.
    SYSCONFDIR = "FLUX_BUILD_SYSCONFDIR", "/etc";
    /// Plugins and components.
    LIBDIR = "FLUX_BUILD_LIBDIR", "/usr/lib/flux";
    /// Manual pages.
    MANDIR = "FLUX_BUILD_MANDIR", "/usr/share/man";
    /// Socket directory of the system instance.
    RUNDIR = "FLUX_BUILD_RUNDIR", "/run/flux";
}

/// Returns the configuration directory of the system instance.
pub(crate) fn system_config() -> PathBuf {
    PathBuf::from(SYSCONFDIR).join("flux/system/conf.d")
}

/// Returns the directory that is searched for external sub-commands.
pub(crate) fn exec_path() -> String {
    format!("{LIBEXECDIR}/cmd")
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
    beside.unwrap_or_else(|| PathBuf::from(LIBEXECDIR).join(name))
}
