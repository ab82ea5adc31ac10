//! What may a client ask of the subprocess server? (RFC 42)

use super::Rexec;
use super::process::{Process, name_channels};
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::msg::{MATCHTAG_NONE, Message, role};
use flux_formats::rpc::rexec as rpc;
use serde_json::{Value, json};
use std::rc::Rc;

impl Rexec {
    /// Returns an error for requests that this rank does not take.
    fn check_origin(cx: &Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let guests = cx
            .config_table("access")
            .get("allow-guest-user")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        if guests && cx.rank() == 0 && req.rolemask & role::LOCAL == 0 {
            return Err(RpcError::new(
                errno::EPERM,
                "Remote rexec requests are not allowed on rank 0",
            ));
        }
        Ok(())
    }

    pub(super) fn on_exec(&mut self, cx: &mut Cx<'_>, req: &Message) {
        match self.exec(cx, req) {
            Ok(pid) => {
                let Some(process) = self.processes.get(&pid) else {
                    return;
                };
                process.first_credit(cx);
                let started = json!({ "type": "started", "pid": pid });
                if req.is_streaming() {
                    process.send(cx, &started);
                } else {
                    cx.respond(req, &started);
                }
            }
            Err(err) => cx.fail_with(req, &err),
        }
    }

    fn exec(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<u32, RpcError> {
        Self::check_origin(cx, req)?;
        if self.is_stopping() {
            return Err(RpcError::new(errno::ENOSYS, "subprocess server is shutting down"));
        }
        let mut body: rpc::ExecRequest = req.payload_json()?;
        let background_flags = body.flags & rpc::FLAG_WRITE_CREDIT != 0
            || body.local_flags & rpc::LOCAL_FLAG_STDIO_FALLTHROUGH != 0;
        if !req.is_streaming() && background_flags {
            return Err(RpcError::new(
                errno::EINVAL,
                "flag is invalid for a background process",
            ));
        }
        if !body.cmd.msgchans.is_empty() {
            return Err(RpcError::new(
                errno::ENOTSUP,
                "message channels are not supported",
            ));
        }
        match body.cmd.label.as_deref() {
            Some("") => return Err(RpcError::new(errno::EINVAL, "label is empty")),
            Some(label) if self.by_label(label).is_some() => {
                return Err(RpcError::new(errno::EEXIST, format!("label {label} is in use")));
            }
            _ => {}
        }
        name_channels(&mut body.cmd);
        let process = Process::start(cx, body, req)?;
        let pid = process.pid;
        self.processes.insert(pid, process);
        Ok(pid)
    }

    fn by_label(&self, label: &str) -> Option<u32> {
        self.processes
            .values()
            .find(|process| process.cmd.label.as_deref() == Some(label))
            .map(|process| process.pid)
    }

    fn resolve(&self, pid: i64, label: Option<&str>) -> Result<u32, RpcError> {
        let found = match label {
            Some(label) => self.by_label(label),
            None => u32::try_from(pid)
                .ok()
                .filter(|pid| self.processes.contains_key(pid)),
        };
        found.ok_or_else(|| {
            let text = match label {
                Some(label) => format!("label {label} does not belong to any subprocess"),
                None => format!("pid {pid} does not belong to any subprocess"),
            };
            RpcError::new(errno::ENOENT, text)
        })
    }

    pub(super) fn on_write(&mut self, cx: &mut Cx<'_>, req: &Message) {
        if Self::check_origin(cx, req).is_err() {
            return;
        }
        let Ok(body) = req.payload_json::<rpc::WriteRequest>() else {
            return;
        };
        let found = self
            .processes
            .values_mut()
            .find(|p| body.matchtag != MATCHTAG_NONE && p.is_of(req.sender(), body.matchtag));
        if let Some(process) = found {
            process.write(cx, &body.io);
        }
    }

    pub(super) fn on_kill(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        Self::check_origin(cx, req)?;
        let body: rpc::KillRequest = req.payload_json()?;
        let pid = self.resolve(body.pid, body.label.as_deref())?;
        self.processes
            .get(&pid)
            .map_or(Ok(()), |process| process.kill(body.signum))
    }

    pub(super) fn on_wait(&mut self, cx: &mut Cx<'_>, req: Message) {
        let found = Self::check_origin(cx, &req).and_then(|()| {
            let body: rpc::WaitRequest = req.payload_json()?;
            let pid = self.resolve(body.pid, body.label.as_deref())?;
            match self.processes.get(&pid) {
                Some(process) if process.flags & rpc::FLAG_WAITABLE == 0 => {
                    Err(RpcError::new(errno::EINVAL, format!("pid {pid} is not waitable")))
                }
                Some(process) if process.waiter.is_some() => Err(RpcError::new(
                    errno::EINVAL,
                    format!("pid {pid} is already being waited on"),
                )),
                _ => Ok(pid),
            }
        });
        match found {
            Err(err) => cx.fail_with(&req, &err),
            Ok(pid) => {
                if let Some(process) = self.processes.get_mut(&pid) {
                    process.waiter = Some(req);
                }
                self.check_done(cx, pid);
            }
        }
    }

    pub(super) fn on_list(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let mut procs: Vec<Value> = self
            .processes
            .values()
            .map(|process| {
                json!({
                    "pid": process.pid, "cmd": process.cmd.cmdline.first().map(String::as_str).unwrap_or_default(),
                    "label": process.cmd.label.as_deref().unwrap_or_default(),
                    "state": if process.status.is_some() { "Z" } else { "R" },
                })
            })
            .collect();
        procs.extend(self.list_shells());
        let rank = cx.rank();
        cx.respond(req, &json!({ "rank": rank, "procs": procs }));
    }

    pub(super) fn on_attach(&mut self, cx: &mut Cx<'_>, req: Message) {
        if !cx.require_streaming(&req) {
            return;
        }
        let attached = Self::check_origin(cx, &req).and_then(|()| {
            let body: rpc::AttachRequest = req.payload_json()?;
            let pid = self.resolve(body.pid, body.label.as_deref())?;
            let process = self
                .processes
                .get_mut(&pid)
                .ok_or_else(|| RpcError::bare(errno::ENOENT))?;
            if process.client.is_some() {
                return Err(RpcError::new(
                    errno::EBUSY,
                    format!("pid {pid} has a client already"),
                ));
            }
            let outputs = rpc::FLAG_STDOUT | rpc::FLAG_STDERR | rpc::FLAG_CHANNEL;
            process.flags = process.flags & !outputs | body.flags & outputs;
            (process.client, process.attached) = (
                Some(Message {
                    payload: None,
                    ..req.clone()
                }),
                true,
            );
            Ok(pid)
        });
        let pid = match attached {
            Ok(pid) => pid,
            Err(err) => {
                cx.fail_with(&req, &err);
                return;
            }
        };
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        process.send(cx, &json!({ "type": "attached", "pid": pid, "cmd": process.cmd }));
        let ended: Vec<Rc<str>> = process
            .outputs
            .iter()
            .filter(|name| !process.open.contains(name))
            .cloned()
            .collect();
        for stream in ended {
            process.on_data(cx, &stream, &[]);
        }
        if let Some(status) = process.status {
            process.send(cx, &json!({ "type": "finished", "status": status }));
        }
        self.check_done(cx, pid);
    }

    // ---- what processes do ------------------------------------------------------------------------------

    pub(super) fn on_data(&mut self, cx: &mut Cx<'_>, pid: u32, stream: &str, data: &[u8]) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.on_data(cx, stream, data);
            self.check_done(cx, pid);
        }
    }

    pub(super) fn on_writable(&mut self, cx: &mut Cx<'_>, pid: u32, stream: &Rc<str>) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.on_writable(cx, stream);
        }
    }

    pub(super) fn on_exit(&mut self, cx: &mut Cx<'_>, pid: u32, status: i32) {
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        process.status = Some(status);
        process.send(cx, &json!({ "type": "finished", "status": status }));
        self.check_done(cx, pid);
    }

    /// Forgets a process that has ended, when nobody may ask for it any more.
    fn check_done(&mut self, cx: &mut Cx<'_>, pid: u32) {
        let Some(process) = self.processes.get_mut(&pid).filter(|process| process.is_done()) else {
            return;
        };
        let mut reaped = process.flags & rpc::FLAG_WAITABLE == 0;
        if let Some(client) = process.client.take() {
            cx.fail(&client, errno::ENODATA, "");
            reaped |= process.attached;
        }
        if let Some(waiter) = process.waiter.take() {
            let body = process.wait_response();
            cx.respond(&waiter, &body);
            reaped = true;
        }
        if reaped {
            self.processes.remove(&pid);
        }
        self.check_stopped(cx);
    }

    /// A client went away: its foreground processes end, those it attached to go on.
    pub(super) fn client_gone(&mut self, cx: &mut Cx<'_>, msg: &Message) {
        for process in self.processes.values_mut() {
            if process
                .waiter
                .as_ref()
                .is_some_and(|waiter| waiter.sender() == msg.sender())
            {
                process.waiter = None;
            }
            if !process.is_of(msg.sender(), MATCHTAG_NONE) {
                continue;
            }
            process.client = None;
            if process.attached {
                process.attached = false;
            } else if let Err(err) = process.kill(9) {
                cx.log_as_me(3, &format!("pid {}: {err}", process.pid));
            }
        }
    }
}
