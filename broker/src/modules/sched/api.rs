//! How does the job manager ask for resources? Typed calls, without encoding; answers come as
//! [`crate::modules::job_manager::api::SchedEvent`].

use super::Sched;
use crate::modules::job_manager::SchedRequest;
use crate::service::Cx;

/// First service name of the scheduler.
pub const SERVICE: &str = "sched";

/// Hands requests to the scheduler, in order. Returns false when it is not loaded.
pub(crate) fn requests(cx: &mut Cx<'_>, requests: Vec<SchedRequest>) -> bool {
    cx.to::<Sched>(SERVICE, move |sched, cx| sched.on_requests(cx, requests))
}
