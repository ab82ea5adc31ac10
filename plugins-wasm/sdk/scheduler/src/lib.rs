//! Generated bindings of the world `scheduler`, and how the SDK's traits meet them. Use it through `flux-policy-sdk`.

wit_bindgen::generate!({
    world: "scheduler",
    path: "../../../wit/flux-policy-0.1",
    pub_export_macro: true,
    export_macro_name: "export_world",
    default_bindings_module: "flux_policy_sdk::bindings::scheduler",
});

flux_policy_sdk_core::implement_host!();

use exports::flux::policy::scheduling;

/// The broker's resources.
#[derive(Debug)]
pub struct BrokerPool;

impl flux_policy_sdk_core::Pool for BrokerPool {
    fn allocate(&self, id: u64) -> Result<(), flux_policy_sdk_core::AllocFailure> {
        use flux::policy::pool::Failure;
        flux::policy::pool::allocate(id).map_err(|failure| match failure {
            Failure::Busy => flux_policy_sdk_core::AllocFailure::Busy,
            Failure::NotPending => flux_policy_sdk_core::AllocFailure::NotPending,
            Failure::Budget => flux_policy_sdk_core::AllocFailure::Budget,
        })
    }

    fn count(&self) -> flux_policy_sdk_core::Counts {
        let flux::policy::pool::Counts {
            nodes_up,
            cores_free,
            gpus_free,
        } = flux::policy::pool::count();
        flux_policy_sdk_core::Counts {
            nodes_up,
            cores_free,
            gpus_free,
        }
    }
}

impl From<scheduling::Pending> for flux_policy_sdk_core::Pending {
    fn from(job: scheduling::Pending) -> Self {
        Self {
            id: job.id,
            priority: job.priority,
            userid: job.userid,
            t_submit: job.t_submit,
            nnodes: job.nnodes,
            nslots: job.nslots,
            cores_per_slot: job.cores_per_slot,
            gpus_per_slot: job.gpus_per_slot,
            exclusive: job.exclusive,
            duration: job.duration,
        }
    }
}

impl From<scheduling::Changes> for flux_policy_sdk_core::Changes {
    fn from(changes: scheduling::Changes) -> Self {
        Self {
            queue: changes & scheduling::Changes::QUEUE == scheduling::Changes::QUEUE,
            resources: changes & scheduling::Changes::RESOURCES == scheduling::Changes::RESOURCES,
        }
    }
}
