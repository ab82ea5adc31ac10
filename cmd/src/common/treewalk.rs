//! What is in a KVS tree? A walk over the content store that keeps many loads in flight.

use std::collections::VecDeque;

use bytes::Bytes;
use flux_client::{Error, Handle, Message, Rpc, RpcError};
use flux_formats::blobref::BlobRef;
use flux_formats::treeobj::{Dir, Symlink, TreeObj};

use super::blob::{Door, load_start};
use super::error::CmdError;

/// Blobs of one value that are asked for at once.
const VALUE_WINDOW: usize = 256;

/// What is wrong with a directory.
#[derive(Debug)]
pub(crate) enum BadDir {
    /// Its blob cannot be loaded.
    Load(RpcError),
    /// Its blob is not a directory object; the text says what it is.
    Malformed(String),
}

impl std::fmt::Display for BadDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BadDir::Load(err) => write!(f, "missing blobref: {}", err.message()),
            BadDir::Malformed(text) => write!(f, "invalid directory object: {text}"),
        }
    }
}

/// What a walk finds. Paths have the separator of the walk.
pub(crate) trait Visitor {
    /// Any object, before what it refers to is looked at.
    fn object(&mut self, _path: &str, _object: &TreeObj) {}

    /// A directory that is a blob; false leaves it out.
    fn descend(&mut self, _path: &str, _blobref: &BlobRef) -> bool {
        true
    }

    /// Whether blobs of values are asked for at all.
    fn wants_values(&self) -> bool {
        true
    }

    /// Returns the request for a blob of a value, which decides what `blobs` are.
    ///
    /// # Errors
    /// Those of the connection.
    fn request(&mut self, handle: &mut Handle, door: Door, blobref: &BlobRef) -> Result<Rpc, Error> {
        load_start(handle, door, blobref)
    }

    /// A value that stands in its directory.
    ///
    /// # Errors
    /// Whatever ends the walk.
    fn value(&mut self, _path: &str, _data: &Bytes) -> Result<(), CmdError> {
        Ok(())
    }

    /// A value of blobs, and what was answered for each.
    ///
    /// # Errors
    /// Whatever ends the walk.
    fn blobs(
        &mut self,
        _path: &str,
        _blobrefs: &[BlobRef],
        _answers: Vec<Result<Message, RpcError>>,
    ) -> Result<(), CmdError> {
        Ok(())
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// Whatever ends the walk.
    fn symlink(&mut self, _path: &str, _link: &Symlink) -> Result<(), CmdError> {
        Ok(())
    }

    /// A directory without entries.
    ///
    /// # Errors
    /// Whatever ends the walk.
    fn empty_dir(&mut self, _path: &str) -> Result<(), CmdError> {
        Ok(())
    }

    /// A directory that cannot be read.
    ///
    /// # Errors
    /// Whatever ends the walk.
    fn bad_dir(&mut self, path: &str, blobref: &BlobRef, why: BadDir) -> Result<(), CmdError>;
}

/// Settings of a walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    /// What stands between names in paths.
    pub(crate) separator: char,
    /// Most loads in flight.
    pub(crate) window: usize,
    /// Where blobs are loaded from.
    pub(crate) door: Door,
}

enum Item {
    Dir(String, BlobRef),
    Value(String, Vec<BlobRef>),
}

struct Walker<'a, V> {
    handle: &'a mut Handle,
    visitor: &'a mut V,
    walk: Walk,
    stack: Vec<Item>,
    pending: VecDeque<(Item, Vec<Rpc>)>,
}

/// Walks the tree below the directory object `root`, whose path is empty; directories are entered after what stands
/// beside them.
///
/// # Errors
/// Those of the connection, and those that the visitor returns.
pub(crate) fn walk<V: Visitor>(
    handle: &mut Handle,
    root: &BlobRef,
    walk: Walk,
    visitor: &mut V,
) -> Result<(), CmdError> {
    let mut walker = Walker {
        handle,
        visitor,
        walk,
        stack: vec![Item::Dir(String::new(), *root)],
        pending: VecDeque::new(),
    };
    walker.run()
}

impl<V: Visitor> Walker<'_, V> {
    fn run(&mut self) -> Result<(), CmdError> {
        loop {
            while self.pending.len() < self.walk.window.max(1) {
                match self.stack.pop() {
                    Some(item) => self.start(item)?,
                    None => break,
                }
            }
            match self.pending.pop_front() {
                Some((Item::Dir(path, blobref), rpcs)) => self.dir_done(&path, &blobref, &rpcs)?,
                Some((Item::Value(path, blobrefs), rpcs)) => self.value_done(&path, &blobrefs, rpcs)?,
                None => return Ok(()),
            }
        }
    }

    fn start(&mut self, item: Item) -> Result<(), CmdError> {
        let mut rpcs = Vec::new();
        match &item {
            Item::Dir(path, blobref) => {
                if !self.visitor.descend(path, blobref) {
                    return Ok(());
                }
                rpcs.push(load_start(self.handle, self.walk.door, blobref)?);
            }
            Item::Value(_, blobrefs) => {
                for blobref in blobrefs.iter().take(VALUE_WINDOW) {
                    rpcs.push(self.visitor.request(self.handle, self.walk.door, blobref)?);
                }
            }
        }
        self.pending.push_back((item, rpcs));
        Ok(())
    }

    fn value_done(&mut self, path: &str, blobrefs: &[BlobRef], mut rpcs: Vec<Rpc>) -> Result<(), CmdError> {
        let mut answers = Vec::with_capacity(blobrefs.len());
        loop {
            for rpc in &rpcs {
                answers.push(match self.handle.wait(rpc) {
                    Ok(message) => Ok(message),
                    Err(Error::Rpc(err)) => Err(err),
                    Err(err) => return Err(err.into()),
                });
            }
            rpcs.clear();
            for blobref in blobrefs.iter().skip(answers.len()).take(VALUE_WINDOW) {
                rpcs.push(self.visitor.request(self.handle, self.walk.door, blobref)?);
            }
            if rpcs.is_empty() {
                return self.visitor.blobs(path, blobrefs, answers);
            }
        }
    }

    fn dir_done(&mut self, path: &str, blobref: &BlobRef, rpcs: &[Rpc]) -> Result<(), CmdError> {
        let Some(rpc) = rpcs.first() else { return Ok(()) };
        let message = match self.handle.wait(rpc) {
            Ok(message) => message,
            Err(Error::Rpc(err)) => return self.visitor.bad_dir(path, blobref, BadDir::Load(err)),
            Err(err) => return Err(err.into()),
        };
        match TreeObj::decode_dir(&message.payload.unwrap_or_default()) {
            Ok(dir) => self.directory(path, &dir),
            Err(err) => {
                let text = super::error::chain(&err);
                self.visitor.bad_dir(path, blobref, BadDir::Malformed(text))
            }
        }
    }

    fn directory(&mut self, path: &str, dir: &Dir) -> Result<(), CmdError> {
        if dir.is_empty() && !path.is_empty() {
            return self.visitor.empty_dir(path);
        }
        for (name, object) in dir {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}{}{name}", self.walk.separator)
            };
            self.visitor.object(&path, object);
            match object {
                TreeObj::Val(data) => self.visitor.value(&path, data)?,
                TreeObj::ValRef(blobrefs) if self.visitor.wants_values() => {
                    self.stack.push(Item::Value(path, blobrefs.clone()));
                }
                TreeObj::ValRef(_) => {}
                TreeObj::Dir(inner) => self.directory(&path, inner)?,
                TreeObj::DirRef(blobref) => self.stack.push(Item::Dir(path, *blobref)),
                TreeObj::Symlink(link) => self.visitor.symlink(&path, link)?,
            }
        }
        Ok(())
    }
}
