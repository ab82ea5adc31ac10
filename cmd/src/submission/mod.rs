//! How does a command line become a jobspec? For `flux run`, `submit`, `bulksubmit`, `batch` and `alloc`.

mod build;
mod conf;
mod directives;
mod env;
mod files;
mod options;
mod rlimit;
mod sign;
mod slots;
mod submit;
#[cfg(test)]
mod tests;

pub(crate) use build::{Process, Request, build, parse_urgency};
pub(crate) use options::{add_common, add_dry_run, add_shape, add_stdio};
pub(crate) use sign::SignOptions;
pub(crate) use slots::{Nested, add_slots, build_nested, with_directives};
pub(crate) use submit::{After, Job, submit_all, submit_one, submit_signed};
