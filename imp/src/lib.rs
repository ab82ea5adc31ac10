//! The Independent Minister of Privilege: the only program of Flux with privilege. RFC 15; docs/imp/ is its auditor's guide.
//!
//! ```text
//! caller ── exec ──> P  start::clean
//!                    │ fork
//!                    ├────────────> M  own session, uid 0        monitor: verify, PAM, control group, shell
//!                    P  caller     ├─> parser of configuration    a uid of its own, write and exit only
//!                    relay         ├─> helper for names           a uid of its own
//!                                  └─> shell                      the job's user
//! ```
//!
//! P and M talk over a socket pair (`wire`). P belongs to its caller, who may kill it; M ends the job then.

#![deny(unsafe_code)]

pub mod cgroup;
pub mod config;
pub mod device;
pub mod environment;
pub mod helpers;
pub mod launch;
pub mod limits;
pub mod load;
pub mod log;
pub mod monitor;
pub mod munged;
pub mod pam;
pub mod path;
pub mod paths;
pub mod refusal;
pub mod relay;
pub mod replay;
pub mod resolve;
pub mod sandbox;
pub mod start;
pub mod supervise;
pub mod sys;
pub mod wire;
