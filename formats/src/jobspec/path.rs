//! How does a dotted path address a value of a JSON object?

use serde_json::{Map, Value};

use super::JobspecError;

/// Why a value cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// The path is empty or has an empty part.
    #[error("empty name in attribute path {0:?}")]
    Empty(String),
    /// A part of the path is not an object.
    #[error("attribute path {0:?} crosses a value that is not an object")]
    NotObject(String),
    /// The result is not a V1 jobspec.
    #[error("invalid attribute value")]
    Invalid(#[from] JobspecError),
}

/// Returns the value at `path`.
pub(super) fn get<'a>(root: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(root, |value, name| value.as_object()?.get(name))
}

/// Checks that `set` would succeed.
pub(super) fn check(root: &Value, path: &str) -> Result<(), PathError> {
    let mut value = Some(root);
    for name in path.split('.') {
        if name.is_empty() {
            return Err(PathError::Empty(path.to_owned()));
        }
        value = match value {
            Some(Value::Object(map)) => map.get(name),
            Some(_) => return Err(PathError::NotObject(path.to_owned())),
            None => None,
        };
    }
    Ok(())
}

/// Sets the value at `path`, making objects on the way.
pub(super) fn set(root: &mut Value, path: &str, value: Value) -> Result<(), PathError> {
    check(root, path)?;
    let mut here = root;
    for name in path.split('.') {
        let Value::Object(map) = here else {
            return Err(PathError::NotObject(path.to_owned()));
        };
        here = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
    }
    *here = value;
    Ok(())
}

/// Removes the value at `path`, if any.
pub(super) fn remove(root: &mut Value, path: &str) {
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    let mut here = Some(root);
    for part in parent.split('.').filter(|part| !part.is_empty()) {
        here = here.and_then(|value| value.get_mut(part));
    }
    if let Some(Value::Object(map)) = here {
        map.shift_remove(name);
    }
}
