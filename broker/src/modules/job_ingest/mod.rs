//! How does a submission become a job? Module `job-ingest` (rank 0; requests of other ranks are routed up).
//!
//! Checks ([`check`]), the signature by munged ([`verify`]), plugins on the policy thread, a FLUID, then the job manager, which answers when the job is
//! durable.

mod check;
mod config;
mod service;
mod verify;

#[cfg(test)]
mod tests;

pub use service::JobIngest;
