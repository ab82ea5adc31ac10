//! May this shell believe what it was told? In its user's own instance, yes. In another user's, it believes the user only:
//! what to run, where, and with which environment comes from the signed request, whose signature is checked here again.
//!
//! Whose instance it is, the broker's socket says (SO_PEERCRED), not the broker.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use flux_formats::paths;
use flux_sign::{LoadError, PathChecks, SignError, Signer};

use crate::spec::Jobspec;

/// Files of the site's must be root's.
const CHECKS: PathChecks = PathChecks::On { euid: 0, egid: 0 };

/// Why a request is not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// Another user's instance gave no signed request.
    #[error("another user's instance gave no signed request (J) to run")]
    Unsigned,
    /// `[sign]` is not usable on this node.
    #[error("signatures cannot be checked on this node: {0}")]
    Config(LoadError),
    /// The signature is no good.
    #[error("the job request's signature is refused: {0}")]
    Refused(SignError),
    /// Somebody else signed it.
    #[error("the job request was signed by user {signer}, and this shell runs as user {own}")]
    Signer {
        /// Who signed.
        signer: u32,
        /// Whose shell this is.
        own: u32,
    },
    /// What was signed is no jobspec.
    #[error("parsing the signed jobspec")]
    Json(#[source] serde_json::Error),
}

/// Returns the jobspec that `uid` signed.
///
/// # Errors
/// [`RequestError`]; nothing may be run then.
pub(crate) fn verified(token: Option<&str>, uid: u32) -> Result<Jobspec, RequestError> {
    let directory = PathBuf::from(paths::sysconfdir()).join("flux/security/conf.d");
    verified_with(token, uid, &directory, CHECKS)
}

fn verified_with(
    token: Option<&str>,
    uid: u32,
    directory: &Path,
    checks: PathChecks,
) -> Result<Jobspec, RequestError> {
    let token = token.ok_or(RequestError::Unsigned)?;
    let config = flux_sign::load(directory, checks).map_err(RequestError::Config)?;
    let request = Signer::new(config)
        .unwrap(token, uid)
        .map_err(RequestError::Refused)?;
    if request.userid != uid {
        return Err(RequestError::Signer {
            signer: request.userid,
            own: uid,
        });
    }
    serde_json::from_slice(&request.payload).map_err(RequestError::Json)
}

/// Returns true when the socket of a URI, or where it was, is this user's: only then may files be made that the broker
/// asks for.
pub(crate) fn is_own_socket(uri: &str, uid: u32) -> bool {
    let Some(path) = uri.strip_prefix("local://").map(Path::new) else {
        return false;
    };
    let owner = |path: &Path| std::fs::symlink_metadata(path).map(|found| found.uid());
    let found = owner(path).or_else(|_| owner(path.parent().unwrap_or(path)));
    found.is_ok_and(|owner| owner == uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOBSPEC: &str = r#"{"resources": [], "tasks": [{"command": ["id"], "slot": "task", "count": {"per_slot": 1}}],
        "attributes": {"system": {"cwd": "/here"}}, "version": 1}"#;

    fn site(allowed: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let toml =
            format!("[sign]\nmax-ttl = 60\ndefault-type = \"none\"\nallowed-types = [ \"{allowed}\" ]\n");
        std::fs::write(dir.path().join("sign.toml"), toml).unwrap();
        dir
    }

    fn refusal(token: Option<&str>, uid: u32, dir: &Path) -> String {
        let error = verified_with(token, uid, dir, PathChecks::Off).unwrap_err();
        error.to_string()
    }

    #[test]
    fn what_the_user_signed_is_run() {
        let dir = site("none");
        let token = flux_sign::wrap(JOBSPEC.as_bytes(), "none", 7).unwrap();
        let mut jobspec = verified_with(Some(&token), 7, dir.path(), PathChecks::Off).unwrap();
        assert_eq!(jobspec.task().unwrap().command, ["id"]);
        assert_eq!(jobspec.attributes.system.cwd.take().as_deref(), Some("/here"));
    }

    #[test]
    fn anything_else_is_refused() {
        let dir = site("none");
        assert!(refusal(None, 7, dir.path()).contains("no signed request"));
        let token = flux_sign::wrap(JOBSPEC.as_bytes(), "none", 7).unwrap();
        let said = refusal(Some(&token), 8, dir.path());
        assert!(said.contains("header userid 7 != real 8"), "{said}");
        let said = refusal(Some(&token[..token.len() - 1]), 7, dir.path());
        assert!(said.contains("signature"), "{said}");
        assert!(refusal(Some("x"), 7, dir.path()).contains("HEADER.PAYLOAD.SIGNATURE"));
        assert!(refusal(Some(&token), 7, site("munge").path()).contains("mechanism=none not allowed"));
        let nowhere = dir.path().join("nowhere");
        assert!(refusal(Some(&token), 7, &nowhere).contains("matched nothing"));
        let empty = flux_sign::wrap(b"[]", "none", 7).unwrap();
        assert!(refusal(Some(&empty), 7, dir.path()).contains("parsing"));
    }

    #[test]
    fn files_of_others_do_not_count() {
        let dir = site("none");
        let owner = std::fs::metadata(dir.path()).unwrap().uid();
        let token = flux_sign::wrap(JOBSPEC.as_bytes(), "none", 7).unwrap();
        let file = dir.path().join("sign.toml");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(file, mode).unwrap();
        let said = verified_with(Some(&token), 7, dir.path(), CHECKS).unwrap_err();
        let why = if owner == 0 { "permissions" } else { "ownership" };
        assert!(said.to_string().contains(why), "{said}");
    }

    #[test]
    fn sockets_have_owners() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::fs::metadata(dir.path()).unwrap().uid();
        let uri = format!("local://{}/local-0", dir.path().display());
        assert!(is_own_socket(&uri, own), "where it was");
        assert!(!is_own_socket(&uri, own + 1));
        assert!(!is_own_socket("local:///nonexistent/dir/local", own));
        assert!(!is_own_socket("ssh://host/run/flux/local", own));
    }
}
