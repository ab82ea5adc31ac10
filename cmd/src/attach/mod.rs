//! How does a terminal follow a job? Its eventlogs come in, its output goes out, input and signals go the other way.
//!
//! [`follow`] is pure: it takes lines of eventlogs and says what to print and what to watch next. [`output`] turns
//! RFC 24 events into bytes. [`session`] runs one job at a terminal, [`many`] watches any number of jobs.

mod follow;
mod many;
mod output;
mod pty;
mod session;
#[cfg(test)]
mod tests;

pub(crate) use follow::{Options, describe_exit};
pub(crate) use many::{Many, Summary};
pub(crate) use output::{Sink, push_labelled};
pub(crate) use session::{Session, attach, default_stdin};
