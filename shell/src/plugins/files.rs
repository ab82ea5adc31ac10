//! Which files does the job bring along, and where are they put? (RFC 37, `attributes.system.files`)

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Component, Path};

use serde::Deserialize;
use serde_json::{Map, Value};

/// Bits of a mode that name the type of a file.
const TYPE_MASK: u32 = 0o170_000;
const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_SYMLINK: u32 = 0o120_000;

/// Why a file cannot be put in place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The entry is not as RFC 37 says.
    #[error("files: {0}: malformed entry")]
    Malformed(String),
    /// The path leads out of the job's directory.
    #[error("files: {0}: path must be relative and without '..'")]
    Path(String),
    /// The content is in a form that is not supported.
    #[error("files: {path}: encoding '{encoding}' is not supported")]
    Encoding {
        /// Path of the file.
        path: String,
        /// Its encoding.
        encoding: String,
    },
    /// The file cannot be written.
    #[error("files: {path}: {text}")]
    Write {
        /// Path of the file.
        path: String,
        /// Why.
        text: String,
    },
}

#[derive(Deserialize)]
struct Entry {
    path: Option<String>,
    mode: u32,
    #[serde(default)]
    encoding: Option<String>,
    #[serde(default)]
    data: Option<Value>,
}

/// Puts the job's files below `directory`.
///
/// # Errors
/// Any [`FileError`].
pub(crate) fn extract(files: &Value, directory: &Path) -> Result<(), FileError> {
    match files {
        Value::Object(entries) => extract_map(entries, directory),
        Value::Array(entries) => entries.iter().try_for_each(|entry| {
            let path = entry
                .get("path")
                .and_then(Value::as_str)
                .unwrap_or("?")
                .to_owned();
            extract_one(&path, entry, directory)
        }),
        _ => Err(FileError::Malformed("archive".to_owned())),
    }
}

fn extract_map(entries: &Map<String, Value>, directory: &Path) -> Result<(), FileError> {
    entries
        .iter()
        .try_for_each(|(path, entry)| extract_one(path, entry, directory))
}

fn extract_one(path: &str, entry: &Value, directory: &Path) -> Result<(), FileError> {
    let entry: Entry = Deserialize::deserialize(entry).map_err(|_| FileError::Malformed(path.to_owned()))?;
    let path = entry.path.as_deref().unwrap_or(path);
    let plain = |component: Component<'_>| matches!(component, Component::Normal(_) | Component::CurDir);
    if path.is_empty() || !Path::new(path).components().all(plain) {
        return Err(FileError::Path(path.to_owned()));
    }
    let content = content(path, &entry)?;
    let mode = entry.mode & 0o7777;
    place(&directory.join(path), entry.mode & TYPE_MASK, mode, &content).map_err(|error| FileError::Write {
        path: path.to_owned(),
        text: crate::errno_text(&error),
    })
}

fn content(path: &str, entry: &Entry) -> Result<Vec<u8>, FileError> {
    let malformed = || FileError::Malformed(path.to_owned());
    match (entry.encoding.as_deref(), &entry.data) {
        (_, None) => Ok(Vec::new()),
        (Some("utf-8"), Some(Value::String(text))) => Ok(text.clone().into_bytes()),
        (Some("base64"), Some(Value::String(text))) => crate::base64::decode(text).ok_or_else(malformed),
        (Some("utf-8" | "base64"), Some(_)) => Err(malformed()),
        (Some(other), _) => Err(FileError::Encoding {
            path: path.to_owned(),
            encoding: other.to_owned(),
        }),
        // The target of a link is text, everything else without encoding is JSON to be written as it is.
        (None, Some(Value::String(target))) if entry.mode & TYPE_MASK == TYPE_SYMLINK => {
            Ok(target.clone().into_bytes())
        }
        (None, Some(json)) => serde_json::to_vec(json).map_err(|_| malformed()),
    }
}

fn place(path: &Path, kind: u32, mode: u32, content: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    match kind {
        TYPE_DIRECTORY => DirBuilder::new().mode(mode).create(path),
        TYPE_SYMLINK => symlink(String::from_utf8_lossy(content).as_ref(), path),
        _ => {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(path)?;
            file.write_all(content)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn every_kind_of_entry() {
        let dir = tempfile::tempdir().unwrap();
        let files = json!({
            "script": {"mode": 0o100_700, "encoding": "utf-8", "data": "#!/bin/sh\n", "size": 10},
            "sub/bin": {"mode": 0o100_644, "encoding": "base64", "data": "/wA="},
            "conf.json": {"mode": 0o100_600, "data": {"a": 1}},
            "dir": {"mode": 0o040_755},
            "link": {"mode": 0o120_777, "data": "script"}
        });
        extract(&files, dir.path()).unwrap();
        let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
        assert_eq!(read("script"), b"#!/bin/sh\n");
        assert_eq!(read("sub/bin"), b"\xff\0");
        assert_eq!(read("conf.json"), br#"{"a":1}"#);
        assert_eq!(read("link"), b"#!/bin/sh\n");
        let mode = std::fs::metadata(dir.path().join("script"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(dir.path().join("dir").is_dir());
        let list = json!([{"path": "x", "mode": 0o100_600, "encoding": "utf-8", "data": "y"}]);
        extract(&list, dir.path()).unwrap();
        assert_eq!(read("x"), b"y");
    }

    #[test]
    fn nothing_is_written_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["/etc/x", "../x", "a/../../x", ""] {
            let files = json!({path: {"mode": 0o100_600, "encoding": "utf-8", "data": ""}});
            assert!(
                matches!(extract(&files, dir.path()), Err(FileError::Path(_))),
                "{path}"
            );
        }
        for entry in [
            json!({}),
            json!({"mode": 1, "encoding": "utf-8", "data": 3}),
            json!(3),
        ] {
            assert!(extract(&json!({ "f": entry }), dir.path()).is_err());
        }
        let blobs = json!({"f": {"mode": 0o100_600, "encoding": "blobvec", "data": []}});
        assert!(matches!(
            extract(&blobs, dir.path()),
            Err(FileError::Encoding { .. })
        ));
    }
}
