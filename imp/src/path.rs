//! Can anybody but root have put this file there? The whole path is looked at, and the file that was looked at is used.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use crate::sys::fd::{Stat, fstat, openat};
use crate::wire::TEXT_MAX;

const GROUP_WRITE: u32 = 0o020;
const OTHER_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Returns why a directory above a trusted file is not trusted.
///
/// In a sticky directory of root's nobody can rename or remove what belongs to root.
fn check_directory(stat: Stat) -> Result<(), &'static str> {
    if !stat.is(libc::S_IFDIR) {
        return Err(if stat.is(libc::S_IFLNK) {
            "is a symbolic link"
        } else {
            "is not a directory"
        });
    }
    if stat.uid != 0 {
        return Err("does not belong to root");
    }
    let by_group = stat.mode & GROUP_WRITE != 0 && stat.gid != 0;
    if (by_group || stat.mode & OTHER_WRITE != 0) && stat.mode & STICKY == 0 {
        return Err("may be written by others than root");
    }
    Ok(())
}

/// Returns why a file is not trusted.
pub fn check_file(stat: Stat) -> Result<(), &'static str> {
    if !stat.is(libc::S_IFREG) {
        return Err("is not a regular file");
    }
    if stat.uid != 0 {
        return Err("does not belong to root");
    }
    if stat.mode & (GROUP_WRITE | OTHER_WRITE) != 0 {
        return Err("may be written by others than root");
    }
    Ok(())
}

/// Splits an absolute path whose names are all real: no `.`, `..`, or empty one, no NUL.
pub fn components(path: &str) -> Result<Vec<CString>, &'static str> {
    if path.len() > TEXT_MAX {
        return Err("is too long");
    }
    let names = path.strip_prefix('/').ok_or("is not absolute")?;
    names
        .split('/')
        .map(|name| match name {
            "" | "." | ".." => Err("has an empty name, '.' or '..' in it"),
            name => CString::new(name).map_err(|_| "has a NUL in it"),
        })
        .collect()
}

/// Opens a directory that only root can have changed or replaced.
///
/// # Errors
/// What to log: which part of the path is not trusted, and why.
pub fn open_directory(path: &str) -> Result<OwnedFd, String> {
    walk(path, &components(path).map_err(|why| format!("{path} {why}"))?)
}

/// The same, for `/` too.
///
/// # Errors
/// What to log.
pub fn open_directory_or_root(path: &str) -> Result<OwnedFd, String> {
    if path == "/" {
        walk(path, &[])
    } else {
        open_directory(path)
    }
}

/// Opens a directory in a trusted one, whoever owns it.
///
/// # Errors
/// Why not.
pub fn open_below(directory: &OwnedFd, name: &std::ffi::OsStr) -> Result<OwnedFd, String> {
    let name = CString::new(name.as_encoded_bytes()).map_err(|_| "a name with NUL".to_owned())?;
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_DIRECTORY;
    openat(Some(directory.as_fd()), &name, flags, 0)
        .map_err(|err| format!("its directory cannot be opened: {err}"))
}

/// Opens a file for reading that only root can have changed or replaced.
///
/// # Errors
/// What to log: which part of the path is not trusted, and why.
pub fn open_file(path: &str) -> Result<OwnedFd, String> {
    let names = components(path).map_err(|why| format!("{path} {why}"))?;
    let Some((name, parents)) = names.split_last() else {
        return Err(format!("{path} is not a file"));
    };
    let directory = walk(path, parents)?;
    open_in(&directory, name).map_err(|why| format!("{path} {why}"))
}

/// Opens a file of root's in a trusted directory.
///
/// # Errors
/// Why not, as the rest of a sentence that begins with the path.
pub fn open_in(directory: &OwnedFd, name: &std::ffi::CStr) -> Result<OwnedFd, String> {
    let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = openat(Some(directory.as_fd()), name, flags, 0).map_err(|err| match err.raw_os_error() {
        Some(libc::ELOOP) => "is a symbolic link".to_owned(),
        _ => format!("cannot be opened: {err}"),
    })?;
    let stat = fstat(file.as_fd()).map_err(|err| format!("cannot be looked at: {err}"))?;
    check_file(stat)?;
    Ok(file)
}

/// Goes down from `/`; `path` is for messages only.
fn walk(path: &str, names: &[CString]) -> Result<OwnedFd, String> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let mut at = openat(None, c"/", flags, 0).map_err(|err| format!("/ cannot be opened: {err}"))?;
    let mut seen = String::new();
    for name in std::iter::once(None).chain(names.iter().map(Some)) {
        if let Some(name) = name {
            seen.push('/');
            seen.push_str(&name.to_string_lossy());
            at = openat(Some(at.as_fd()), name, flags, 0)
                .map_err(|err| format!("{path}: {seen} cannot be opened: {err}"))?;
        }
        let stat = fstat(at.as_fd()).map_err(|err| format!("{path}: {seen} cannot be looked at: {err}"))?;
        let place = if seen.is_empty() { "/" } else { &seen };
        check_directory(stat).map_err(|why| format!("{path}: {place} {why}"))?;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(mode: u32, uid: u32, gid: u32) -> Stat {
        Stat {
            mode,
            uid,
            gid,
            size: 0,
            rdev: 0,
        }
    }

    #[test]
    fn directories() {
        let dir = libc::S_IFDIR;
        for good in [
            stat(dir | 0o755, 0, 5),
            stat(dir | 0o1777, 0, 0),
            stat(dir | 0o775, 0, 0),
        ] {
            assert_eq!(check_directory(good), Ok(()), "{good:?}");
        }
        for bad in [
            stat(dir | 0o755, 5, 0),
            stat(dir | 0o777, 0, 0),
            stat(dir | 0o775, 0, 5),
            stat(libc::S_IFLNK | 0o777, 0, 0),
            stat(libc::S_IFREG | 0o644, 0, 0),
        ] {
            assert!(check_directory(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn files() {
        let reg = libc::S_IFREG;
        assert_eq!(check_file(stat(reg | 0o644, 0, 5)), Ok(()));
        for bad in [
            stat(reg | 0o644, 5, 0),
            stat(reg | 0o646, 0, 0),
            stat(reg | 0o664, 0, 0),
            stat(libc::S_IFIFO | 0o644, 0, 0),
            stat(libc::S_IFCHR | 0o644, 0, 0),
        ] {
            assert!(check_file(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn paths() {
        assert_eq!(components("/a/b").unwrap().len(), 2);
        for bad in ["", "a", "/", "/a/", "//a", "/a/../b", "/./a", "/a\0b"] {
            assert!(components(bad).is_err(), "{bad:?}");
        }
        assert!(open_file("/etc/passwd").is_ok());
        assert!(open_file("/etc").unwrap_err().contains("not a regular file"));
        assert!(
            open_file("/proc/self/cmdline")
                .unwrap_err()
                .contains("/proc/self is a symbolic link")
        );
        assert!(
            open_directory("/dev/null/x")
                .unwrap_err()
                .contains("/dev/null is not a directory")
        );
    }
}
