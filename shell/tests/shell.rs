//! Does the whole flux-shell do what the reference says, against a broker of the test's own?

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests stop the test when something is not as it must be"
)]

mod suite {
    pub(crate) mod broker;
    pub(crate) mod job;
    mod mpi;
    mod multi;
    mod options;
    mod reconnect;
    mod single;
}
