//! How does a client read and change the key-value store? (`kvs.*`, `kvs-watch.lookup`; values are RFC 11 objects)

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flux_formats::msg::NODEID_ANY;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Error, Handle, Rpc};

/// Bits of the flags in lookup and commit requests.
pub mod flags {
    /// Lookup: the key must be a directory.
    pub const READDIR: u32 = 1;
    /// Lookup: the key must be a symlink.
    pub const READLINK: u32 = 2;
    /// Lookup: answer again at every change.
    pub const WATCH: u32 = 4;
    /// Lookup: wait until the key exists.
    pub const WAITCREATE: u32 = 8;
    /// Lookup: answer with the tree object as it is.
    pub const TREEOBJ: u32 = 16;
    /// Operation: append to the value.
    pub const APPEND: u32 = 32;
    /// Watch: compare the full value, not only the key's path.
    pub const WATCH_FULL: u32 = 64;
    /// Watch: answer only when the value differs from the last one.
    pub const WATCH_UNIQ: u32 = 128;
    /// Watch: answer only what was appended.
    pub const WATCH_APPEND: u32 = 256;
    /// Lookup: answer the value blob by blob.
    pub const STREAM: u32 = 512;
    /// Commit: do not merge with other transactions.
    pub const NO_MERGE: u32 = 1;
    /// Commit: answer only when the root is on stable storage.
    pub const SYNC: u32 = 4;
}

/// Name of the namespace used when none is given: `FLUX_KVS_NAMESPACE`, else `primary`.
pub fn default_namespace() -> String {
    match std::env::var("FLUX_KVS_NAMESPACE") {
        Ok(name) if !name.is_empty() => name,
        _ => "primary".to_owned(),
    }
}

/// A list of changes that take effect together.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Transaction {
    ops: Vec<Operation>,
}

#[derive(Debug, Clone, Serialize)]
struct Operation {
    key: String,
    flags: u32,
    dirent: Option<Value>,
}

impl Transaction {
    /// Returns an empty transaction.
    pub fn new() -> Self {
        Transaction::default()
    }

    /// Returns true when nothing would change.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Sets `key` to raw bytes.
    pub fn put_raw(&mut self, key: impl Into<String>, value: &[u8]) -> &mut Self {
        self.put_treeobj(key, val_object(value))
    }

    /// Sets `key` to text; JSON values are put as their text.
    pub fn put(&mut self, key: impl Into<String>, value: &str) -> &mut Self {
        self.put_raw(key, value.as_bytes())
    }

    /// Appends bytes to the value of `key`, as eventlogs grow.
    pub fn append(&mut self, key: impl Into<String>, value: &[u8]) -> &mut Self {
        self.push(key.into(), flags::APPEND, Some(val_object(value)))
    }

    /// Sets `key` to a tree object.
    pub fn put_treeobj(&mut self, key: impl Into<String>, object: Value) -> &mut Self {
        self.push(key.into(), 0, Some(object))
    }

    /// Makes `key` an empty directory.
    pub fn mkdir(&mut self, key: impl Into<String>) -> &mut Self {
        self.put_treeobj(key, json!({"data": {}, "type": "dir", "ver": 1}))
    }

    /// Makes `key` a link to `target`, in `namespace` when given.
    pub fn symlink(&mut self, key: impl Into<String>, target: &str, namespace: Option<&str>) -> &mut Self {
        let data = match namespace {
            Some(namespace) => json!({"namespace": namespace, "target": target}),
            None => json!({"target": target}),
        };
        self.put_treeobj(key, json!({"data": data, "type": "symlink", "ver": 1}))
    }

    /// Removes `key` and what is below it; a missing key is no error.
    pub fn unlink(&mut self, key: impl Into<String>) -> &mut Self {
        self.push(key.into(), 0, None)
    }

    fn push(&mut self, key: String, flags: u32, dirent: Option<Value>) -> &mut Self {
        self.ops.push(Operation { key, flags, dirent });
        self
    }
}

/// Returns the `val` tree object that holds `bytes`.
pub fn val_object(bytes: &[u8]) -> Value {
    json!({"data": BASE64.encode(bytes), "type": "val", "ver": 1})
}

/// The root after a commit.
#[derive(Debug, Clone, Deserialize)]
pub struct Committed {
    /// Blobref of the new root directory.
    pub rootref: String,
    /// Version of the namespace.
    pub rootseq: i64,
}

/// The root of a namespace.
#[derive(Debug, Clone, Deserialize)]
pub struct Root {
    /// User who owns the namespace.
    pub owner: u32,
    /// Version of the namespace.
    pub rootseq: i64,
    /// Blobref of the root directory.
    pub rootref: String,
}

#[derive(Serialize)]
struct CommitRequest<'a> {
    namespace: &'a str,
    flags: u32,
    ops: &'a [Operation],
}

/// Queues a commit; [`Handle::get`] takes the [`Committed`].
///
/// # Errors
/// As [`Handle::rpc`].
pub fn commit_start(
    handle: &mut Handle,
    namespace: &str,
    flags: u32,
    transaction: &Transaction,
) -> Result<Rpc, Error> {
    handle.rpc(
        "kvs.commit",
        NODEID_ANY,
        &CommitRequest {
            namespace,
            flags,
            ops: &transaction.ops,
        },
    )
}

/// Commits a transaction and waits for the new root.
///
/// # Errors
/// As [`Handle::call`]; EPERM in a namespace of someone else.
pub fn commit(
    handle: &mut Handle,
    namespace: &str,
    flags: u32,
    transaction: &Transaction,
) -> Result<Committed, Error> {
    let rpc = commit_start(handle, namespace, flags, transaction)?;
    handle.get(&rpc)
}

/// Where a lookup starts.
#[derive(Debug, Clone, Copy)]
pub enum From<'a> {
    /// The current root of a namespace.
    Namespace(&'a str),
    /// A snapshot: a directory object as `flux kvs getroot` prints it.
    Root(&'a Value),
}

#[derive(Serialize)]
struct LookupRequest<'a> {
    key: &'a str,
    flags: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rootdir: Option<&'a Value>,
}

#[derive(Deserialize)]
struct LookupResponse {
    val: Value,
}

/// Queues a lookup; [`lookup_finish`] takes the tree object.
///
/// # Errors
/// As [`Handle::rpc`].
pub fn lookup_start(handle: &mut Handle, from: From<'_>, key: &str, flags: u32) -> Result<Rpc, Error> {
    let (namespace, rootdir) = match from {
        From::Namespace(name) => (Some(name), None),
        From::Root(object) => (None, Some(object)),
    };
    let request = LookupRequest {
        key,
        flags,
        namespace,
        rootdir,
    };
    let streams = flags::WATCH | flags::WAITCREATE | flags::STREAM;
    if flags & streams != 0 {
        handle.stream("kvs-watch.lookup", NODEID_ANY, &request)
    } else {
        handle.rpc("kvs.lookup", NODEID_ANY, &request)
    }
}

/// Waits for the (next) answer to [`lookup_start`] and returns the tree object.
///
/// # Errors
/// ENOENT, EISDIR, ENOTDIR, ENOTSUP (unknown namespace), ELOOP, and those of [`Handle::wait`].
pub fn lookup_finish(handle: &mut Handle, rpc: &Rpc) -> Result<Value, Error> {
    Ok(handle.get::<LookupResponse>(rpc)?.val)
}

/// Looks a key up and returns its tree object.
///
/// # Errors
/// As [`lookup_finish`].
pub fn lookup(handle: &mut Handle, from: From<'_>, key: &str, flags: u32) -> Result<Value, Error> {
    let rpc = lookup_start(handle, from, key, flags)?;
    lookup_finish(handle, &rpc)
}

/// Returns the raw value of a key.
///
/// # Errors
/// As [`lookup`], and [`Error::Value`] when the object is no value.
pub fn get(handle: &mut Handle, namespace: &str, key: &str) -> Result<Vec<u8>, Error> {
    let object = lookup(handle, From::Namespace(namespace), key, 0)?;
    value_of(&object).ok_or_else(|| Error::Value { key: key.to_owned() })
}

/// Returns the bytes of a `val` object, or `None` for another type.
pub fn value_of(object: &Value) -> Option<Vec<u8>> {
    if object.get("type")?.as_str()? != "val" {
        return None;
    }
    BASE64.decode(object.get("data")?.as_str()?).ok()
}

/// Returns the root of a namespace.
///
/// # Errors
/// ENOTSUP for an unknown namespace.
pub fn getroot(handle: &mut Handle, namespace: &str) -> Result<Root, Error> {
    handle.call("kvs.getroot", NODEID_ANY, &json!({ "namespace": namespace }))
}

/// Waits until the namespace has reached version `rootseq`, and returns the version it has.
///
/// # Errors
/// ENOTSUP for an unknown namespace.
pub fn wait_version(handle: &mut Handle, namespace: &str, rootseq: i64) -> Result<i64, Error> {
    #[derive(Deserialize)]
    struct Response {
        rootseq: i64,
    }
    let request = json!({ "rootseq": rootseq, "namespace": namespace });
    Ok(handle
        .call::<Response>("kvs.wait-version", NODEID_ANY, &request)?
        .rootseq)
}

/// Stops a watch; its stream then ends with ENODATA.
///
/// # Errors
/// As [`Handle::rpc`].
pub fn watch_cancel(handle: &mut Handle, rpc: &Rpc) -> Result<(), Error> {
    handle.cancel("kvs-watch.cancel", NODEID_ANY, rpc)
}

/// Makes a namespace owned by `owner`; `rootref` "" starts empty.
///
/// # Errors
/// EEXIST.
pub fn namespace_create(
    handle: &mut Handle,
    namespace: &str,
    rootref: &str,
    owner: u32,
) -> Result<(), Error> {
    let request = json!({ "namespace": namespace, "rootref": rootref, "owner": owner, "flags": 0 });
    handle.call::<IgnoredAny>("kvs.namespace-create", 0, &request)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transaction_json() {
        let mut txn = Transaction::new();
        assert!(txn.is_empty());
        txn.put("a.b", "1")
            .append("log", b"x\n")
            .unlink("old")
            .symlink("l", "t", Some("ns"))
            .mkdir("d");
        assert_eq!(
            serde_json::to_string(&txn.ops).unwrap(),
            concat!(
                r#"[{"key":"a.b","flags":0,"dirent":{"data":"MQ==","type":"val","ver":1}},"#,
                r#"{"key":"log","flags":32,"dirent":{"data":"eAo=","type":"val","ver":1}},"#,
                r#"{"key":"old","flags":0,"dirent":null},"#,
                r#"{"key":"l","flags":0,"dirent":{"data":{"namespace":"ns","target":"t"},"type":"symlink","ver":1}},"#,
                r#"{"key":"d","flags":0,"dirent":{"data":{},"type":"dir","ver":1}}]"#
            )
        );
    }

    #[test]
    fn values() {
        assert_eq!(value_of(&val_object(b"hi")), Some(b"hi".to_vec()));
        assert_eq!(value_of(&val_object(b"")), Some(Vec::new()));
        assert_eq!(value_of(&json!({"data": {}, "type": "dir", "ver": 1})), None);
        assert_eq!(value_of(&json!(3)), None);
    }
}
