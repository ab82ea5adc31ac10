//! The actor.

use super::agent;
use super::process::Process;
use super::shells::Shells;
use crate::service::{Cx, Interface, Method, RpcError, Service};
use flux_formats::errno;
use flux_formats::msg::Message;
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;

const REXEC: &[Method] = &[
    Method::owner("exec"),
    Method::owner("attach"),
    Method::owner("write"),
    Method::owner("kill"),
    Method::owner("wait"),
    Method::owner("list"),
];
const AGENT: &[Method] = &[
    Method::owner("start"),
    Method::owner("attach"),
    Method::owner("kill"),
];

/// States in which a broker runs and takes leave, as `state-machine.monitor` numbers them.
const STATE_RUN: u32 = 5;
const STATE_GOODBYE: u32 = 9;

#[derive(Deserialize)]
struct StateResponse {
    state: u32,
}

/// The `rexec` module.
#[derive(Debug, Default)]
pub struct Rexec {
    pub(super) shells: Shells,
    pub(super) processes: HashMap<u32, Process>,
    stopping: bool,
}

impl Rexec {
    /// Returns true when no process is taken any more.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Returns true when no process runs.
    fn is_idle(&self) -> bool {
        self.shell_count() == 0 && self.processes.values().all(|process| process.status.is_some())
    }

    /// Kills everything that still runs.
    fn kill_all(&mut self, cx: &mut Cx<'_>) {
        self.leave_shells();
        for process in self.processes.values() {
            if let Err(err) = process.kill(9) {
                cx.log_as_me(3, &format!("pid {}: {err}", process.pid));
            }
        }
    }

    /// Tells the hub when the last process is gone after a stop.
    pub(super) fn check_stopped(&mut self, cx: &mut Cx<'_>) {
        if self.stopping && self.is_idle() {
            self.stopping = false;
            self.close_claims();
            cx.stopped();
        }
    }
}

impl Service for Rexec {
    fn interfaces(&self) -> Vec<Interface> {
        vec![
            Interface {
                service: "rexec",
                methods: REXEC,
            },
            Interface {
                service: agent::SERVICE,
                methods: AGENT,
            },
        ]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        self.shells = Shells::new(cx.attrs.get("rundir").unwrap_or("."), cx.rank());
        // what was started here ends with the broker, but for shells that find the next one
        let req = cx.request(
            "state-machine.monitor",
            cx.rank(),
            &json!({ "final": STATE_GOODBYE }),
        );
        cx.rpc_stream(req, |me: &mut Rexec, cx, result| {
            let state = result.and_then(|msg| Ok(msg.payload_json::<StateResponse>()?));
            match state.map(|body| body.state) {
                Ok(STATE_RUN) => me.say_hello(cx),
                Ok(STATE_GOODBYE..) => {
                    me.kill_all(cx);
                    me.close_claims();
                }
                _ => {}
            }
        });
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        match req.topic.as_str() {
            "job-exec-agent.start" => self.on_agent_start(cx, req),
            "job-exec-agent.attach" => self.on_agent_attach(cx, req),
            "job-exec-agent.kill" => self.on_agent_kill(cx, &req),
            "rexec.exec" => self.on_exec(cx, &req),
            "rexec.attach" => self.on_attach(cx, req),
            "rexec.write" => self.on_write(cx, &req),
            "rexec.wait" => self.on_wait(cx, req),
            "rexec.list" => self.on_list(cx, &req),
            "rexec.kill" => match self.on_kill(cx, &req) {
                Ok(()) => cx.respond_empty(&req),
                Err(err) => cx.fail_with(&req, &err),
            },
            _ => cx.fail(&req, errno::ENOSYS, ""),
        }
    }

    fn on_disconnect(&mut self, cx: &mut Cx<'_>, msg: &Message) {
        if msg.topic.service() == "rexec" {
            self.client_gone(cx, msg);
        }
    }

    fn stop(&mut self, cx: &mut Cx<'_>) -> bool {
        self.kill_all(cx);
        self.stopping = !self.is_idle();
        if !self.stopping {
            self.close_claims();
        }
        !self.stopping
    }
}
