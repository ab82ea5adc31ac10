//! Started processes: how is a program spawned, watched, signalled, limited and told about its peers?
//!
//! No threads, no async runtime: everything that a caller has to wait for is a file descriptor that any
//! event loop can poll ([`PidFd`], pipes, the PMI connections of [`pmi::Driver`]).

pub mod affinity;
pub mod fd;
pub mod identity;
pub mod pidfd;
pub mod pmi;
pub mod poll;
pub mod pty;
pub mod rlimit;
pub mod signal;
pub mod spawn;
pub mod status;
mod sys;

pub use fd::{memfd_sealed, pipe, read_all_at, set_nonblocking, socketpair};
pub use identity::Identity;
pub use pidfd::PidFd;
pub use poll::{Interest, PollSet, Ready};
pub use signal::Signal;
pub use spawn::{Child, Command, EnvBlock, ProcessGroup, SpawnError};
pub use status::WaitStatus;
pub use sys::localtime::{LocalTime, local_time};

/// Returns the real user id of this process.
pub fn uid() -> u32 {
    sys::process::getuid()
}
