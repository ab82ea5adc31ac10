//! What happens to a job's nodes between its end and their next job? Housekeeping: a program of the site's on each of
//! them, while the job itself is over already (flux-core: job-manager/housekeeping.c, behaviour).
//!
//! ```text
//!   free ─> program on each rank ─┬─ all have ended ───────────────> everything goes back to the scheduler
//!                                 └─ `release-after` has passed ──> each rank goes back when it is done
//! ```
//!
//! Pure: `allocation` (who is pending, what is given back when), `config`. The actor's part: `run`.

mod allocation;
mod config;
mod run;

pub(super) use config::Config;
use flux_formats::jobid::JobId;
use std::collections::BTreeMap;

/// Nodes of ended jobs that are not free yet.
#[derive(Debug, Default)]
pub(super) struct Housekeeping {
    running: BTreeMap<JobId, run::Running>,
}
