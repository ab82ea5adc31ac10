//! Do whole peers work over real sockets? Pairs in one process, hostile peers, and libzmq.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers outside of #[test] functions fail the test they are called from"
)]

mod common;
mod hostile;
mod interop;
mod pairs;
