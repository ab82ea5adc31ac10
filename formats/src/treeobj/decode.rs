//! How is a tree object read in one pass, although `data` may come before the `type` that explains it?

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Dir, Symlink, TreeObj, VERSION};
use crate::blobref::BlobRef;

/// What `data` may hold, whatever the type turns out to be.
enum Data {
    Value(Bytes),
    Refs(Vec<BlobRef>),
    /// Entries of a directory.
    Entries(BTreeMap<String, TreeObj>),
    /// Fields of a symbolic link.
    Fields(Symlink),
    /// `{}`, which only a directory may have.
    Empty,
}

impl<'de> Deserialize<'de> for TreeObj {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = TreeObj;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tree object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TreeObj, A::Error> {
        let (mut data, mut kind, mut version) = (None, None, None);
        while let Some(Text(key)) = map.next_key()? {
            match key.as_ref() {
                "data" => data = Some(map.next_value::<Data>()?),
                "type" => kind = Some(map.next_value::<Text<'de>>()?),
                "ver" => version = Some(map.next_value::<u32>()?),
                other => {
                    return Err(A::Error::custom(format_args!(
                        "unknown key {other:?} in tree object"
                    )));
                }
            }
        }
        if version.ok_or_else(|| A::Error::missing_field("ver"))? != VERSION {
            return Err(A::Error::custom("tree object version is not 1"));
        }
        let kind = kind.ok_or_else(|| A::Error::missing_field("type"))?.0;
        let data = data.ok_or_else(|| A::Error::missing_field("data"))?;
        match (kind.as_ref(), data) {
            ("val", Data::Value(value)) => Ok(TreeObj::Val(value)),
            ("valref", Data::Refs(refs)) => Ok(TreeObj::ValRef(refs)),
            ("dirref", Data::Refs(refs)) => match refs.as_slice() {
                [blobref] => Ok(TreeObj::DirRef(*blobref)),
                _ => Err(A::Error::invalid_length(refs.len(), &"one blobref")),
            },
            ("dir", Data::Entries(entries)) => Ok(TreeObj::Dir(Dir { entries })),
            ("dir", Data::Empty) => Ok(TreeObj::empty_dir()),
            ("symlink", Data::Fields(link)) => Ok(TreeObj::Symlink(link)),
            (kind, _) => Err(A::Error::custom(format_args!(
                "data does not fit tree object type {kind:?}"
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the data of a tree object")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Data, E> {
        STANDARD
            .decode(text)
            .map(|value| Data::Value(value.into()))
            .map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Data, A::Error> {
        let mut refs = Vec::new();
        while let Some(blobref) = seq.next_element()? {
            refs.push(blobref);
        }
        Ok(Data::Refs(refs))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Data, A::Error> {
        let mut entries = BTreeMap::new();
        let (mut target, mut namespace) = (None, None);
        while let Some(Text(name)) = map.next_key()? {
            match (map.next_value::<Entry>()?, name.as_ref()) {
                (Entry::Text(text), "target") => target = Some(text),
                (Entry::Text(text), "namespace") => namespace = Some(text),
                (Entry::Object(object), _) if !name.is_empty() && !name.contains('.') => {
                    entries.insert(name.into_owned(), object);
                }
                _ => {
                    return Err(A::Error::custom(format_args!(
                        "bad entry {name:?} in tree object"
                    )));
                }
            }
        }
        match (entries.is_empty(), target, namespace) {
            (true, Some(target), namespace) => Ok(Data::Fields(Symlink { target, namespace })),
            (true, None, None) => Ok(Data::Empty),
            (false, None, None) => Ok(Data::Entries(entries)),
            _ => Err(A::Error::custom("bad fields of a symlink")),
        }
    }
}

/// What a member of an object-valued `data` may be.
enum Entry {
    Text(String),
    Object(TreeObj),
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tree object or a field of a symlink")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Entry, E> {
        Ok(Entry::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
        ObjectVisitor.visit_map(map).map(Entry::Object)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entry, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Err(A::Error::custom("array in the place of a tree object"))
    }
}

/// A string that borrows from the input when it holds no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}
