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

fn apply_op(root: &mut Dir, namespace: &str, op: &Op, editor: Editor<'_>) -> Result<(), Stop> {
    let names: Vec<&str> = components(&op.key).collect();
    let walk = Walk { namespace, change: &op.change, editor };
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
        let Some((name, rest)) = names.split_first() else { return Err(Stop::Errno(errno::EINVAL)) };
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
                if link.namespace.as_ref().is_some_and(|namespace| namespace != self.namespace) {
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
