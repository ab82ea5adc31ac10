//! What does a transaction make of a root directory? Pure; one transaction happens entirely or not at all.
//! (flux-core: modules/kvs/kvstxn.c, behaviour)

use super::lookup::LINKS_MAX;
use super::node::{Dir, Edit, Editor, Entry, Stop};
use super::txn::{Change, Op, Txn};
use super::value::Value;
use flux_formats::errno;
use flux_formats::treeobj::components;

/// Most names in a key, after links are replaced by their targets.
pub(super) const KEY_DEPTH_MAX: usize = 128;

/// Returns the root after `txn`.
///
/// # Errors
/// EINVAL for an empty key, the root as key, a key of more than [`KEY_DEPTH_MAX`] names and a link into
/// another namespace on the way; EISDIR for an append to a directory, ENOTSUP to a link; ELOOP; missing nodes.
pub(super) fn apply(root: &Dir, namespace: &str, txn: &Txn, editor: Editor<'_>) -> Result<Dir, Stop> {
    let mut root = root.clone();
    for op in &txn.ops {
        apply_op(&mut root, namespace, op, editor)?;
    }
    Ok(root)
}

/// Most operations of a transaction that [`apply_in_place`] looks at.
const IN_PLACE_MAX: usize = 8;

/// Applies `txn` to `root` itself when it is plain that nothing can fail: then no node has to be copied that
/// nobody else looks at. Returns false, with `root` as it was, when [`apply`] must decide.
pub(super) fn apply_in_place(root: &mut Dir, namespace: &str, txn: &Txn, editor: Editor<'_>) -> bool {
    let ops = &txn.ops;
    if ops.len() > IN_PLACE_MAX || !ops.iter().all(|op| is_plain(root, op, editor)) {
        return false;
    }
    // what one operation makes must not be in another's way
    let clash = |(index, op): (usize, &Op)| ops.iter().skip(index + 1).any(|other| overlap(op, other));
    if ops.iter().enumerate().any(clash) {
        return false;
    }
    for op in ops {
        if let Err(stop) = apply_op(root, namespace, op, editor) {
            tracing::error!(key = %op.key, ?stop, "kvs: an operation that was checked failed");
            debug_assert!(false, "checked operation failed");
        }
    }
    true
}

/// Returns true when one key leads to the other, or both are the same and more than values are put there.
fn overlap(one: &Op, other: &Op) -> bool {
    let (short, long) = if one.key.len() < other.key.len() {
        (one, other)
    } else {
        (other, one)
    };
    if !long.key.starts_with(short.key.as_ref()) {
        return false;
    }
    let objects = |op: &Op| matches!(op.change, Change::Put(_) | Change::Graft(_));
    match long.key.as_bytes().get(short.key.len()) {
        None => objects(one) || objects(other),
        Some(next) => *next == b'.',
    }
}

/// Returns true when `op` cannot fail and does not meet a link, with all nodes on its way in memory.
fn is_plain(root: &Dir, op: &Op, editor: Editor<'_>) -> bool {
    let bytes = op.key.as_bytes();
    let normal =
        bytes.first().is_some_and(|c| *c != b'.') && bytes.last() != Some(&b'.') && !op.key.contains("..");
    if !normal {
        return false;
    }
    let mut dir = root.clone();
    let mut names = op.key.split('.').enumerate().peekable();
    while let Some((depth, name)) = names.next() {
        if depth >= KEY_DEPTH_MAX {
            return false;
        }
        let last = names.peek().is_none();
        match dir.get(name, editor.fetch) {
            Err(_) => return false,
            Ok(None) => return op.key.split('.').count() <= KEY_DEPTH_MAX,
            Ok(Some(Entry::Dir(_))) if last => return !matches!(op.change, Change::Append(_)),
            Ok(Some(Entry::Link(_))) => return last && !matches!(op.change, Change::Append(_)),
            Ok(Some(Entry::Value(_))) => return last || op.key.split('.').count() <= KEY_DEPTH_MAX,
            Ok(Some(Entry::Dir(sub))) => dir = sub,
        }
    }
    false
}

fn apply_op(root: &mut Dir, namespace: &str, op: &Op, editor: Editor<'_>) -> Result<(), Stop> {
    let names: Vec<&str> = components(&op.key).collect();
    let walk = Walk {
        namespace,
        change: &op.change,
        editor,
    };
    let mut redirected = match walk.descend(root, &names)? {
        None => return Ok(()),
        Some(key) => key,
    };
    for _ in 0..LINKS_MAX {
        let names: Vec<&str> = components(&redirected).collect();
        match walk.descend(root, &names)? {
            None => return Ok(()),
            Some(key) => redirected = key,
        }
    }
    Err(Stop::Errno(errno::ELOOP))
}

struct Walk<'a> {
    namespace: &'a str,
    change: &'a Change,
    editor: Editor<'a>,
}

impl Walk<'_> {
    /// Applies the change at `names` below `dir`; returns another key when a link stands in the way.
    fn descend(&self, dir: &mut Dir, names: &[&str]) -> Result<Option<String>, Stop> {
        if names.is_empty() || names.len() > KEY_DEPTH_MAX {
            return Err(Stop::Errno(errno::EINVAL));
        }
        self.below(dir, names)
    }

    fn below(&self, dir: &mut Dir, names: &[&str]) -> Result<Option<String>, Stop> {
        let Some((name, rest)) = names.split_first() else {
            return Err(Stop::Errno(errno::EINVAL));
        };
        if rest.is_empty() {
            dir.change(name, self.editor, &mut |entry| self.last(entry))?;
            return Ok(None);
        }
        let mut redirected = None;
        dir.change(name, self.editor, &mut |entry| match entry {
            Some(Entry::Dir(sub)) => {
                redirected = self.below(sub, rest)?;
                Ok(Edit::Done)
            }
            Some(Entry::Link(link)) => {
                if link
                    .namespace
                    .as_ref()
                    .is_some_and(|namespace| namespace != self.namespace)
                {
                    return Err(Stop::Errno(errno::EINVAL));
                }
                redirected = Some(format!("{}.{}", link.target, rest.join(".")));
                Ok(Edit::Done)
            }
            // a value or nothing: a directory takes its place, unless there is nothing to remove
            Some(Entry::Value(_)) | None => {
                if matches!(self.change, Change::Unlink) {
                    return Ok(Edit::Done);
                }
                let mut sub = Dir::empty(self.editor.epoch);
                redirected = self.below(&mut sub, rest)?;
                Ok(Edit::Set(Entry::Dir(sub)))
            }
        })?;
        Ok(redirected)
    }

    fn last(&self, entry: Option<&mut Entry>) -> Result<Edit, Stop> {
        let epoch = self.editor.epoch;
        Ok(match (self.change, entry) {
            (Change::Unlink, _) => Edit::Remove,
            (Change::Put(object), _) => Edit::Set(Entry::from_treeobj(object.clone(), epoch)),
            (Change::Value(bytes), _) => Edit::Set(Entry::Value(Value::new(bytes.clone(), epoch))),
            (Change::Graft(dir), _) => Edit::Set(Entry::Dir(dir.clone())),
            (Change::Append(bytes), None) => Edit::Set(Entry::Value(Value::new(bytes.clone(), epoch))),
            (Change::Append(bytes), Some(Entry::Value(value))) => {
                *value = value.append(bytes, epoch);
                Edit::Done
            }
            (Change::Append(_), Some(Entry::Dir(_))) => return Err(Stop::Errno(errno::EISDIR)),
            (Change::Append(_), Some(Entry::Link(_))) => return Err(Stop::Errno(errno::ENOTSUP)),
        })
    }
}
