//! Flux data formats and message codec, no I/O.

pub mod blobref;
pub mod constraint;
pub mod errno;
pub mod eventlog;
pub mod fsd;
pub mod hostlist;
pub mod idset;
pub mod ioencode;
pub mod jobid;
pub mod jobspec;
pub mod jobstate;
pub mod msg;
pub mod mustache;
pub mod number;
pub mod paths;
pub mod pmi;
pub mod resource_set;
pub mod rpc;
pub mod signal;
pub mod size;
pub mod taskmap;
pub mod treeobj;
