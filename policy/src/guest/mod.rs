//! How is a guest held, called, bounded and rebuilt?

mod abi;
pub(crate) mod imports;
mod instance;
mod log_gate;
mod pool;
mod runtime;
mod state;
mod tap;

pub(crate) use abi::{Changes, Failure, Pending, Priority, Refusal};
pub(crate) use imports::{OTHER_JOB, THE_JOB};
pub(crate) use instance::{Function, Functions, Guest};
pub(crate) use runtime::Runtime;
pub(crate) use state::{Configuration, GuestState, Job};
pub(crate) use tap::TapFunctions;
