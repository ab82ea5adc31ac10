//! How do files travel inside a jobspec? `--add-file=[NAME[:PERMS]=]PATH` (RFC 37)

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::error::{CmdError, fail, usage};

/// File type bits of a regular file.
const REGULAR: u32 = 0o100_000;
/// Permissions of a file whose content was given on the command line.
const PERMS_DEFAULT: u32 = 0o600;

/// Reads one `--add-file` argument and returns the file's name in the job and its RFC 37 object.
///
/// # Errors
/// An unreadable file, bad permissions, or content without a name.
pub(crate) fn add_file(spec: &str) -> Result<(String, Value), CmdError> {
    let (name, content) = match spec.split_once('=') {
        // An equal sign in multi-line content does not end a name.
        Some((name, content)) if !name.contains('\n') => (Some(name), content),
        _ => (None, spec),
    };
    let (name, perms) = match name.and_then(|name| name.rsplit_once(':')) {
        Some((name, octal)) => match u32::from_str_radix(octal, 8) {
            Ok(perms) if perms <= 0o7777 => (Some(name), Some(perms)),
            _ => return usage(format!("--add-file: invalid file mode in {spec}, expected octal")),
        },
        None => (name, None),
    };
    if content.contains('\n') {
        let Some(name) = name else {
            return usage("--add-file: file name missing for literal content");
        };
        let mode = REGULAR | perms.unwrap_or(PERMS_DEFAULT);
        return Ok((
            name.to_owned(),
            json!({"mode": mode, "data": content, "encoding": "utf-8"}),
        ));
    }
    let path = Path::new(content);
    let what = || format!("--add-file: {content}");
    let about = std::fs::metadata(path).map_err(CmdError::file(what()))?;
    if !about.is_file() {
        return fail(format!("--add-file: {content}: not a regular file"));
    }
    let bytes = std::fs::read(path).map_err(CmdError::file(what()))?;
    let mode = perms.map_or(about.permissions().mode(), |perms| REGULAR | perms);
    let name = match name {
        Some(name) => name.to_owned(),
        None => path
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
    };
    let size = bytes.len();
    let object = match String::from_utf8(bytes) {
        Ok(text) => json!({"mode": mode, "size": size, "data": text, "encoding": "utf-8"}),
        Err(err) => {
            let mut text = String::new();
            flux_sign::base64_encode(err.as_bytes(), &mut text);
            json!({"mode": mode, "size": size, "data": text, "encoding": "base64"})
        }
    };
    Ok((name, object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "vm\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = path.display();
        let (name, object) = add_file(&format!("hello={path}")).unwrap();
        assert_eq!(name, "hello");
        assert_eq!(
            object,
            json!({"mode": 33261, "size": 3, "data": "vm\n", "encoding": "utf-8"})
        );
        assert_eq!(add_file(&path.to_string()).unwrap().0, "f");
        assert_eq!(add_file(&format!("x:0700={path}")).unwrap().1["mode"], 33216);
        let literal = add_file("s:0755=a=1\nb\n").unwrap();
        assert_eq!(
            literal,
            (
                "s".to_owned(),
                json!({"mode": 33261, "data": "a=1\nb\n", "encoding": "utf-8"})
            )
        );
        std::fs::write(dir.path().join("f"), b"\xff").unwrap();
        assert_eq!(add_file(&path.to_string()).unwrap().1["encoding"], "base64");
        for bad in ["/no/such/file", "x:9=/etc/passwd", "a\nb", "/"] {
            assert!(add_file(bad).is_err(), "{bad}");
        }
    }
}
