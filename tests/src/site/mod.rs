//! A whole multi-user site on one machine: nodes with network, host name, users, MUNGE, setuid IMP and broker of their own.
//!
//! Every node is a process in a network, UTS and mount namespace; below them lies a mount namespace with the site's users,
//! configuration and programs at their installed places. Nothing of the machine outside is changed. What a test leaves that is
//! killed ends with it: all processes ask for the death of their parent.

mod brokers;
mod files;
mod node;
mod programs;
mod users;
mod whole;

pub use programs::Programs;
pub use users::{ALICE, BOB, FLUX, PROJECT, ROOT, User};
pub use whole::Site;
