//! How does a command line become a jobspec? For `flux run`, `submit` and `bulksubmit` (and `batch`, `alloc` later).

mod build;
mod env;
mod files;
mod options;
mod rlimit;
mod submit;
#[cfg(test)]
mod tests;

pub(crate) use build::{Process, Request, build, parse_urgency};
pub(crate) use options::{add_common, add_dry_run, add_shape};
pub(crate) use submit::{After, Job, submit_all, submit_one};
