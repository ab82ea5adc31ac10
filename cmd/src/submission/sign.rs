//! How is a job request signed? By the site's mechanism; one's own instance needs no proof of who asks.

use std::path::{Path, PathBuf};

use flux_client::{Handle, attr};
use flux_formats::paths;
use flux_sign::{Mechanism, PathChecks, Signer};
use nix::unistd::{Gid, Uid};

use crate::common::error::{CmdError, fail};
use crate::common::user;

/// What the command line says about signing.
#[derive(Clone, Debug, Default)]
pub(crate) struct SignOptions {
    /// Mechanism by name; the configured one when absent.
    pub(crate) mechanism: Option<String>,
    /// Pattern of the configuration's files, `DIR/*.toml`; the site's when absent.
    pub(crate) config: Option<String>,
}

/// Signs jobs of one user for one instance.
#[derive(Debug)]
pub(crate) struct Signing {
    uid: u32,
    mechanism: Option<String>,
    /// Absent where `none` does, which needs no configuration.
    signer: Option<Signer>,
}

impl Signing {
    /// Asks whose instance it is. In one's own the mechanism is `none`, as in flux-core, unless one is named.
    ///
    /// # Errors
    /// A configuration that is missing or wrong, with what to do; an unknown mechanism; those of the connection.
    pub(crate) fn new(handle: &mut Handle, options: &SignOptions) -> Result<Self, CmdError> {
        let uid = user::own();
        let mechanism = match &options.mechanism {
            Some(name) => Some(name.clone()),
            None if attr::get(handle, "security.owner")? == uid.to_string() => {
                Some(Mechanism::None.name().to_owned())
            }
            None => None,
        };
        if let Some(name) = &mechanism
            && Mechanism::from_name(name).is_none()
        {
            return fail(format!("sign-wrap: unknown mechanism: {}", name.escape_debug()));
        }
        let bare = mechanism.as_deref() == Some(Mechanism::None.name());
        let signer = if bare && options.config.is_none() {
            None
        } else {
            Some(load(options.config.as_deref())?)
        };
        Ok(Signing {
            uid,
            mechanism,
            signer,
        })
    }

    /// Signs a jobspec.
    ///
    /// # Errors
    /// Those of the mechanism.
    pub(crate) fn sign(&self, jobspec: &str) -> Result<String, CmdError> {
        let payload = jobspec.as_bytes();
        let signed = match &self.signer {
            None => flux_sign::wrap_as(payload, Mechanism::None, self.uid),
            Some(signer) => signer.wrap(payload, self.mechanism.as_deref(), self.uid),
        };
        signed.or_else(|err| fail(err.to_string()))
    }
}

/// Reads `[sign]`. As in flux-security, owners and modes matter to root only.
fn load(pattern: Option<&str>) -> Result<Signer, CmdError> {
    let directory = match pattern {
        None => PathBuf::from(paths::sysconfdir()).join("flux/security/conf.d"),
        Some(pattern) => directory_of(pattern)?,
    };
    let euid = Uid::effective();
    let checks = if euid.is_root() {
        PathChecks::On {
            euid: euid.as_raw(),
            egid: Gid::effective().as_raw(),
        }
    } else {
        PathChecks::Off
    };
    flux_sign::load(&directory, checks).map(Signer::new).or_else(|err| {
        fail(format!(
            "signing a job for another user's instance: {err}: the site's administrator configures [sign] there"
        ))
    })
}

/// Returns the directory of a pattern such as `/etc/flux/security/conf.d/*.toml`.
fn directory_of(pattern: &str) -> Result<PathBuf, CmdError> {
    let path = Path::new(pattern);
    if path.is_dir() {
        return Ok(path.to_owned());
    }
    match (path.parent(), path.file_name()) {
        (Some(directory), Some(name)) if name == "*.toml" => Ok(directory.to_owned()),
        _ => fail(format!(
            "--security-config={pattern}: give a directory, or a directory and /*.toml"
        )),
    }
}

/// Puts a refusal of job-ingest into the original's words.
pub(super) fn refusal(errnum: u32, text: Option<&str>) -> String {
    let text = text
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| flux_formats::errno::strerror(errnum));
    format!("[Errno {errnum}] {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(directory_of(dir.path().to_str().unwrap()).unwrap(), dir.path());
        let pattern = dir.path().join("*.toml");
        assert_eq!(directory_of(pattern.to_str().unwrap()).unwrap(), dir.path());
        let err = directory_of("/x/?.toml").unwrap_err().to_string();
        assert!(err.contains("--security-config=/x/?.toml"), "{err}");
    }

    #[test]
    fn an_absent_configuration_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let err = load(dir.path().to_str()).unwrap_err().to_string();
        assert!(err.contains("matched nothing"), "{err}");
        assert!(err.contains(dir.path().to_str().unwrap()), "{err}");
    }
}
