//! `flux start --recovery[=TARGET]`: which broker options look at what an instance left, without its jobs and peers?

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use crate::common::error::{CmdError, fail};

/// Where a system instance keeps its state.
const SYSTEM_STATEDIR: &str = "/var/lib/flux";
/// Where a system instance listens.
const SYSTEM_SOCKET: &str = "/run/flux/local";
/// The store in a `statedir`.
const STORE: &str = "content.sqlite";

/// What `--recovery` means.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Recovery {
    /// Broker options.
    pub(super) options: Vec<String>,
    /// The target is the system instance, whose configuration is to be used too.
    pub(super) system: bool,
}

/// Returns the broker options for a target: a `statedir`, an archive of `flux dump`, or (none) the system instance.
///
/// # Errors
/// The target does not exist or cannot be used, or the system instance runs.
pub(super) fn options(target: Option<&str>) -> Result<Recovery, CmdError> {
    let system = target.is_none();
    if system && UnixStream::connect(SYSTEM_SOCKET).is_ok() {
        return fail(
            "--recovery: the system instance is running; stop it first, or name a statedir or an archive",
        );
    }
    let target = target.unwrap_or(SYSTEM_STATEDIR);
    let mut options: Vec<String> = [
        "broker.recovery-mode=1",
        "broker.quorum=1",
        "broker.module-nopanic=1",
        "log-stderr-level=5",
    ]
    .map(|setting| format!("-S{setting}"))
    .into();
    options.push(source(Path::new(target))?);
    Ok(Recovery { options, system })
}

/// Returns the option that makes the broker start from the target.
fn source(target: &Path) -> Result<String, CmdError> {
    let name = target.display();
    let about = std::fs::metadata(target).map_err(CmdError::file(name.to_string()))?;
    if !about.is_dir() {
        access(target, AccessFlags::R_OK).map_err(|errno| CmdError::file(name.to_string())(errno.into()))?;
        return Ok(format!("-Scontent.restore={name}"));
    }
    if about.uid() != nix::unistd::getuid().as_raw() {
        return fail(format!(
            "--recovery: {name}: not owned by you; run flux as the instance owner"
        ));
    }
    if about.mode() & 0o700 != 0o700 {
        return fail(format!("--recovery: {name}: you may not read and write there"));
    }
    let store = target.join(STORE);
    access(&store, AccessFlags::R_OK | AccessFlags::W_OK)
        .map_err(|errno| CmdError::file(store.display().to_string())(errno.into()))?;
    Ok(format!("-Sstatedir={name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_a_statedir_and_a_file_an_archive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let empty = source(path).unwrap_err().to_string();
        assert!(empty.contains(STORE), "{empty}");
        std::fs::write(path.join(STORE), "").unwrap();
        assert_eq!(source(path).unwrap(), format!("-Sstatedir={}", path.display()));
        let dump = path.join("dump.tar");
        let missing = options(dump.to_str()).unwrap_err().to_string();
        assert!(missing.contains("dump.tar"), "{missing}");
        std::fs::write(&dump, "").unwrap();
        let recovery = options(dump.to_str()).unwrap();
        assert_eq!(
            recovery.options.last(),
            Some(&format!("-Scontent.restore={}", dump.display()))
        );
        assert!(!recovery.system && recovery.options.contains(&"-Sbroker.recovery-mode=1".to_owned()));
    }
}
