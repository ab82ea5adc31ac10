//! How do annotations change? (RFC 27: recursive update, null deletes.)

use serde_json::{Map, Value};

/// Merges `changes` into `into`: objects are merged recursively, null deletes, anything else replaces. Objects that
/// become empty go away.
pub(super) fn merge(into: &mut Map<String, Value>, changes: &Map<String, Value>) {
    for (key, change) in changes {
        match change {
            Value::Null => {
                into.shift_remove(key);
            }
            Value::Object(changes) => merge_at(into, key, changes),
            other => {
                into.insert(key.clone(), other.clone());
            }
        }
    }
}

/// Merges `changes` into the object at `key`, which is made when absent and removed when it becomes empty.
pub(super) fn merge_at(into: &mut Map<String, Value>, key: &str, changes: &Map<String, Value>) {
    let mut inner = match into.get_mut(key) {
        Some(Value::Object(inner)) => std::mem::take(inner),
        _ => Map::new(),
    };
    merge(&mut inner, changes);
    if inner.is_empty() {
        into.shift_remove(key);
    } else {
        into.insert(key.to_owned(), Value::Object(inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn merges_and_deletes() {
        let mut annotations = map(json!({"sched": {"a": 1, "b": {"c": 2}}, "user": {"x": 1}}));
        merge(
            &mut annotations,
            &map(json!({"sched": {"a": null, "b": {"d": 3}}, "user": {"x": null}, "n": 1})),
        );
        assert_eq!(
            Value::Object(annotations.clone()),
            json!({"sched": {"b": {"c": 2, "d": 3}}, "n": 1})
        );
        merge_at(&mut annotations, "user", &map(json!({"uri": "local://x"})));
        assert_eq!(annotations.get("user"), Some(&json!({"uri": "local://x"})));
        merge_at(&mut annotations, "user", &map(json!({"uri": null})));
        assert_eq!(annotations.get("user"), None);
    }
}
