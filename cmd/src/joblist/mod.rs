//! Which jobs are there, and what is to be told about them? For `flux jobs`, `pgrep`, `pkill`, `pstree`, `watch`, `top`.

mod fields;
mod instance;
mod query;
mod record;
mod stats;

pub(crate) use fields::{Field, JobFields, attrs, needs_instance};
pub(crate) use instance::fetch_instances;
pub(crate) use query::{Filter, Query, fetch_ids, list as list_jobs, list_each};
pub(crate) use record::Record;
pub(crate) use stats::JobStats;
