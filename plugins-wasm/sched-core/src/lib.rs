//! What the schedulers fcfs, easy, conservative and hybrid share: queues in order, and one pass over them.
//!
//! They differ in how many waiting jobs of a queue get a plan: none and nobody may pass (fcfs), one (easy), some (hybrid), all
//! (conservative). Queues of one site may follow different policies; their jobs are tried in one order, so that no queue takes what a job
//! with a better place in another is waiting for.

mod by_id;
mod pass;
mod queue;
mod settings;

#[cfg(test)]
mod tests;

pub use pass::Backfill;
pub use settings::Kind;

#[doc(hidden)]
pub use flux_policy_sdk as sdk;

/// Defines a scheduler that follows a [`Kind`] in queues for which the site says nothing else.
#[macro_export]
macro_rules! scheduler {
    ($name:ident, $kind:ident) => {
        /// The policy.
        #[derive(Debug)]
        pub struct $name($crate::Backfill);

        impl $crate::sdk::Scheduler for $name {
            fn configure(host: &dyn $crate::sdk::Host) -> Result<Self, $crate::sdk::Refusal> {
                $crate::Backfill::configure(host, $crate::Kind::$kind).map($name)
            }

            fn reconfigure(&mut self, host: &dyn $crate::sdk::Host) -> Result<(), $crate::sdk::Refusal> {
                self.0.reconfigure(host)
            }

            fn submitted(&mut self, jobs: Vec<$crate::sdk::Pending>, _replay: bool) {
                self.0.submitted(&jobs);
            }

            fn removed(&mut self, ids: Vec<u64>) {
                self.0.removed(&ids);
            }

            fn reprioritized(&mut self, jobs: Vec<(u64, u64)>) {
                self.0.reprioritized(&jobs);
            }

            fn schedule(
                &mut self,
                _host: &dyn $crate::sdk::Host,
                pool: &dyn $crate::sdk::Pool,
                changes: $crate::sdk::Changes,
            ) -> bool {
                self.0.schedule(pool, changes)
            }
        }
    };
}
