//! The actor.

use super::agent::Shells;
use crate::service::{Cx, Interface, Method, RpcError, Service};
use flux_formats::errno;
use flux_formats::msg::Message;

/// The `rexec` module.
#[derive(Debug, Default)]
pub struct Rexec {
    pub(super) shells: Shells,
    stopping: bool,
}

impl Rexec {
    /// Tells the hub when the last process is gone after a stop.
    pub(super) fn check_stopped(&mut self, cx: &mut Cx<'_>) {
        if self.stopping && self.shell_count() == 0 {
            self.stopping = false;
            cx.stopped();
        }
    }
}

impl Service for Rexec {
    fn interfaces(&self) -> Vec<Interface> {
        const REXEC: &[Method] = &[];
        const AGENT: &[Method] = &[Method::owner("start"), Method::owner("kill")];
        vec![
            Interface { service: "rexec", methods: REXEC },
            Interface { service: super::agent::SERVICE, methods: AGENT },
        ]
    }

    fn start(&mut self, _cx: &mut Cx<'_>) -> Result<(), RpcError> {
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        match req.topic.as_str() {
            "job-exec-agent.start" => self.on_agent_start(cx, req),
            "job-exec-agent.kill" => self.on_agent_kill(cx, &req),
            _ => cx.fail(&req, errno::ENOSYS, ""),
        }
    }

    fn stop(&mut self, _cx: &mut Cx<'_>) -> bool {
        self.stopping = !self.kill_shells();
        !self.stopping
    }
}
