//! Where does an ordinary program find `[sign]`? In `DIR/*.toml`; owners and modes are checked first.
//!
//! The IMP does not use this file: it checks the whole path and parses in a sandbox.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::{Config, ConfigError};
use crate::flatten::{FlattenError, flatten};
use crate::kv::Kv;

/// Most bytes in all files together.
const SIZE_MAX: u64 = 64 << 10;
const MODE_GROUP_WRITE: u32 = 0o020;
const MODE_OTHER_WRITE: u32 = 0o002;
const MODE_STICKY: u32 = 0o1000;
const ROOT: u32 = 0;

/// Whether owners and modes matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathChecks {
    /// They do: files must belong to root or to this user, and nobody else may write.
    On {
        /// Effective user of the calling process.
        euid: u32,
        /// Effective group of the calling process.
        egid: u32,
    },
    /// They do not; the original's default for programs that are not root.
    Off,
}

/// Why the configuration could not be had.
#[derive(Debug)]
pub enum LoadError {
    /// No file is there.
    Nothing(PathBuf),
    /// A file or its directory may have been changed by somebody else.
    Insecure(PathBuf, String),
    /// A file cannot be read.
    Io(PathBuf, io::Error),
    /// The files are too long.
    Size(PathBuf),
    /// A file is not TOML.
    Syntax(PathBuf, FlattenError),
    /// `[sign]` is not usable.
    Config(ConfigError),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Nothing(directory) => {
                write!(f, "pattern {}/*.toml matched nothing", directory.display())
            }
            LoadError::Insecure(path, why) => write!(f, "{}::-1: unable to open: {why}", path.display()),
            LoadError::Io(path, err) => write!(f, "{}::-1: {err}", path.display()),
            LoadError::Size(path) => write!(f, "{}::-1: more than {SIZE_MAX} bytes", path.display()),
            LoadError::Syntax(path, err) => write!(f, "{}::{err}", path.display()),
            LoadError::Config(err) => err.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LoadError::Io(_, err) => Some(err),
            LoadError::Syntax(_, err) => Some(err),
            LoadError::Config(err) => Some(err),
            LoadError::Nothing(_) | LoadError::Insecure(..) | LoadError::Size(_) => None,
        }
    }
}

/// Reads `directory/*.toml` in the order of their names; a later file's top-level table replaces an earlier one.
///
/// # Errors
/// Any [`LoadError`].
pub fn load(directory: &Path, checks: PathChecks) -> Result<Config, LoadError> {
    let mut paths: Vec<PathBuf> = match fs::read_dir(directory) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(err) => return Err(LoadError::Io(directory.to_owned(), err)),
    };
    let hidden = |path: &Path| {
        path.file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
    };
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "toml") && !hidden(path));
    paths.sort();
    if paths.is_empty() {
        return Err(LoadError::Nothing(directory.to_owned()));
    }
    let mut kv = Kv::new();
    let mut left = SIZE_MAX;
    for path in paths {
        let text = read(&path, checks, left)?;
        left -= u64::try_from(text.len()).unwrap_or(left).min(left);
        flatten(&text, &mut kv).map_err(|err| LoadError::Syntax(path, err))?;
    }
    Config::from_kv(&kv).map_err(LoadError::Config)
}

fn read(path: &Path, checks: PathChecks, size_max: u64) -> Result<String, LoadError> {
    let io = |err| LoadError::Io(path.to_owned(), err);
    let seen = fs::symlink_metadata(path).map_err(io)?;
    if let PathChecks::On { euid, egid } = checks {
        check_file(&seen, euid, egid).map_err(|why| LoadError::Insecure(path.to_owned(), why))?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        let directory = fs::symlink_metadata(parent).map_err(io)?;
        check_parent(&directory, euid, egid).map_err(|why| LoadError::Insecure(path.to_owned(), why))?;
    } else if !fs::metadata(path).map_err(io)?.is_file() {
        return Err(LoadError::Insecure(
            path.to_owned(),
            "File is not a regular file".to_owned(),
        ));
    }
    let mut file = File::open(path).map_err(io)?;
    let opened = file.metadata().map_err(io)?;
    if checks != PathChecks::Off && (opened.dev(), opened.ino()) != (seen.dev(), seen.ino()) {
        return Err(LoadError::Insecure(
            path.to_owned(),
            "the file changed while it was opened".to_owned(),
        ));
    }
    let mut text = String::new();
    let limit = size_max.saturating_add(1);
    let count = Read::by_ref(&mut file)
        .take(limit)
        .read_to_string(&mut text)
        .map_err(io)?;
    if u64::try_from(count).is_ok_and(|count| count <= size_max) {
        Ok(text)
    } else {
        Err(LoadError::Size(path.to_owned()))
    }
}

fn check_file(file: &fs::Metadata, euid: u32, egid: u32) -> Result<(), String> {
    let mode = file.mode();
    if file.file_type().is_symlink() {
        return Err("symbolic link".to_owned());
    }
    if !file.is_file() {
        return Err("File is not a regular file".to_owned());
    }
    if file.uid() != ROOT && file.uid() != euid {
        return Err("insecure file ownership".to_owned());
    }
    if mode & MODE_OTHER_WRITE != 0 || (mode & MODE_GROUP_WRITE != 0 && file.gid() != egid) {
        return Err(format!("bad file permissions ({:04o})", mode & 0o7777));
    }
    Ok(())
}

fn check_parent(directory: &fs::Metadata, euid: u32, egid: u32) -> Result<(), String> {
    let mode = directory.mode();
    if !directory.is_dir() {
        return Err("Unable to check parent directory. Unexpected file type".to_owned());
    }
    if directory.uid() != ROOT && directory.uid() != euid {
        return Err("Invalid ownership on parent directory".to_owned());
    }
    let sticky = mode & MODE_STICKY != 0;
    let foreign_group = directory.gid() != ROOT && directory.gid() != egid;
    if foreign_group && mode & MODE_GROUP_WRITE != 0 && !sticky {
        return Err("parent directory is group-writable without sticky bit".to_owned());
    }
    if mode & MODE_OTHER_WRITE != 0 && !sticky {
        return Err("parent directory is world-writable without sticky bit".to_owned());
    }
    Ok(())
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
