//! What are the parts of a KVS key? (RFC 11; dots separate, surplus dots do not count.)

use std::borrow::Cow;

/// Why a text is not a key or name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key is empty (flux-core answers EINVAL; the root is ".").
    #[error("key is empty")]
    Empty,
    /// The name of a directory entry is empty or holds a dot.
    #[error("name of a directory entry is empty or holds a dot")]
    Name,
}

/// Returns the key without surplus dots, and whether it ends with a dot and thus insists on a directory.
///
/// "a..b." becomes "a.b", a key of dots only becomes "." (the root).
///
/// # Errors
/// [`KeyError::Empty`] for "".
pub fn normalize_key(key: &str) -> Result<(Cow<'_, str>, bool), KeyError> {
    if key.is_empty() {
        return Err(KeyError::Empty);
    }
    let wants_dir = key.ends_with('.');
    let trimmed = key.trim_matches('.');
    if trimmed.is_empty() {
        return Ok((Cow::Borrowed("."), true));
    }
    if !trimmed.contains("..") {
        return Ok((Cow::Borrowed(trimmed), wants_dir));
    }
    let mut clean = String::with_capacity(trimmed.len());
    for name in components(trimmed) {
        if !clean.is_empty() {
            clean.push('.');
        }
        clean.push_str(name);
    }
    Ok((Cow::Owned(clean), wants_dir))
}

/// Returns the names along a key, from the root; none for ".".
pub fn components(key: &str) -> impl DoubleEndedIterator<Item = &str> + Clone {
    key.split('.').filter(|name| !name.is_empty())
}

/// Returns `name` below `dir`; "." and "" stand for the root.
pub fn join_key(dir: &str, name: &str) -> String {
    if dir.is_empty() || dir == "." {
        name.to_owned()
    } else {
        format!("{dir}.{name}")
    }
}
