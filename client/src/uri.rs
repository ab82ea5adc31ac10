//! Which broker does a URI mean? Argument, else `FLUX_URI`, else the system instance's socket.

use std::path::{Path, PathBuf};

use crate::{ConnectOptions, Error, Handle, attr};

/// Environment variable that names the broker to talk to.
pub const FLUX_URI: &str = "FLUX_URI";

/// Returns the URI that is used when a program names none: `FLUX_URI`, else `local://RUNDIR/local`.
pub fn default_uri() -> String {
    match std::env::var(FLUX_URI) {
        Ok(uri) if !uri.is_empty() => uri,
        _ => {
            let rundir = flux_formats::paths::builtin("rundir").unwrap_or_default();
            format!("local://{rundir}/local")
        }
    }
}

/// Returns the socket path of a `local://` URI.
///
/// # Errors
/// [`Error::Uri`] for another scheme or an empty path.
pub fn local_path(uri: &str) -> Result<PathBuf, Error> {
    let bad = |reason| Error::Uri {
        uri: uri.to_owned(),
        reason,
    };
    let (scheme, rest) = uri.split_once("://").ok_or_else(|| bad("it has no SCHEME://"))?;
    match scheme {
        "local" => {
            let path = rest.trim_end_matches([' ', '\t']);
            if path.is_empty() {
                Err(bad("it has no path"))
            } else {
                Ok(Path::new(path).to_owned())
            }
        }
        "ssh" => Err(bad("it names a broker on another host")),
        _ => Err(bad("only local:// and ssh:// are supported")),
    }
}

/// Returns true for an ancestor reference: `.`, `..`, `../..`, `/`.
pub fn is_ancestor_path(uri: &str) -> bool {
    uri.starts_with(['.', '/'])
}

/// Resolves an ancestor reference to a native URI: `.` this instance, `..` its parent, `/` the root instance.
///
/// # Errors
/// [`Error::Uri`] for other path elements, and whatever connecting and `attr.get` give.
pub fn resolve_ancestor(path: &str, options: &ConnectOptions) -> Result<String, Error> {
    let bad = || Error::Uri {
        uri: path.to_owned(),
        reason: "only '.', '..' and '/' name an instance",
    };
    let mut up = 0u32;
    let to_root = path == "/";
    if !to_root {
        for element in path.split('/').filter(|e| !e.is_empty()) {
            match element {
                "." => {}
                ".." => up += 1,
                _ => return Err(bad()),
            }
        }
        if path.starts_with('/') {
            return Err(bad());
        }
    }
    let mut uri = default_uri();
    loop {
        if !to_root && up == 0 {
            return Ok(uri);
        }
        let mut handle = Handle::open_with(Some(&uri), options)?;
        let level = attr::get(&mut handle, "instance-level")?;
        if level.trim() == "0" {
            return Ok(uri);
        }
        uri = seen_from_here(attr::get(&mut handle, "parent-uri")?);
        up = up.saturating_sub(1);
    }
}

/// Returns a local URI of the host that a proxy leads to as one that leads there from here.
fn seen_from_here(uri: String) -> String {
    let authority = std::env::var("FLUX_PROXY_REMOTE").unwrap_or_default();
    match uri.strip_prefix("local://") {
        Some(path) if !authority.is_empty() => format!("ssh://{authority}{path}"),
        _ => uri,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_paths() {
        assert_eq!(
            local_path("local:///run/flux/local \t").unwrap(),
            Path::new("/run/flux/local")
        );
        for bad in ["", "x", "local://", "ssh://host/p", "foo://x"] {
            assert!(local_path(bad).is_err(), "{bad}");
        }
        assert!(resolve_ancestor("/x", &ConnectOptions::default()).is_err());
        assert!(resolve_ancestor("./x", &ConnectOptions::default()).is_err());
        assert!(is_ancestor_path("..") && !is_ancestor_path("local:///x"));
    }
}
