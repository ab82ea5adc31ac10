//! What are the broker's attributes? (`attr.*`)

use flux_formats::msg::NODEID_ANY;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::{Error, Handle, Rpc};

#[derive(Serialize)]
struct GetRequest<'a> {
    name: &'a str,
}

#[derive(Deserialize)]
struct GetResponse {
    value: String,
}

#[derive(Deserialize)]
struct ListResponse {
    names: Vec<String>,
}

#[derive(Serialize)]
struct SetRequest<'a> {
    name: &'a str,
    value: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    force: bool,
}

/// Returns the value of an attribute of the local broker.
///
/// # Errors
/// ENOENT when it has no value.
pub fn get(handle: &mut Handle, name: &str) -> Result<String, Error> {
    let rpc = request(handle, name, NODEID_ANY)?;
    finish(handle, &rpc)
}

/// Queues `attr.get`; [`finish`] takes the answer. For pipelining.
///
/// # Errors
/// As [`Handle::rpc`].
pub fn request(handle: &mut Handle, name: &str, nodeid: u32) -> Result<Rpc, Error> {
    handle.rpc("attr.get", nodeid, &GetRequest { name })
}

/// Waits for the answer to [`request`].
///
/// # Errors
/// ENOENT when the attribute has no value.
pub fn finish(handle: &mut Handle, rpc: &Rpc) -> Result<String, Error> {
    Ok(handle.get::<GetResponse>(rpc)?.value)
}

/// Returns the value of an attribute that holds a number, such as `rank` and `size`.
///
/// # Errors
/// As [`get`], and [`Error::Value`] when it is no number.
pub fn get_u32(handle: &mut Handle, name: &str) -> Result<u32, Error> {
    get(handle, name)?
        .trim()
        .parse()
        .map_err(|_| Error::Value { key: name.to_owned() })
}

/// Sets an attribute; `force` also sets one that may not be changed while the broker runs.
///
/// # Errors
/// ENOENT "unknown attribute", EINVAL "attribute may not be updated".
pub fn set(handle: &mut Handle, name: &str, value: &str, force: bool) -> Result<(), Error> {
    handle.call::<IgnoredAny>("attr.set", NODEID_ANY, &SetRequest { name, value, force })?;
    Ok(())
}

/// Returns the names of all attributes.
///
/// # Errors
/// As [`Handle::call`].
pub fn list(handle: &mut Handle) -> Result<Vec<String>, Error> {
    Ok(handle.call_empty::<ListResponse>("attr.list", NODEID_ANY)?.names)
}
