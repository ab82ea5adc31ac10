//! How is an object of the KVS tree written? (RFC 11 tree objects, version 1.)
//!
//! Encoding is canonical (sorted keys, no white space): equal objects have equal blobrefs, in flux-core too.

mod decode;
mod key;

pub use key::{KeyError, components, join_key, normalize_key};

use std::collections::BTreeMap;
use std::collections::btree_map;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::blobref::{BlobRef, HashType};

/// The only version of the format.
pub const VERSION: u32 = 1;

/// A tree object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeObj {
    /// A value.
    Val(Bytes),
    /// A value that is the concatenation of blobs.
    ValRef(Vec<BlobRef>),
    /// A directory.
    Dir(Dir),
    /// A blob that holds an encoded directory.
    DirRef(BlobRef),
    /// Another key stands here.
    Symlink(Symlink),
}

/// The target of a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symlink {
    /// Key that stands in place of the link.
    pub target: String,
    /// Namespace of the target; `None` is the namespace of the link.
    pub namespace: Option<String>,
}

/// A directory: names in ascending byte order to tree objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dir {
    entries: BTreeMap<String, TreeObj>,
}

/// Why bytes are not a tree object.
#[derive(Debug, thiserror::Error)]
pub enum TreeObjError {
    /// Not JSON, or not of the shape of RFC 11.
    #[error("invalid tree object")]
    Json(#[from] serde_json::Error),
    /// The object is a tree object of another type than the place needs.
    #[error("tree object is a {found}, not a {wanted}")]
    Type {
        /// What was expected.
        wanted: &'static str,
        /// What is there.
        found: &'static str,
    },
}

impl TreeObj {
    /// Returns the empty directory.
    pub fn empty_dir() -> Self {
        TreeObj::Dir(Dir::default())
    }

    /// Returns a symbolic link.
    pub fn symlink(namespace: Option<&str>, target: &str) -> Self {
        TreeObj::Symlink(Symlink {
            target: target.to_owned(),
            namespace: namespace.map(str::to_owned),
        })
    }

    /// Returns true when the object, or one inside it, names blobs.
    pub fn refers(&self) -> bool {
        match self {
            TreeObj::ValRef(_) | TreeObj::DirRef(_) => true,
            TreeObj::Dir(dir) => dir.iter().any(|(_, object)| object.refers()),
            TreeObj::Val(_) | TreeObj::Symlink(_) => false,
        }
    }

    /// Returns the name of the type as RFC 11 spells it.
    pub fn type_name(&self) -> &'static str {
        match self {
            TreeObj::Val(_) => "val",
            TreeObj::ValRef(_) => "valref",
            TreeObj::Dir(_) => "dir",
            TreeObj::DirRef(_) => "dirref",
            TreeObj::Symlink(_) => "symlink",
        }
    }

    /// Decodes JSON.
    ///
    /// # Errors
    /// [`TreeObjError::Json`] for anything that RFC 11 does not allow, including names of directory entries that
    /// hold a dot or are empty, and directories nested more than 60 levels deep in one object.
    pub fn decode(json: &[u8]) -> Result<Self, TreeObjError> {
        Ok(serde_json::from_slice(json)?)
    }

    /// Decodes a blob that a dirref names.
    ///
    /// # Errors
    /// Like [`TreeObj::decode`], and [`TreeObjError::Type`] for another type than dir.
    pub fn decode_dir(json: &[u8]) -> Result<Dir, TreeObjError> {
        match TreeObj::decode(json)? {
            TreeObj::Dir(dir) => Ok(dir),
            other => Err(TreeObjError::Type {
                wanted: "dir",
                found: other.type_name(),
            }),
        }
    }

    /// Returns canonical JSON.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        self.encode_to(&mut out);
        out
    }

    /// Appends canonical JSON.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        match self {
            TreeObj::Val(value) => encode_val(out, value),
            TreeObj::ValRef(refs) => encode_refs(out, refs, b"valref"),
            TreeObj::DirRef(blobref) => encode_refs(out, std::slice::from_ref(blobref), b"dirref"),
            TreeObj::Dir(dir) => dir.encode_to(out),
            TreeObj::Symlink(link) => {
                out.extend_from_slice(b"{\"data\":{");
                if let Some(namespace) = &link.namespace {
                    out.extend_from_slice(b"\"namespace\":");
                    push_string(out, namespace);
                    out.push(b',');
                }
                out.extend_from_slice(b"\"target\":");
                push_string(out, &link.target);
                out.extend_from_slice(b"},\"type\":\"symlink\",\"ver\":1}");
            }
        }
    }

    /// Returns the name of the encoded object in a content store.
    pub fn blobref(&self, hash: HashType) -> BlobRef {
        BlobRef::compute(hash, &self.encode())
    }
}

fn encode_val(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(b"{\"data\":\"");
    let start = out.len();
    out.resize(start + value.len().div_ceil(3) * 4, 0);
    let size = out
        .get_mut(start..)
        .and_then(|room| STANDARD.encode_slice(value, room).ok())
        .unwrap_or(0);
    out.truncate(start + size);
    out.extend_from_slice(b"\",\"type\":\"val\",\"ver\":1}");
}

fn encode_refs(out: &mut Vec<u8>, refs: &[BlobRef], type_name: &[u8]) {
    use std::io::Write;
    out.extend_from_slice(b"{\"data\":[");
    for (index, blobref) in refs.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        // Writing to a vector does not fail.
        let _written = write!(out, "\"{blobref}\"");
    }
    out.extend_from_slice(b"],\"type\":\"");
    out.extend_from_slice(type_name);
    out.extend_from_slice(b"\",\"ver\":1}");
}

/// Appends a JSON string; plain text costs one copy.
fn push_string(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|c| c >= 0x20 && c != b'"' && c != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else if let Ok(quoted) = serde_json::to_string(text) {
        out.extend_from_slice(quoted.as_bytes());
    }
}

impl Dir {
    /// Returns the empty directory.
    pub const fn new() -> Self {
        Dir {
            entries: BTreeMap::new(),
        }
    }

    /// Returns the entry `name`.
    pub fn get(&self, name: &str) -> Option<&TreeObj> {
        self.entries.get(name)
    }

    /// Returns the entry `name` for change.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut TreeObj> {
        self.entries.get_mut(name)
    }

    /// Sets the entry `name` and returns what was there; refuses names with dots and the empty name.
    ///
    /// # Errors
    /// [`KeyError::Name`].
    pub fn insert(&mut self, name: impl Into<String>, object: TreeObj) -> Result<Option<TreeObj>, KeyError> {
        let name = name.into();
        if name.is_empty() || name.contains('.') {
            return Err(KeyError::Name);
        }
        Ok(self.entries.insert(name, object))
    }

    /// Removes the entry `name` and returns it.
    pub fn remove(&mut self, name: &str) -> Option<TreeObj> {
        self.entries.remove(name)
    }

    /// Returns the entries in ascending byte order of their names.
    pub fn iter(&self) -> btree_map::Iter<'_, String, TreeObj> {
        self.entries.iter()
    }

    /// Returns the entries for change.
    pub fn iter_mut(&mut self) -> btree_map::IterMut<'_, String, TreeObj> {
        self.entries.iter_mut()
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true without entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Appends the directory object as canonical JSON.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"data\":{");
        for (index, (name, object)) in self.entries.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            push_string(out, name);
            out.push(b':');
            object.encode_to(out);
        }
        out.extend_from_slice(b"},\"type\":\"dir\",\"ver\":1}");
    }

    /// Returns the directory object as canonical JSON.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.entries.len() * 100);
        self.encode_to(&mut out);
        out
    }
}

impl<'a> IntoIterator for &'a Dir {
    type Item = (&'a String, &'a TreeObj);
    type IntoIter = btree_map::Iter<'a, String, TreeObj>;
    fn into_iter(self) -> Self::IntoIter {
        self.entries.iter()
    }
}

impl IntoIterator for Dir {
    type Item = (String, TreeObj);
    type IntoIter = btree_map::IntoIter<String, TreeObj>;
    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl Serialize for TreeObj {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        match self {
            TreeObj::Val(value) => map.serialize_entry("data", &STANDARD.encode(value))?,
            TreeObj::ValRef(refs) => map.serialize_entry("data", refs)?,
            TreeObj::DirRef(blobref) => map.serialize_entry("data", &[blobref])?,
            TreeObj::Dir(dir) => map.serialize_entry("data", &dir.entries)?,
            TreeObj::Symlink(link) => {
                let mut data = BTreeMap::new();
                data.extend(link.namespace.as_ref().map(|namespace| ("namespace", namespace)));
                data.insert("target", &link.target);
                map.serialize_entry("data", &data)?;
            }
        }
        map.serialize_entry("type", self.type_name())?;
        map.serialize_entry("ver", &VERSION)?;
        map.end()
    }
}

#[cfg(test)]
mod tests;
