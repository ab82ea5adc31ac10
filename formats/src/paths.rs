//! Where is Flux installed? Paths compiled in from `PREFIX` and `SYSCONFDIR` at build time.
//!
//! `make install` sets `FLUX_PREFIX` and `FLUX_SYSCONFDIR` for the compiler; without them the prefix is
//! `/usr/local`. The programs of one build tree find each other beside themselves first, those of an installed tree
//! in that tree, so that one made with `DESTDIR` runs in place.

use std::path::{Path, PathBuf};

/// Installation prefix.
pub const PREFIX: &str = match option_env!("FLUX_PREFIX") {
    Some(prefix) => prefix,
    None => "/usr/local",
};

/// System configuration directory: `PREFIX/etc`, or `/etc` for `/usr`.
pub fn sysconfdir() -> String {
    match option_env!("FLUX_SYSCONFDIR") {
        Some(dir) => dir.to_owned(),
        None if PREFIX == "/usr" => "/etc".to_owned(),
        None => format!("{PREFIX}/etc"),
    }
}

/// Directory of programs that users do not call by name.
pub fn libexecdir() -> String {
    format!("{PREFIX}/libexec/flux")
}

/// Directory of the policies (`.cwasm` components and their manifests).
pub fn policydir() -> String {
    format!("{PREFIX}/lib/flux/policies")
}

/// Returns the prefix of the installed tree that a program is in: `DIR` and [`PREFIX`] when `exe` is in `bin` or
/// `libexec/flux` below it, the compiled-in prefix otherwise.
pub fn prefix_of(exe: Option<&Path>) -> PathBuf {
    let tree = exe.and_then(Path::parent).and_then(|dir| {
        let dir = if dir.ends_with("libexec/flux") {
            dir.parent()?
        } else {
            dir.ends_with("bin").then_some(dir)?
        };
        dir.parent()
    });
    let installed = Path::new(PREFIX.trim_start_matches('/'));
    tree.filter(|tree| tree.ends_with(installed))
        .unwrap_or(Path::new(PREFIX))
        .to_owned()
}

/// Returns a built-in configuration value (`flux config builtin KEY`), or `None` for an unknown key.
pub fn builtin(key: &str) -> Option<String> {
    let etc = sysconfdir();
    Some(match key {
        "confdir" => format!("{etc}/flux"),
        "libexecdir" => libexecdir(),
        "datadir" => format!("{PREFIX}/share"),
        "man_path" => format!("{PREFIX}/share/man"),
        "exec_path" => format!("{}/cmd", libexecdir()),
        "connector_path" => format!("{PREFIX}/lib/flux/connectors"),
        "module_path" => format!("{PREFIX}/lib/flux/modules"),
        "rc1_path" => "flux modprobe rc1".to_owned(),
        "rc3_path" => "flux modprobe rc3".to_owned(),
        "cmdhelp_pattern" => format!("{PREFIX}/share/flux/help.d/*.json"),
        "pmi_library_path" => format!("{PREFIX}/lib/flux/libpmi.so"),
        "shell_path" => format!("{}/flux-shell", libexecdir()),
        "shell_pluginpath" => format!("{PREFIX}/lib/flux/shell/plugins"),
        "shell_initrc" => format!("{etc}/flux/shell/initrc.lua"),
        "jobtap_pluginpath" => policydir(),
        "upmi_pluginpath" => format!("{PREFIX}/lib/flux/upmi/plugins"),
        "no_docs_path" => format!("{PREFIX}/share/flux/.nodocs"),
        "rundir" => "/run/flux".to_owned(),
        "lua_cpath_add" | "lua_path_add" | "python_path" | "python_wrapper" => String::new(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_made_with_destdir_is_found() {
        let tree = format!("/tmp/dest{PREFIX}");
        for program in ["bin/flux", "libexec/flux/flux-broker"] {
            let exe = format!("{tree}/{program}");
            assert_eq!(prefix_of(Some(Path::new(&exe))), Path::new(&tree));
        }
        for other in [
            "/tmp/target/debug/flux",
            "/tmp/else/bin/flux",
            "/bin/flux",
            "flux",
        ] {
            assert_eq!(prefix_of(Some(Path::new(other))), Path::new(PREFIX), "{other}");
        }
        assert_eq!(prefix_of(None), Path::new(PREFIX));
    }

    #[test]
    fn known_and_unknown_keys() {
        assert_eq!(builtin("rundir").as_deref(), Some("/run/flux"));
        assert!(builtin("shell_path").is_some_and(|p| p.ends_with("/flux-shell")));
        assert_eq!(builtin("nope"), None);
    }
}
