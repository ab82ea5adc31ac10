//! Which programs does a site run, and where does it think they are?

use std::path::{Path, PathBuf};

use crate::{bindir, imp};

/// Programs and the paths that they have compiled in.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Where they are on the site's nodes (`PREFIX`); the configuration is in `etc` below it.
    pub prefix: String,
    /// `flux`
    pub flux: PathBuf,
    /// Directory of `flux-broker`, `flux-shell`, `flux-hwloc-xml`.
    pub libexec: PathBuf,
    /// `flux-imp`; it is made setuid on the site.
    pub imp: PathBuf,
    /// Directory of the policies.
    pub policies: PathBuf,
}

impl Programs {
    /// Returns what cargo has built.
    #[must_use]
    pub fn built() -> Self {
        Programs {
            prefix: "/usr/local".to_owned(),
            flux: bindir().join("flux"),
            libexec: bindir(),
            imp: imp(),
            policies: bindir().join("../policies"),
        }
    }

    /// Returns what `make install PREFIX=` has installed, with `SYSCONFDIR` below it.
    #[must_use]
    pub fn installed(prefix: &Path) -> Self {
        let libexec = prefix.join("libexec/flux");
        Programs {
            prefix: prefix.display().to_string(),
            flux: prefix.join("bin/flux"),
            imp: libexec.join("flux-imp"),
            policies: prefix.join("lib/flux/policies"),
            libexec,
        }
    }
}
