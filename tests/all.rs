//! All suites in one program; see the README's table for where each lives.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests fail by panicking and show their figures"
)]

mod compat;
mod e2e;
mod status;
