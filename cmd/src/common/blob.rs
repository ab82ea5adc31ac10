//! How do commands reach the content store? Loads, stores and the KVS root's checkpoints.

use bytes::Bytes;
use flux_client::{Error, Handle, Message, NODEID_ANY, Rpc, attr};
use flux_formats::blobref::{BlobRef, HashType};
use flux_formats::errno;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::error::{CmdError, fail};

/// Which door to the content store is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// The cache of this broker.
    Cache,
    /// The backing store on rank 0.
    Backing,
}

impl Door {
    /// Returns the backing store's door when the cache is to be bypassed.
    pub(crate) fn bypassing(bypass: bool) -> Self {
        if bypass { Door::Backing } else { Door::Cache }
    }

    fn request(self, method: Method, payload: Bytes) -> Message {
        let (topic, nodeid) = match (self, method) {
            (Door::Cache, Method::Load) => ("content.load", NODEID_ANY),
            (Door::Cache, Method::Store) => ("content.store", NODEID_ANY),
            (Door::Backing, Method::Load) => ("content-backing.load", 0),
            (Door::Backing, Method::Store) => ("content-backing.store", 0),
        };
        Message::request(topic, nodeid, Some(payload))
    }
}

#[derive(Clone, Copy)]
enum Method {
    Load,
    Store,
}

/// Queues the load of a blob.
///
/// # Errors
/// Those of the connection.
pub(crate) fn load_start(handle: &mut Handle, door: Door, blobref: &BlobRef) -> Result<Rpc, Error> {
    handle.rpc_message(door.request(Method::Load, Bytes::copy_from_slice(blobref.digest())))
}

/// Queues the store of a blob; [`store_finish`] waits for its name.
///
/// # Errors
/// Those of the connection.
pub(crate) fn store_start(handle: &mut Handle, door: Door, blob: Bytes) -> Result<Rpc, Error> {
    handle.rpc_message(door.request(Method::Store, blob))
}

/// Waits for the name of a stored blob.
///
/// # Errors
/// Those of the store.
pub(crate) fn store_finish(handle: &mut Handle, rpc: &Rpc, hash: HashType) -> Result<BlobRef, CmdError> {
    let message = handle.wait(rpc).map_err(CmdError::doing("error storing blob"))?;
    let digest = message.payload.unwrap_or_default();
    BlobRef::from_digest(hash, &digest).or_else(|err| fail(format!("error storing blob: {err}")))
}

/// Returns the hash that names blobs in this instance.
///
/// # Errors
/// Those of the connection.
pub(crate) fn hash_type(handle: &mut Handle) -> Result<HashType, CmdError> {
    let name = attr::get(handle, "content.hash").map_err(CmdError::doing("content.hash"))?;
    name.parse()
        .or_else(|_| fail(format!("content.hash is {name}, which is not known here")))
}

/// Reads a blobref of the command line.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(word: &str) -> Result<BlobRef, CmdError> {
    word.parse()
        .or_else(|err| fail(format!("invalid blobref '{word}': {err}")))
}

/// A root of the primary namespace that the store remembers.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Checkpoint {
    /// The root directory.
    pub(crate) rootref: BlobRef,
    /// Version of the namespace.
    #[serde(default)]
    pub(crate) sequence: i64,
    /// When it was made, in seconds since 1970.
    #[serde(default)]
    pub(crate) timestamp: f64,
}

/// Returns the checkpoints as the store has them, newest first.
///
/// # Errors
/// ENOENT when there is none yet, and those of the connection.
pub(crate) fn checkpoints_raw(handle: &mut Handle) -> Result<Vec<Value>, Error> {
    #[derive(Deserialize)]
    struct Response {
        value: Value,
    }
    let response: Response = handle.call_empty("content.checkpoint-get", 0)?;
    Ok(match response.value {
        Value::Array(list) => list,
        Value::Null => Vec::new(),
        one => vec![one],
    })
}

/// Returns the newest checkpoint.
///
/// # Errors
/// When there is none, or it is malformed.
pub(crate) fn newest_checkpoint(handle: &mut Handle) -> Result<Checkpoint, CmdError> {
    let none = "the content store has no checkpoint of the KVS root";
    let list = match checkpoints_raw(handle) {
        Err(err) if err.is_rpc(errno::ENOENT) => return fail(none),
        other => other.map_err(CmdError::doing("error fetching checkpoints"))?,
    };
    match list.into_iter().next() {
        None => fail(none),
        Some(value) => serde_json::from_value(value).map_err(CmdError::json("error fetching checkpoints")),
    }
}

/// Makes a root the one with which the KVS starts the next time.
///
/// # Errors
/// Those of the store.
pub(crate) fn put_checkpoint(handle: &mut Handle, checkpoint: &Checkpoint) -> Result<(), CmdError> {
    let value = json!({
        "version": 1,
        "rootref": checkpoint.rootref.to_string(),
        "sequence": checkpoint.sequence,
        "timestamp": checkpoint.timestamp,
    });
    handle
        .call::<IgnoredAny>("content.checkpoint-put", 0, &json!({ "value": value }))
        .map_err(CmdError::doing("error updating checkpoint"))?;
    Ok(())
}

/// Returns true when the `kvs` module is loaded.
///
/// # Errors
/// Those of the connection.
pub(crate) fn kvs_is_running(handle: &mut Handle) -> Result<bool, CmdError> {
    match flux_client::kvs::getroot(handle, "primary") {
        Err(err) if err.is_rpc(errno::ENOSYS) => Ok(false),
        Err(Error::Rpc(_)) | Ok(_) => Ok(true),
        Err(err) => Err(err.into()),
    }
}
