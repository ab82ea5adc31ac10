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
use flux::policy::pool;
use flux_policy_sdk_core::{AllocFailure, Counts, Placement, Plan};

/// The broker's resources.
#[derive(Debug)]
pub struct BrokerPool;

fn failure(failure: pool::Failure) -> AllocFailure {
    match failure {
        pool::Failure::Busy => AllocFailure::Busy,
        pool::Failure::NotPending => AllocFailure::NotPending,
        pool::Failure::Budget => AllocFailure::Budget,
        pool::Failure::Unavailable => AllocFailure::Unavailable,
    }
}

fn placement(placement: Placement) -> pool::Placement {
    match placement {
        Placement::Configured => pool::Placement::Configured,
        Placement::Worstfit => pool::Placement::Worstfit,
        Placement::First => pool::Placement::First,
        Placement::Firstnodex => pool::Placement::Firstnodex,
        Placement::Low => pool::Placement::Low,
        Placement::High => pool::Placement::High,
        Placement::Lonode => pool::Placement::Lonode,
        Placement::Hinode => pool::Placement::Hinode,
        Placement::Lonodex => pool::Placement::Lonodex,
        Placement::Hinodex => pool::Placement::Hinodex,
    }
}

fn counts(counts: pool::Counts) -> Counts {
    Counts {
        nodes_up: counts.nodes_up,
        cores_free: counts.cores_free,
        gpus_free: counts.gpus_free,
    }
}

impl flux_policy_sdk_core::Pool for BrokerPool {
    fn allocate(&self, id: u64) -> Result<(), AllocFailure> {
        pool::allocate(id).map_err(failure)
    }

    fn allocate_placed(&self, id: u64, placed: Placement) -> Result<(), AllocFailure> {
        pool::allocate_placed(id, placement(placed)).map_err(failure)
    }

    fn count(&self) -> Counts {
        counts(pool::count())
    }

    fn query(&self, constraint: &str) -> Result<Counts, String> {
        pool::query(constraint).map(counts)
    }

    fn earliest(&self, id: u64, after: f64) -> Result<Option<f64>, AllocFailure> {
        pool::earliest(id, after).map_err(failure)
    }

    fn reserve(&self, id: u64, at: Option<f64>) -> Result<Plan, AllocFailure> {
        let plan = pool::reserve(id, at).map_err(failure)?;
        Ok(Plan::new(plan.start(), plan, |plan: &pool::Plan| {
            plan.renew().map_err(failure)
        }))
    }

    fn queue_name(&self, number: u32) -> String {
        pool::queue_name(number)
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
            queue: job.queue,
            class: job.class,
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
