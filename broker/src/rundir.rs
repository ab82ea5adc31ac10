//! Where does a broker keep its socket and what it must find again when it comes back?
//!
//! With a state directory the run directory of the last run is remembered there (`rundir-RANK`, a symbolic link): shells
//! that outlived that run look for their broker in it. A broker that is told of no run directory takes that one again;
//! one that is told of another makes the old paths lead to the new ones.

use crate::attrs::Attrs;
use crate::service::new_uuid;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The run directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("rundir {}: {source}", path.display())]
pub struct RundirError {
    /// The directory.
    path: PathBuf,
    /// Why.
    #[source]
    source: io::Error,
}

/// The run directory; removed with the broker when that made it, unless shells are left that need it.
#[derive(Debug)]
pub struct Rundir {
    path: PathBuf,
    remove: bool,
}

impl Drop for Rundir {
    fn drop(&mut self) {
        if self.remove && !has_shells(&self.path) {
            // what cannot be removed stays for the administrator to see
            drop(std::fs::remove_dir_all(&self.path));
        }
    }
}

/// Returns true when shells claim to run that look for their broker below this directory.
fn has_shells(path: &Path) -> bool {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("shells-"))
        .flat_map(|entry| std::fs::read_dir(entry.path()).into_iter().flatten().flatten())
        .any(|claim| std::fs::read_link(claim.path()).is_ok_and(|target| target != Path::new("nobody")))
}

/// Makes or finds the run directory and sets the attributes `rundir` and `rundir-cleanup`.
///
/// # Errors
/// [`RundirError`].
pub fn make(attrs: &mut Attrs, rank: u32) -> Result<Rundir, RundirError> {
    let memory = attrs
        .get("statedir")
        .map(|dir| Path::new(dir).join(format!("rundir-{rank}")));
    let before = memory.as_deref().and_then(|link| std::fs::read_link(link).ok());
    let given = attrs.get("rundir").map(PathBuf::from);
    let again = before
        .as_deref()
        .filter(|path| given.is_none() && is_ours_and_idle(path, rank));
    let cleanup = match attrs.get("rundir-cleanup") {
        Some(text) => text != "0",
        None => given.as_ref().is_none_or(|dir| !dir.exists()),
    };
    let path = match (given, again) {
        (Some(path), _) => {
            let made = std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path);
            made.map_err(|source| RundirError {
                path: path.clone(),
                source,
            })?;
            path
        }
        (None, Some(path)) => path.to_path_buf(),
        (None, None) => fresh()?,
    };
    if let Some(link) = memory {
        if let Some(before) = before.filter(|before| *before != path) {
            lead_on(&before, &path, rank);
        }
        if let Err(err) = remember(&link, &path) {
            tracing::warn!(link = %link.display(), err = %err, "run directory not remembered");
        }
    }
    attrs.set_internal("rundir", path.to_string_lossy());
    attrs.set_internal("rundir-cleanup", if cleanup { "1" } else { "0" });
    Ok(Rundir {
        path,
        remove: cleanup,
    })
}

/// Makes a directory below TMPDIR that nobody else has.
fn fresh() -> Result<PathBuf, RundirError> {
    let unique = new_uuid();
    let name = format!(
        "flux-{}",
        String::from_utf8_lossy(unique.get(..8).unwrap_or(&unique))
    );
    let path = std::env::temp_dir().join(name);
    match std::fs::DirBuilder::new().mode(0o700).create(&path) {
        Ok(()) => Ok(path),
        Err(source) => Err(RundirError { path, source }),
    }
}

/// Returns true for a directory of this user alone in which no broker of this rank listens.
fn is_ours_and_idle(path: &Path, rank: u32) -> bool {
    let ours = std::fs::symlink_metadata(path).is_ok_and(|meta| {
        meta.is_dir() && meta.uid() == nix::unistd::getuid().as_raw() && meta.mode() & 0o077 == 0
    });
    ours && UnixStream::connect(path.join(format!("local-{rank}"))).is_err()
}

/// Notes the directory for the next run; a link is replaced in one step.
fn remember(link: &Path, path: &Path) -> io::Result<()> {
    if std::fs::read_link(link).is_ok_and(|known| known == path) {
        return Ok(());
    }
    let new = link.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    symlink(path, &new)?;
    std::fs::rename(&new, link)
}

/// Makes shells that look for their broker in another directory find it here, and their claims too.
fn lead_on(before: &Path, path: &Path, rank: u32) {
    let (shells, socket) = (format!("shells-{rank}"), format!("local-{rank}"));
    if !before.join(&shells).is_dir() || !is_ours_and_idle(before, rank) {
        return;
    }
    let led = symlink(before.join(&shells), path.join(&shells)).and_then(|()| {
        match std::fs::remove_file(before.join(&socket)) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => {}
        }
        symlink(path.join(&socket), before.join(&socket))
    });
    if let Err(err) = led {
        tracing::warn!(rundir = %before.display(), err = %err, "shells of the last run will not find this one");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attrs(pairs: &[(&str, &Path)]) -> Attrs {
        let mut attrs = Attrs::new();
        for (name, path) in pairs {
            attrs.set_internal(name, path.to_string_lossy());
        }
        attrs
    }

    #[test]
    fn the_last_one_is_taken_again() {
        let state = tempfile::tempdir().unwrap();
        let first = make(&mut attrs(&[("statedir", state.path())]), 0).unwrap();
        let path = first.path.clone();
        assert!(path.is_dir());
        // a crash: nothing is removed
        std::mem::forget(first);
        let second = make(&mut attrs(&[("statedir", state.path())]), 0).unwrap();
        assert_eq!(second.path, path);
        // a broker listens there: it is not ours to take
        let listener = std::os::unix::net::UnixListener::bind(path.join("local-0")).unwrap();
        let third = make(&mut attrs(&[("statedir", state.path())]), 0).unwrap();
        assert_ne!(third.path, path);
        drop((listener, second, third));
        assert!(!path.exists(), "removed with the broker");
        let fourth = make(&mut attrs(&[("statedir", state.path())]), 0).unwrap();
        assert_ne!(fourth.path, path);
    }

    #[test]
    fn shells_keep_it_and_are_led_on() {
        let dir = tempfile::tempdir().unwrap();
        let (state, old, new) = (
            dir.path().join("s"),
            dir.path().join("old"),
            dir.path().join("new"),
        );
        std::fs::create_dir(&state).unwrap();
        let first = make(&mut attrs(&[("statedir", &state), ("rundir", &old)]), 2).unwrap();
        assert!(first.remove);
        std::fs::create_dir(old.join("shells-2")).unwrap();
        symlink("nobody", old.join("shells-2/1")).unwrap();
        assert!(!has_shells(&old));
        symlink("1:2:3", old.join("shells-2/2")).unwrap();
        drop(first);
        assert!(old.is_dir(), "a shell needs it");
        let second = make(&mut attrs(&[("statedir", &state), ("rundir", &new)]), 2).unwrap();
        assert_eq!(
            std::fs::read_link(old.join("local-2")).unwrap(),
            new.join("local-2")
        );
        assert!(new.join("shells-2/2").is_symlink());
        drop(second);
    }
}
