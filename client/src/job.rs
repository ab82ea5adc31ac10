//! How does a client submit a job and follow it? (`job-ingest.submit`, `job-info.*`, `job-manager.*`)

use flux_formats::msg::NODEID_ANY;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Handle, Rpc};

/// Bits of the submit flags.
pub mod submit_flags {
    /// Adds debug events to the eventlog.
    pub const DEBUG: u32 = 2;
    /// The job can be waited for with `job-manager.wait`.
    pub const WAITABLE: u32 = 4;
    /// Skips validation (owner only).
    pub const NOVALIDATE: u32 = 8;
}

/// Bits of the eventlog-watch flags.
pub mod watch_flags {
    /// Waits until the eventlog exists.
    pub const WAITCREATE: u32 = 1;
    /// Sends an empty response after the events that exist.
    pub const INITIAL_SENTINEL: u32 = 2;
}

/// The job id that means "any" in [`wait_start`].
pub const JOBID_ANY: u64 = u64::MAX;
/// Urgency of a job that names none.
pub const URGENCY_DEFAULT: i32 = 16;

#[derive(Serialize)]
struct SubmitRequest<'a> {
    #[serde(rename = "J")]
    token: &'a str,
    urgency: i32,
    flags: u32,
}

#[derive(Deserialize)]
struct SubmitResponse {
    id: i64,
}

/// Queues a submission; `token` is the signed jobspec (RFC 39). [`submit_finish`] takes the id.
///
/// # Errors
/// As [`Handle::rpc`].
pub fn submit_start(handle: &mut Handle, token: &str, urgency: i32, flags: u32) -> Result<Rpc, Error> {
    handle.rpc(
        "job-ingest.submit",
        NODEID_ANY,
        &SubmitRequest {
            token,
            urgency,
            flags,
        },
    )
}

/// Waits for the id of a submitted job.
///
/// # Errors
/// Those of `job-ingest.submit`: EINVAL with the validator's text, EPERM, EPROTO.
pub fn submit_finish(handle: &mut Handle, rpc: &Rpc) -> Result<u64, Error> {
    Ok(handle.get::<SubmitResponse>(rpc)?.id.cast_unsigned())
}

/// Submits a job and waits for its id.
///
/// # Errors
/// As [`submit_finish`].
pub fn submit(handle: &mut Handle, token: &str, urgency: i32, flags: u32) -> Result<u64, Error> {
    let rpc = submit_start(handle, token, urgency, flags)?;
    submit_finish(handle, &rpc)
}

#[derive(Serialize)]
struct WatchRequest<'a> {
    id: i64,
    path: &'a str,
    flags: u32,
}

#[derive(Deserialize)]
struct WatchResponse {
    event: Option<String>,
}

/// Starts to watch an eventlog of a job: `eventlog`, `guest.exec.eventlog`, `guest.output`, `guest.input`.
///
/// # Errors
/// As [`Handle::rpc`].
pub fn eventlog_watch(handle: &mut Handle, id: u64, path: &str, flags: u32) -> Result<Rpc, Error> {
    let request = WatchRequest {
        id: id.cast_signed(),
        path,
        flags,
    };
    handle.stream("job-info.eventlog-watch", NODEID_ANY, &request)
}

/// What a response of an eventlog watch says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// One line of the eventlog, with its newline.
    Event(String),
    /// The events that existed have been sent (only with [`watch_flags::INITIAL_SENTINEL`]).
    Sentinel,
}

/// Decodes a response of an eventlog watch.
///
/// # Errors
/// [`Error::Payload`].
pub fn watch_decode(msg: &crate::Message) -> Result<WatchEvent, Error> {
    let response: WatchResponse = crate::rpc::decode(msg)?;
    Ok(response.event.map_or(WatchEvent::Sentinel, WatchEvent::Event))
}

/// Waits for the next line of a watched eventlog; `None` when the log has ended.
///
/// # Errors
/// ENOENT "invalid job id", EPERM.
pub fn watch_next(handle: &mut Handle, rpc: &Rpc) -> Result<Option<WatchEvent>, Error> {
    handle.next(rpc)?.map(|msg| watch_decode(&msg)).transpose()
}

/// Cancels an eventlog watch; its stream then ends with ENODATA.
///
/// # Errors
/// As [`Handle::rpc`].
pub fn watch_cancel(handle: &mut Handle, rpc: &Rpc) -> Result<(), Error> {
    handle.cancel("job-info.eventlog-watch-cancel", NODEID_ANY, rpc)
}

/// Bits of the lookup flags.
pub mod lookup_flags {
    /// Answers R and jobspec as objects, not as text.
    pub const JSON_DECODE: u32 = 1;
    /// Applies the updates of the eventlog to R and jobspec.
    pub const CURRENT: u32 = 2;
}

#[derive(Serialize)]
struct LookupRequest<'a> {
    id: i64,
    keys: &'a [&'a str],
    flags: u32,
}

/// Queues a look-up of keys (`J`, `R`, `jobspec`, `eventlog`, `guest.*`); the answer is an object with them.
///
/// # Errors
/// As [`Handle::rpc`].
pub fn lookup_start(handle: &mut Handle, id: u64, keys: &[&str], flags: u32) -> Result<Rpc, Error> {
    let request = LookupRequest {
        id: id.cast_signed(),
        keys,
        flags,
    };
    handle.rpc("job-info.lookup", NODEID_ANY, &request)
}

/// Returns one key of a job as text.
///
/// # Errors
/// ENOENT "invalid job id" or "KEY: key not found", EPERM.
pub fn lookup(handle: &mut Handle, id: u64, key: &str, flags: u32) -> Result<String, Error> {
    let rpc = lookup_start(handle, id, &[key], flags)?;
    let mut response: Value = handle.get(&rpc)?;
    match response.get_mut(key).map(Value::take) {
        Some(Value::String(text)) => Ok(text),
        Some(other) if !other.is_null() => Ok(other.to_string()),
        _ => Err(Error::Value { key: key.to_owned() }),
    }
}

/// Starts to watch R or the jobspec of a job; each response is `{KEY: object}`.
///
/// # Errors
/// As [`Handle::rpc`].
pub fn update_watch(handle: &mut Handle, id: u64, key: &str) -> Result<Rpc, Error> {
    let request = serde_json::json!({ "id": id.cast_signed(), "key": key, "flags": 0 });
    handle.stream("job-info.update-watch", NODEID_ANY, &request)
}

/// The end of a waitable job.
#[derive(Debug, Clone, Deserialize)]
pub struct WaitResult {
    /// The job.
    pub id: i64,
    /// True when it ended with status 0 and no fatal exception.
    pub success: bool,
    /// Why it did not succeed.
    #[serde(default)]
    pub errstr: String,
}

/// Queues a wait for one waitable job, or any ([`JOBID_ANY`]); the answer is a [`WaitResult`].
///
/// # Errors
/// As [`Handle::rpc`].
pub fn wait_start(handle: &mut Handle, id: u64) -> Result<Rpc, Error> {
    handle.rpc(
        "job-manager.wait",
        NODEID_ANY,
        &serde_json::json!({ "id": id.cast_signed() }),
    )
}

#[derive(Serialize)]
struct RaiseRequest<'a> {
    id: i64,
    severity: i32,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
}

/// Queues an exception; severity 0 ends the job.
///
/// # Errors
/// As [`Handle::rpc`].
pub fn raise_start(
    handle: &mut Handle,
    id: u64,
    kind: &str,
    severity: i32,
    note: Option<&str>,
) -> Result<Rpc, Error> {
    let request = RaiseRequest {
        id: id.cast_signed(),
        severity,
        kind,
        note,
    };
    handle.rpc("job-manager.raise", NODEID_ANY, &request)
}

/// Raises an exception and waits for the answer.
///
/// # Errors
/// "unknown job id", "job is inactive", EPERM.
pub fn raise(
    handle: &mut Handle,
    id: u64,
    kind: &str,
    severity: i32,
    note: Option<&str>,
) -> Result<(), Error> {
    let rpc = raise_start(handle, id, kind, severity, note)?;
    handle.get::<IgnoredAny>(&rpc)?;
    Ok(())
}

/// Queues a signal to the tasks of a job.
///
/// # Errors
/// As [`Handle::rpc`].
pub fn kill_start(handle: &mut Handle, id: u64, signum: i32) -> Result<Rpc, Error> {
    handle.rpc(
        "job-manager.kill",
        NODEID_ANY,
        &serde_json::json!({ "id": id.cast_signed(), "signum": signum }),
    )
}
