//! Can anybody but root have put this file there? The whole path is looked at, and the file that was looked at is used.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use crate::sys::fd::openat;
use crate::wire::TEXT_MAX;

/// Permission to write for anybody but the owner.
const GROUP_WRITE: u32 = 0o020;
const OTHER_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Returns why a directory above a trusted file is not trusted.
///
/// In a sticky directory of root's nobody can rename or remove what belongs to root.
fn check_directory(mode: u32, uid: u32, gid: u32) -> Result<(), &'static str> {
    let by_group = mode & GROUP_WRITE != 0 && gid != 0;
    match mode & libc::S_IFMT {
        libc::S_IFLNK => Err("is a symbolic link"),
        libc::S_IFDIR if uid != 0 => Err("does not belong to root"),
        libc::S_IFDIR if (by_group || mode & OTHER_WRITE != 0) && mode & STICKY == 0 => {
            Err("may be written by others than root")
        }
        libc::S_IFDIR => Ok(()),
        _ => Err("is not a directory"),
    }
}

/// Returns why a file is not trusted.
fn check_file(mode: u32, uid: u32) -> Result<(), &'static str> {
    match mode & libc::S_IFMT {
        libc::S_IFREG if uid != 0 => Err("does not belong to root"),
        libc::S_IFREG if mode & (GROUP_WRITE | OTHER_WRITE) != 0 => Err("may be written by others than root"),
        libc::S_IFREG => Ok(()),
        _ => Err("is not a regular file"),
    }
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
pub fn open_directory(path: &str) -> Result<File, String> {
    walk(path, &components(path).map_err(|why| format!("{path} {why}"))?)
}

/// Opens a file for reading that only root can have changed or replaced.
///
/// # Errors
/// What to log: which part of the path is not trusted, and why.
pub fn open_file(path: &str) -> Result<File, String> {
    let names = components(path).map_err(|why| format!("{path} {why}"))?;
    let (name, parents) = names.split_last().ok_or(format!("{path} is not a file"))?;
    let directory = walk(path, parents)?;
    open_in(&directory, name).map_err(|why| format!("{path} {why}"))
}

/// Opens a file of root's in a trusted directory.
///
/// # Errors
/// Why not, as the rest of a sentence that begins with the path.
pub fn open_in(directory: &File, name: &CStr) -> Result<File, String> {
    let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = openat(Some(directory), name, flags, 0).map_err(|err| match err.raw_os_error() {
        Some(libc::ELOOP) => "is a symbolic link".to_owned(),
        _ => format!("cannot be opened: {err}"),
    })?;
    let found = file.metadata();
    let found = found.map_err(|err| format!("cannot be looked at: {err}"))?;
    check_file(found.mode(), found.uid())?;
    Ok(file)
}

/// Goes down from `/` through directories of root's; `path` is for messages only.
///
/// # Errors
/// What to log.
pub fn walk(path: &str, names: &[CString]) -> Result<File, String> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let mut seen = String::new();
    let check = |opened: io::Result<File>, seen: &str| {
        let file = opened.map_err(|err| format!("{path}: {seen} cannot be opened: {err}"))?;
        let found = file.metadata();
        let found = found.map_err(|err| format!("{path}: {seen} cannot be looked at: {err}"))?;
        let trusted = check_directory(found.mode(), found.uid(), found.gid());
        trusted
            .map(|()| file)
            .map_err(|why| format!("{path}: {seen} {why}"))
    };
    let mut at = check(openat(None, c"/", flags, 0), "/")?;
    for name in names {
        seen.push('/');
        seen.push_str(&name.to_string_lossy());
        at = check(openat(Some(&at), name, flags, 0), &seen)?;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories() {
        let dir = libc::S_IFDIR;
        for (mode, uid, gid) in [(dir | 0o755, 0, 5), (dir | 0o1777, 0, 0), (dir | 0o775, 0, 0)] {
            assert_eq!(check_directory(mode, uid, gid), Ok(()), "{mode:o} {uid} {gid}");
        }
        for (mode, uid, gid) in [
            (dir | 0o755, 5, 0),
            (dir | 0o777, 0, 0),
            (dir | 0o775, 0, 5),
            (dir | 0o1777, 5, 0),
            (libc::S_IFLNK | 0o777, 0, 0),
            (libc::S_IFREG | 0o644, 0, 0),
        ] {
            assert!(check_directory(mode, uid, gid).is_err(), "{mode:o} {uid} {gid}");
        }
    }

    #[test]
    fn files() {
        let reg = libc::S_IFREG;
        assert_eq!(check_file(reg | 0o644, 0), Ok(()));
        for (mode, uid) in [
            (reg | 0o644, 5),
            (reg | 0o646, 0),
            (reg | 0o664, 0),
            (libc::S_IFIFO | 0o644, 0),
            (libc::S_IFCHR | 0o644, 0),
        ] {
            assert!(check_file(mode, uid).is_err(), "{mode:o} {uid}");
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
