//! How do services reach their plugins, on the policy thread or in place?

mod handle;
mod ingest;
mod message;
mod room;
mod thread;

pub use handle::{PolicyHost, SendError, Wake};
pub use message::{Accepted, Answer, Command, IngestJob, LogRecord, Refusal};
pub use room::HostConfig;
pub(crate) use thread::one_line;
