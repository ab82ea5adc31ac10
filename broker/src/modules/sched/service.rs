//! The scheduler module's actor.

use crate::modules::job_manager::SchedRequest;
use crate::service::{Cx, Interface, RpcError, Service};
use flux_formats::msg::Message;

/// The scheduler module.
#[derive(Debug, Default)]
pub struct Sched {}

impl Sched {
    pub(super) fn on_requests(&mut self, _cx: &mut Cx<'_>, _requests: Vec<SchedRequest>) {}
}

impl Service for Sched {
    fn interfaces(&self) -> Vec<Interface> {
        Vec::new()
    }
    fn start(&mut self, _cx: &mut Cx<'_>) -> Result<(), RpcError> {
        Ok(())
    }
    fn on_request(&mut self, _cx: &mut Cx<'_>, _req: Message) {}
}
