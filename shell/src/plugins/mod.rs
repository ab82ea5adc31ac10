//! What does a shell do for its tasks besides starting them? One feature, one file.

pub(crate) mod affinity;
pub(crate) mod doom;
pub(crate) mod files;
pub(crate) mod gpubind;
pub(crate) mod input;
pub(crate) mod output;
pub(crate) mod pmi;
pub(crate) mod proctable;
pub(crate) mod pty;
pub(crate) mod rexec;
pub(crate) mod rlimit;
pub(crate) mod signal;
pub(crate) mod tmpdir;
