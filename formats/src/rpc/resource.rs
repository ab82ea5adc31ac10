//! What do `resource.*` requests and responses hold? (RFC 28; flux-core: src/modules/resource, behaviour)

use crate::idset::IdSet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `resource.drain`: takes ranks out of service for new jobs (owner).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DrainRequest {
    /// Idset of ranks, or hostlist.
    pub targets: String,
    /// Text for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `update`, `overwrite` or `force-overwrite`; absent: ranks drained already are an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// `resource.undrain`: brings drained ranks back (owner).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UndrainRequest {
    /// Idset of ranks, or hostlist.
    pub targets: String,
    /// `force`: ranks that are not drained are no error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Text for people, kept in the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `resource.reload`: takes R from a file on rank 0 (owner).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReloadRequest {
    /// File with R in JSON.
    pub path: String,
    /// The path is a directory of hwloc XML files.
    #[serde(default)]
    pub xml: bool,
    /// Accept ranks that no broker has.
    #[serde(default)]
    pub force: bool,
}

/// `resource.expiration-update`: the instance's resources end at another time (owner).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ExpirationUpdateRequest {
    /// Seconds since the epoch, 0 never.
    pub expiration: f64,
}

/// `resource.topo-reduce`: what the brokers of a subtree found on their hosts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TopoReduceRequest {
    /// Number of brokers that report.
    pub count: u32,
    /// R of their ranks, without hosts.
    pub resource: Value,
}

/// `resource.monitor-waitup`: answered when so many brokers are up (owner).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct WaitupRequest {
    /// Number of brokers.
    pub up: u32,
}

/// `resource.monitor-force-down`: treats ranks as down (owner, for tests).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ForceDownRequest {
    /// Ranks.
    pub ranks: IdSet,
}

/// `resource.*-cancel`: ends a stream of the same sender.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct CancelRequest {
    /// Matchtag of the streaming request.
    pub matchtag: u32,
}

/// Response of `resource.get`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GetResponse {
    /// All resources (RFC 20).
    #[serde(rename = "R")]
    pub r: Value,
    /// Where they came from: `configuration`, `dynamic-discovery`, `reload`, `kvs` (RFC 44).
    pub method: String,
}

/// Response of `resource.sched-status`: three R (RFC 20).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SchedStatusResponse {
    /// All resources without excluded ones.
    pub all: Value,
    /// Those that new jobs cannot use.
    pub down: Value,
    /// Those that jobs hold.
    pub allocated: Value,
}
