//! How is a directory held so that a change costs the same whatever its size? (Design note 0001.)
//!
//! A directory is a persistent B-tree: nodes are shared between versions, a change copies the path to one
//! leaf. A directory of at most [`LEAF_MAX`] entries is one leaf and is stored as the RFC 11 object that it
//! is; a larger one has branches above leaves, stored in a form of our own ([`super::blob`]). Nodes that the
//! store has may be absent from memory.
//!
//! Leaves split in the middle, except at their end: keys that arrive in ascending order fill every leaf.

use super::value::Value;
use flux_formats::blobref::{BlobRef, HashType};
use flux_formats::errno::Errnum;
use flux_formats::treeobj::{Symlink, TreeObj};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Most entries of a leaf.
pub(super) const LEAF_MAX: usize = 32;
/// Most children of a branch.
pub(super) const BRANCH_MAX: usize = 64;

/// Name of a directory entry.
pub(super) type Name = Arc<str>;

/// What a name stands for.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    Value(Value),
    Dir(Dir),
    Link(Arc<Symlink>),
}

/// A directory, or a part of one: in memory, or only in the store.
#[derive(Clone, Debug)]
pub(super) enum Dir {
    Here(Arc<Node>),
    There(BlobRef),
}

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    blobref: OnceLock<BlobRef>,
    stored: AtomicBool,
    /// Spill period of the last change; a parent's is never less than its children's.
    epoch: u32,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// A whole directory: an RFC 11 object.
    Whole(Vec<(Name, Entry)>),
    /// Entries of a larger directory.
    Leaf(Vec<(Name, Entry)>),
    /// Children with the least name each may hold; the first one's bound does not count.
    Branch(Vec<(Name, Dir)>),
}

/// Why an operation did not go through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// These must be loaded first; then the operation begins again.
    Missing(Missing),
    /// It cannot be done.
    Errno(Errnum),
}

/// Blobs to load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    /// Directory nodes.
    pub(super) nodes: Vec<BlobRef>,
    /// Parts of values.
    pub(super) blobs: Vec<BlobRef>,
}

impl Stop {
    pub(super) fn node(blobref: BlobRef) -> Self {
        Stop::Missing(Missing {
            nodes: vec![blobref],
            blobs: Vec::new(),
        })
    }

    pub(super) fn blobs(blobs: Vec<BlobRef>) -> Self {
        Stop::Missing(Missing {
            nodes: Vec::new(),
            blobs,
        })
    }
}

/// Gives nodes that are not linked from their parents.
pub(super) trait Fetch {
    /// Returns the node when it is in memory.
    fn node(&self, blobref: &BlobRef) -> Option<Arc<Node>>;
}

/// What a change needs besides the directory.
#[derive(Clone, Copy)]
pub(super) struct Editor<'a> {
    pub(super) fetch: &'a dyn Fetch,
    pub(super) epoch: u32,
}

/// What to do with an entry.
pub(super) enum Edit {
    /// It was changed in place, or not at all.
    Done,
    /// It becomes this.
    Set(Entry),
    /// It goes.
    Remove,
}

/// What a change did to a node, for its parent.
enum Effect {
    Done,
    Split(Name, Arc<Node>),
    Shrunk,
}

impl Clone for Node {
    /// A copy is about to change: it has no name yet.
    fn clone(&self) -> Self {
        Node::new(self.kind.clone(), self.epoch)
    }
}

impl Node {
    pub(super) fn new(kind: Kind, epoch: u32) -> Self {
        Node {
            kind,
            blobref: OnceLock::new(),
            stored: AtomicBool::new(false),
            epoch,
        }
    }

    /// Returns a node that came from the store.
    pub(super) fn loaded(kind: Kind, blobref: BlobRef) -> Self {
        Node {
            kind,
            blobref: OnceLock::from(blobref),
            stored: AtomicBool::new(true),
            epoch: 0,
        }
    }

    /// Returns the name in the store, hashing this node and what is below at the first call.
    pub(super) fn blobref(&self, hash: HashType) -> BlobRef {
        *self
            .blobref
            .get_or_init(|| BlobRef::compute(hash, &super::blob::encode(self, hash)))
    }

    pub(super) fn is_stored(&self) -> bool {
        self.stored.load(Ordering::Acquire)
    }

    pub(super) fn set_stored(&self) {
        self.stored.store(true, Ordering::Release);
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Returns true for a part of a directory that only the store's own form has.
    pub(super) fn is_internal(&self) -> bool {
        !matches!(self.kind, Kind::Whole(_))
    }

    /// Returns the node for a change of its content.
    fn edit(this: &mut Arc<Node>, epoch: u32) -> &mut Kind {
        let node = Arc::make_mut(this);
        node.blobref = OnceLock::new();
        *node.stored.get_mut() = false;
        node.epoch = epoch;
        &mut node.kind
    }

    /// Returns the node for replacing what is in memory by what is in the store: its name stays.
    pub(super) fn edit_residence(this: &mut Arc<Node>) -> &mut Kind {
        if Arc::get_mut(this).is_none() {
            let copy = Node {
                kind: this.kind.clone(),
                blobref: this.blobref.clone(),
                stored: AtomicBool::new(this.is_stored()),
                epoch: this.epoch,
            };
            *this = Arc::new(copy);
        }
        &mut Arc::make_mut(this).kind
    }

    /// Returns the number of bytes that the node occupies in memory, roughly, without its children.
    pub(super) fn weight(&self) -> usize {
        let entry = |(name, entry): &(Name, Entry)| {
            96 + name.len()
                + match entry {
                    Entry::Value(value) => value.weight(),
                    Entry::Link(link) => 64 + link.target.len(),
                    Entry::Dir(_) => 0,
                }
        };
        120 + match &self.kind {
            Kind::Whole(entries) | Kind::Leaf(entries) => entries.iter().map(entry).sum(),
            Kind::Branch(children) => children.iter().map(|(name, _)| 96 + name.len()).sum::<usize>(),
        }
    }
}

fn position<T>(entries: &[(Name, T)], name: &str) -> Result<usize, usize> {
    entries.binary_search_by(|(have, _)| have.as_ref().cmp(name))
}

/// Returns the index of the child that may hold `name`.
fn child_for<T>(children: &[(Name, T)], name: &str) -> usize {
    children
        .partition_point(|(bound, _)| bound.as_ref() <= name)
        .saturating_sub(1)
}

impl Dir {
    /// Returns an empty directory.
    pub(super) fn empty(epoch: u32) -> Self {
        Dir::Here(Arc::new(Node::new(Kind::Whole(Vec::new()), epoch)))
    }

    /// Returns the directory with these entries, which must be in ascending order of their names.
    pub(super) fn build(entries: Vec<(Name, Entry)>, epoch: u32) -> Arc<Node> {
        if entries.len() <= LEAF_MAX {
            return Arc::new(Node::new(Kind::Whole(entries), epoch));
        }
        let mut level: Vec<(Name, Dir)> = Vec::with_capacity(entries.len() / LEAF_MAX + 1);
        let mut rest = entries.into_iter().peekable();
        while let Some((first, _)) = rest.peek() {
            let first = first.clone();
            let leaf: Vec<_> = rest.by_ref().take(LEAF_MAX).collect();
            level.push((first, Dir::Here(Arc::new(Node::new(Kind::Leaf(leaf), epoch)))));
        }
        while level.len() > BRANCH_MAX {
            let mut above = Vec::with_capacity(level.len() / BRANCH_MAX + 1);
            let mut rest = level.into_iter().peekable();
            while let Some((first, _)) = rest.peek() {
                let first = first.clone();
                let branch: Vec<_> = rest.by_ref().take(BRANCH_MAX).collect();
                above.push((first, Dir::Here(Arc::new(Node::new(Kind::Branch(branch), epoch)))));
            }
            level = above;
        }
        Arc::new(Node::new(Kind::Branch(level), epoch))
    }

    /// Returns the blobref of the directory object.
    pub(super) fn blobref(&self, hash: HashType) -> BlobRef {
        match self {
            Dir::Here(node) => node.blobref(hash),
            Dir::There(blobref) => *blobref,
        }
    }

    /// Returns true when the directory is known by this blobref already; hashes nothing.
    pub(super) fn known_as(&self, blobref: &BlobRef) -> bool {
        match self {
            Dir::Here(node) => node.blobref.get() == Some(blobref),
            Dir::There(own) => own == blobref,
        }
    }

    /// Returns the node.
    pub(super) fn node(&self, fetch: &dyn Fetch) -> Result<Arc<Node>, Stop> {
        match self {
            Dir::Here(node) => Ok(node.clone()),
            Dir::There(blobref) => fetch.node(blobref).ok_or_else(|| Stop::node(*blobref)),
        }
    }

    /// Returns the entry `name`.
    pub(super) fn get(&self, name: &str, fetch: &dyn Fetch) -> Result<Option<Entry>, Stop> {
        let fetched;
        let mut node: &Node = match self {
            Dir::Here(node) => node,
            Dir::There(_) => {
                fetched = self.node(fetch)?;
                return get_below(&fetched, name, fetch);
            }
        };
        loop {
            match &node.kind {
                Kind::Whole(entries) | Kind::Leaf(entries) => return Ok(find(entries, name)),
                Kind::Branch(children) => match children.get(child_for(children, name)) {
                    Some((_, Dir::Here(child))) => node = child,
                    Some((_, absent)) => return get_below(&*absent.node(fetch)?, name, fetch),
                    None => return Ok(None),
                },
            }
        }
    }

    /// Appends all entries in ascending order of their names.
    ///
    /// # Errors
    /// All nodes that are missing, as far as they can be known.
    pub(super) fn entries(&self, fetch: &dyn Fetch, out: &mut Vec<(Name, Entry)>) -> Result<(), Stop> {
        let node = self.node(fetch)?;
        let children = match &node.kind {
            Kind::Whole(entries) | Kind::Leaf(entries) => {
                out.extend_from_slice(entries);
                return Ok(());
            }
            Kind::Branch(children) => children,
        };
        let mut missing = Missing::default();
        for (_, child) in children {
            match child.entries(fetch, out) {
                Ok(()) => {}
                Err(Stop::Missing(more)) => missing.nodes.extend(more.nodes),
                Err(stop) => return Err(stop),
            }
        }
        if missing.nodes.is_empty() {
            Ok(())
        } else {
            Err(Stop::Missing(missing))
        }
    }

    /// Changes the entry `name` as `edit` says, which sees what is there.
    ///
    /// On an error the directory is not to be used any more; callers work on a copy.
    pub(super) fn change(
        &mut self,
        name: &str,
        editor: Editor<'_>,
        edit: &mut dyn FnMut(Option<&mut Entry>) -> Result<Edit, Stop>,
    ) -> Result<(), Stop> {
        let node = self.resident(editor.fetch)?;
        match change_node(node, name, editor, edit)? {
            Effect::Done => {}
            Effect::Shrunk => flatten(node, editor.epoch),
            Effect::Split(bound, right) => {
                let left = std::mem::replace(node, right.clone());
                let least: Name = Arc::from("");
                let children = vec![(least, Dir::Here(left)), (bound, Dir::Here(right))];
                *node = Arc::new(Node::new(Kind::Branch(children), editor.epoch));
            }
        }
        Ok(())
    }

    /// Returns the node for change, linked from here.
    fn resident(&mut self, fetch: &dyn Fetch) -> Result<&mut Arc<Node>, Stop> {
        if let Dir::There(_) = self {
            *self = Dir::Here(self.node(fetch)?);
        }
        match self {
            Dir::Here(node) => Ok(node),
            Dir::There(blobref) => Err(Stop::node(*blobref)),
        }
    }
}

fn find(entries: &[(Name, Entry)], name: &str) -> Option<Entry> {
    let at = position(entries, name).ok()?;
    entries.get(at).map(|(_, entry)| entry.clone())
}

fn get_below(node: &Node, name: &str, fetch: &dyn Fetch) -> Result<Option<Entry>, Stop> {
    match &node.kind {
        Kind::Whole(entries) | Kind::Leaf(entries) => Ok(find(entries, name)),
        Kind::Branch(children) => match children.get(child_for(children, name)) {
            Some((_, child)) => child.get(name, fetch),
            None => Ok(None),
        },
    }
}

fn change_node(
    node: &mut Arc<Node>,
    name: &str,
    editor: Editor<'_>,
    edit: &mut dyn FnMut(Option<&mut Entry>) -> Result<Edit, Stop>,
) -> Result<Effect, Stop> {
    if matches!(node.kind, Kind::Branch(_)) {
        return change_branch(node, name, editor, edit);
    }
    let (Kind::Whole(entries) | Kind::Leaf(entries)) = &node.kind else {
        return Ok(Effect::Done);
    };
    match position(entries, name) {
        Ok(at) => {
            let (Kind::Whole(entries) | Kind::Leaf(entries)) = Node::edit(node, editor.epoch) else {
                return Ok(Effect::Done);
            };
            let Some((_, entry)) = entries.get_mut(at) else {
                return Ok(Effect::Done);
            };
            match edit(Some(entry))? {
                Edit::Done => Ok(Effect::Done),
                Edit::Set(new) => {
                    *entry = new;
                    Ok(Effect::Done)
                }
                Edit::Remove => {
                    entries.remove(at);
                    Ok(Effect::Shrunk)
                }
            }
        }
        Err(at) => match edit(None)? {
            Edit::Set(new) => Ok(insert(node, at, name, new, editor.epoch)),
            Edit::Done | Edit::Remove => Ok(Effect::Done),
        },
    }
}

fn insert(node: &mut Arc<Node>, at: usize, name: &str, new: Entry, epoch: u32) -> Effect {
    let kind = Node::edit(node, epoch);
    let (Kind::Whole(entries) | Kind::Leaf(entries)) = kind else {
        return Effect::Done;
    };
    entries.insert(at, (Name::from(name), new));
    if entries.len() <= LEAF_MAX {
        return Effect::Done;
    }
    let keep = if at == LEAF_MAX {
        LEAF_MAX
    } else {
        entries.len() / 2
    };
    let right = entries.split_off(keep);
    let left = std::mem::take(entries);
    *kind = Kind::Leaf(left);
    let bound = right
        .first()
        .map_or_else(|| Name::from(name), |(first, _)| first.clone());
    Effect::Split(bound, Arc::new(Node::new(Kind::Leaf(right), epoch)))
}

fn change_branch(
    node: &mut Arc<Node>,
    name: &str,
    editor: Editor<'_>,
    edit: &mut dyn FnMut(Option<&mut Entry>) -> Result<Edit, Stop>,
) -> Result<Effect, Stop> {
    let Kind::Branch(children) = Node::edit(node, editor.epoch) else {
        return Ok(Effect::Done);
    };
    let at = child_for(children, name);
    let Some((_, child)) = children.get_mut(at) else {
        return Ok(Effect::Done);
    };
    match change_node(child.resident(editor.fetch)?, name, editor, edit)? {
        Effect::Done => Ok(Effect::Done),
        Effect::Shrunk => {
            shrink(children, at, editor.epoch);
            Ok(Effect::Shrunk)
        }
        Effect::Split(bound, right) => {
            children.insert(at + 1, (bound.clone(), Dir::Here(right)));
            if children.len() <= BRANCH_MAX {
                return Ok(Effect::Done);
            }
            let keep = if at + 1 == BRANCH_MAX {
                BRANCH_MAX
            } else {
                children.len() / 2
            };
            let right = children.split_off(keep);
            let bound = right.first().map_or(bound, |(first, _)| first.clone());
            Ok(Effect::Split(
                bound,
                Arc::new(Node::new(Kind::Branch(right), editor.epoch)),
            ))
        }
    }
}

/// After a removal in child `at`: drops it when empty, joins it with a neighbour when both are small and in
/// memory. A node is never loaded for this.
fn shrink(children: &mut Vec<(Name, Dir)>, at: usize, epoch: u32) {
    let len = |children: &[(Name, Dir)], at: usize| match children.get(at) {
        Some((_, Dir::Here(node))) => match &node.kind {
            Kind::Leaf(entries) | Kind::Whole(entries) => Some(entries.len()),
            Kind::Branch(below) => (below.is_empty()).then_some(0),
        },
        _ => None,
    };
    let Some(own) = len(children, at) else { return };
    if own == 0 {
        children.remove(at);
        return;
    }
    let neighbour = [at.wrapping_sub(1), at + 1]
        .into_iter()
        .find(|other| len(children, *other).is_some_and(|size| size > 0 && size + own <= LEAF_MAX / 2));
    let Some(other) = neighbour else { return };
    let (left, right) = (at.min(other), at.max(other));
    let (_, taken) = children.remove(right);
    let Dir::Here(taken) = taken else { return };
    if let (Kind::Leaf(more), Some((_, Dir::Here(into)))) = (&taken.kind, children.get_mut(left))
        && let Kind::Leaf(entries) = Node::edit(into, epoch)
    {
        entries.extend_from_slice(more);
    }
}

/// Takes away levels of the root that have one child or none.
fn flatten(node: &mut Arc<Node>, epoch: u32) {
    while let Kind::Branch(children) = &node.kind {
        let below = match children.as_slice() {
            [] => Kind::Whole(Vec::new()),
            [(_, Dir::Here(only))] => match &only.kind {
                Kind::Leaf(entries) | Kind::Whole(entries) => Kind::Whole(entries.clone()),
                Kind::Branch(below) => Kind::Branch(below.clone()),
            },
            _ => return,
        };
        *node = Arc::new(Node::new(below, epoch));
    }
}

impl Entry {
    /// Returns the entry that a tree object describes.
    pub(super) fn from_treeobj(object: TreeObj, epoch: u32) -> Self {
        match object {
            TreeObj::Val(bytes) => Entry::Value(Value::new(bytes, epoch)),
            TreeObj::ValRef(refs) => Entry::Value(Value::from_refs(&refs)),
            TreeObj::DirRef(blobref) => Entry::Dir(Dir::There(blobref)),
            TreeObj::Symlink(link) => Entry::Link(Arc::new(link)),
            TreeObj::Dir(dir) => {
                let entries = dir
                    .into_iter()
                    .map(|(name, object)| (Name::from(name), Entry::from_treeobj(object, epoch)));
                Entry::Dir(Dir::Here(Dir::build(entries.collect(), epoch)))
            }
        }
    }

    /// Returns the tree object of a directory entry: a directory as dirref, a long value as valref.
    pub(super) fn to_treeobj(&self, hash: HashType) -> TreeObj {
        match self {
            Entry::Value(Value::Inline(bytes)) => TreeObj::Val(bytes.clone()),
            Entry::Value(value) => {
                TreeObj::ValRef(value.chunks().iter().map(|chunk| chunk.blobref(hash)).collect())
            }
            Entry::Dir(dir) => TreeObj::DirRef(dir.blobref(hash)),
            Entry::Link(link) => TreeObj::Symlink(link.as_ref().clone()),
        }
    }
}
