//! Where does a key lead? (RFC 11; flux-core: modules/kvs/lookup.c, behaviour)

use super::node::{Dir, Entry, Fetch, Name, Stop};
use super::value::Value;
use bytes::Bytes;
use flux_formats::blobref::{BlobRef, HashType};
use flux_formats::errno;
use flux_formats::treeobj::{TreeObj, components};

/// Deepest nesting of links.
pub(super) const LINKS_MAX: usize = 10;

/// What a walk may ask for.
pub(super) trait World: Fetch {
    /// Returns the root of another namespace, for a link into it.
    ///
    /// # Errors
    /// ENOTSUP when it does not exist, EPERM when the requester may not look into it.
    fn root(&self, namespace: &str) -> Result<Dir, Stop>;

    /// Returns a blob that was loaded for this request.
    fn blob(&self, blobref: &BlobRef) -> Option<Bytes>;
}

/// Walks `key` from `root`. Links on the way are followed; one at the end only with `follow`.
///
/// Returns `None` when there is no such key, which includes a way through a value.
///
/// # Errors
/// ELOOP, those of [`World::root`], and missing nodes.
pub(super) fn walk(root: &Dir, key: &str, follow: bool, world: &dyn World) -> Result<Option<Entry>, Stop> {
    // names still to go, the next one last; with the number left when each followed link will be done
    let mut names: Vec<String> = components(key).rev().map(str::to_owned).collect();
    let mut links: Vec<usize> = Vec::new();
    let mut root = root.clone();
    let mut here = Entry::Dir(root.clone());
    while let Some(name) = names.pop() {
        let Entry::Dir(dir) = &here else { return Ok(None) };
        let Some(entry) = dir.get(&name, world)? else {
            return Ok(None);
        };
        while links.last().is_some_and(|left| names.len() < *left) {
            links.pop();
        }
        let Entry::Link(link) = &entry else {
            here = entry;
            continue;
        };
        if names.is_empty() && !follow {
            return Ok(Some(entry));
        }
        if links.len() == LINKS_MAX {
            return Err(Stop::Errno(errno::ELOOP));
        }
        if let Some(namespace) = &link.namespace {
            root = world.root(namespace)?;
        }
        links.push(names.len());
        names.extend(components(&link.target).rev().map(str::to_owned));
        here = Entry::Dir(root.clone());
    }
    Ok(Some(here))
}

/// Bits of the flags of `kvs.lookup` and `kvs-watch.lookup`.
pub(super) mod flags {
    pub(in super::super) const READDIR: u32 = 1;
    pub(in super::super) const READLINK: u32 = 2;
    pub(in super::super) const WATCH: u32 = 4;
    pub(in super::super) const WAITCREATE: u32 = 8;
    pub(in super::super) const TREEOBJ: u32 = 16;
    pub(in super::super) const WATCH_FULL: u32 = 64;
    pub(in super::super) const WATCH_UNIQ: u32 = 128;
    pub(in super::super) const WATCH_APPEND: u32 = 256;
    pub(in super::super) const STREAM: u32 = 512;
    pub(in super::super) const INITIAL_SENTINEL: u32 = 1024;
}

/// What a lookup found, in the form that its flags ask for.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// An object as it is.
    Object(TreeObj),
    /// The encoded directory object.
    Directory(Bytes),
    /// A value.
    Value(Bytes),
}

impl Found {
    /// Appends the tree object as JSON.
    pub(super) fn encode_to(&self, out: &mut Vec<u8>) {
        match self {
            Found::Object(object) => object.encode_to(out),
            Found::Directory(json) => out.extend_from_slice(json),
            Found::Value(bytes) => TreeObj::Val(bytes.clone()).encode_to(out),
        }
    }
}

/// Looks `key` up; `None` when it does not exist.
///
/// # Errors
/// Those of [`walk`], EISDIR, ENOTDIR, EINVAL for READLINK on something else, missing nodes and blobs.
pub(super) fn lookup(
    root: &Dir,
    key: &str,
    bits: u32,
    hash: HashType,
    world: &dyn World,
) -> Result<Option<Found>, Stop> {
    let follow = bits & (flags::READLINK | flags::TREEOBJ) == 0;
    let Some(entry) = walk(root, key, follow, world)? else {
        return Ok(None);
    };
    if bits & flags::TREEOBJ != 0 {
        return Ok(Some(Found::Object(entry.to_treeobj(hash))));
    }
    match entry {
        // the root has no READLINK error of its own
        Entry::Dir(_) if bits & flags::READLINK != 0 && components(key).next().is_some() => {
            Err(Stop::Errno(errno::EINVAL))
        }
        Entry::Dir(_) if bits & flags::READDIR == 0 => Err(Stop::Errno(errno::EISDIR)),
        Entry::Dir(dir) => {
            let entries = list(&dir, world)?;
            Ok(Some(Found::Directory(
                super::blob::encode_object(&entries, hash).into(),
            )))
        }
        Entry::Value(_) if bits & flags::READLINK != 0 => Err(Stop::Errno(errno::EINVAL)),
        Entry::Value(_) if bits & flags::READDIR != 0 => Err(Stop::Errno(errno::ENOTDIR)),
        Entry::Value(value) => read(&value, 0, hash, world).map(|bytes| Some(Found::Value(bytes))),
        Entry::Link(link) => Ok(Some(Found::Object(TreeObj::Symlink(link.as_ref().clone())))),
    }
}

/// Returns the bytes of a value from `offset` on.
pub(super) fn read(value: &Value, offset: usize, hash: HashType, world: &dyn World) -> Result<Bytes, Stop> {
    value
        .read(offset, &|blobref| world.blob(blobref), hash)
        .map_err(Stop::blobs)
}

/// Returns the entries of a directory in order.
pub(super) fn list(dir: &Dir, fetch: &dyn Fetch) -> Result<Vec<(Name, Entry)>, Stop> {
    let mut entries = Vec::new();
    dir.entries(fetch, &mut entries)?;
    Ok(entries)
}
