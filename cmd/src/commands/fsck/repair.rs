//! How is a damaged KVS tree mended? Damaged keys leave their place, what is left of them goes below `lost+found`.

use flux_client::Handle;
use flux_formats::blobref::{BlobRef, HashType};
use flux_formats::treeobj::{Dir, TreeObj};

use crate::common::blob::{Door, load_start, store_finish, store_start};
use crate::common::error::{CmdError, chain, fail};

/// Where damaged keys go.
const LOST_AND_FOUND: &str = "lost+found";

/// A change of the tree.
#[derive(Debug)]
pub(super) struct Fix {
    /// Key that leaves its place.
    pub(super) path: String,
    /// What is left of it; `None` when nothing is.
    pub(super) replacement: Option<TreeObj>,
}

/// A tree in which the directories on the way to changes are in memory.
#[derive(Debug)]
pub(super) struct Tree {
    root: Dir,
}

/// Loads a directory object.
fn load(handle: &mut Handle, what: &str, blobref: &BlobRef) -> Result<Dir, CmdError> {
    let rpc = load_start(handle, Door::Backing, blobref)?;
    let message = handle.wait(&rpc).map_err(CmdError::doing(what))?;
    TreeObj::decode_dir(&message.payload.unwrap_or_default())
        .or_else(|err| fail(format!("{what}: {}", chain(&err))))
}

/// Returns the directory `name` of `dir` in memory, loading or making it.
fn enter<'d>(handle: &mut Handle, dir: &'d mut Dir, name: &str) -> Result<&'d mut Dir, CmdError> {
    let inner = match dir.get(name) {
        Some(TreeObj::Dir(_)) => None,
        Some(TreeObj::DirRef(blobref)) => Some(load(handle, name, &blobref.clone())?),
        // anything else in the place of a directory gives way
        _ => Some(Dir::new()),
    };
    if let Some(inner) = inner {
        dir.insert(name, TreeObj::Dir(inner))
            .or_else(|err| fail(format!("{name}: {err}")))?;
    }
    match dir.get_mut(name) {
        Some(TreeObj::Dir(inner)) => Ok(inner),
        _ => fail(format!("{name}: not a directory")),
    }
}

impl Tree {
    /// Loads the root.
    pub(super) fn open(handle: &mut Handle, root: &BlobRef) -> Result<Self, CmdError> {
        Ok(Tree {
            root: load(handle, "root directory", root)?,
        })
    }

    /// Takes a key out of its place and puts what is left of it below `lost+found`.
    pub(super) fn apply(&mut self, handle: &mut Handle, fix: Fix) -> Result<(), CmdError> {
        if let Some(object) = fix.replacement {
            self.put_lost(handle, &fix.path, object)?;
        }
        let (dir, name) = self.place(handle, &fix.path)?;
        dir.remove(name);
        Ok(())
    }

    /// Moves a directory with all that can be read of it below `lost+found`; false when it is not there.
    pub(super) fn move_to_lost_and_found(
        &mut self,
        handle: &mut Handle,
        path: &str,
    ) -> Result<bool, CmdError> {
        let (dir, name) = self.place(handle, path)?;
        let Some(object) = dir.remove(name) else {
            return Ok(false);
        };
        self.merge_lost(handle, path, object)?;
        Ok(true)
    }

    /// Adds an object below `lost+found` to what may be there already.
    fn merge_lost(&mut self, handle: &mut Handle, path: &str, object: TreeObj) -> Result<(), CmdError> {
        let dir = match object {
            TreeObj::Dir(dir) => dir,
            TreeObj::DirRef(blobref) => load(handle, path, &blobref)?,
            other => return self.put_lost(handle, path, other),
        };
        for (name, object) in dir {
            self.merge_lost(handle, &format!("{path}.{name}"), object)?;
        }
        Ok(())
    }

    fn put_lost(&mut self, handle: &mut Handle, path: &str, object: TreeObj) -> Result<(), CmdError> {
        let path = format!("{LOST_AND_FOUND}.{path}");
        let (dir, name) = self.place(handle, &path)?;
        dir.insert(name, object)
            .or_else(|err| fail(format!("{path}: {err}")))?;
        Ok(())
    }

    /// Returns the directory in which a key stands, and its last name.
    fn place<'t, 'p>(
        &'t mut self,
        handle: &mut Handle,
        path: &'p str,
    ) -> Result<(&'t mut Dir, &'p str), CmdError> {
        let (parents, name) = path.rsplit_once('.').unwrap_or(("", path));
        let mut dir = &mut self.root;
        for parent in parents.split('.').filter(|name| !name.is_empty()) {
            dir = enter(handle, dir, parent)?;
        }
        Ok((dir, name))
    }

    /// Stores every directory that is in memory and returns the root's name.
    pub(super) fn store(mut self, handle: &mut Handle, hash: HashType) -> Result<BlobRef, CmdError> {
        store_below(handle, hash, &mut self.root)
    }
}

fn store_below(handle: &mut Handle, hash: HashType, dir: &mut Dir) -> Result<BlobRef, CmdError> {
    for (_, object) in dir.iter_mut() {
        if let TreeObj::Dir(inner) = object {
            *object = TreeObj::DirRef(store_below(handle, hash, inner)?);
        }
    }
    let rpc = store_start(handle, Door::Backing, dir.encode().into())?;
    store_finish(handle, &rpc, hash)
}
