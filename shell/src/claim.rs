//! How does a shell say that it is the one that runs a job on this node?
//!
//! A symbolic link whose target is the shell's identity, at a path that the broker gives: made in one step, and only
//! when there is none. A broker that comes after the one which started the shell reads it; when there is none it makes
//! one itself that names nobody, and a shell that comes too late finds that and starts nothing.

use std::os::unix::fs::symlink;

use flux_process::Identity;

/// Why a shell may not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    /// The machine does not tell what process this is.
    #[error("who this process is cannot be told")]
    Identity(#[source] std::io::Error),
    /// Another shell, or a broker that does not expect one any more, was first; or the directory is not writable.
    #[error("claim {path} cannot be made")]
    Claim {
        /// Where.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// Makes the claim.
///
/// # Errors
/// [`ClaimError`]; nothing may be started then.
pub(crate) fn make(path: &str) -> Result<(), ClaimError> {
    let own = Identity::own().map_err(ClaimError::Identity)?;
    symlink(own.to_string(), path).map_err(|source| ClaimError::Claim {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_shell_may_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1");
        let path = path.to_str().unwrap();
        make(path).unwrap();
        let target = std::fs::read_link(path).unwrap();
        let claimed: Identity = target.to_str().unwrap().parse().unwrap();
        assert_eq!(claimed, Identity::own().unwrap());
        let error = make(path).unwrap_err().to_string();
        assert!(error.contains(path), "{error}");
    }
}
