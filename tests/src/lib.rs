//! The harness of the end-to-end suites: real brokers in a sandbox, commands with deadlines, nothing left behind.
//!
//! ```no_run
//! let flux = flux_tests::Instance::boot(4);
//! assert_eq!(flux.run(&["getattr", "size"]).ok().line(), "4");
//! flux.stop();
//! ```
//!
//! Environment: `FLUX_TEST_BINDIR` names the directory of the programs (default: where cargo put them),
//! `FLUX_TEST_SCALE=full` runs the counts of the acceptance list instead of the smaller ones of CI,
//! `FLUX_TEST_KILLS` sets how many processes the kill tests end, `FLUX_TEST_SEED` repeats a random run.
#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a harness reports failure by panicking, with the logs beside it"
)]

mod bins;
mod caps;
mod cluster;
mod instance;
mod proc;
mod random;
mod run;
mod sandbox;
mod site;

pub use bins::{bindir, data_file, imp};
pub use caps::{Capability, full_scale, kills, langs, missing, scaled};
pub use cluster::Cluster;
pub use instance::{Builder, Instance};
pub use proc::{Process, alive, kill, rss_kib};
pub use random::Random;
pub use run::{Output, wait_for};
pub use sandbox::Sandbox;
pub use site::{ALICE, BOB, FLUX, PROJECT, Programs, ROOT, Site, User};

/// How long a command may take before the harness ends it and fails the test, unless it says otherwise.
pub const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);
