//! What do the broker, clients and other shells of the job say to this shell, and what is answered?

use std::time::Instant;

use flux_client::msg::{json_payload, role};
use flux_client::{Incoming, Message};
use flux_formats::errno::{EAGAIN, ENOSYS, EPERM, EPROTO, Errnum, strerror};
use serde::Deserialize;

use crate::ctx::Purpose;
use crate::link::{Arrival, Relay};
use crate::log::log;
use crate::phases::Shell;
use crate::plugins::doom::TaskExit;
use crate::plugins::proctable::Pids;
use crate::plugins::signal;

/// An error number with a text that may be empty.
type Refusal = (Errnum, &'static str);

impl Shell {
    /// Handles one message.
    pub(crate) fn on_incoming(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Response(response) => self.on_response(&response),
            Incoming::Event(event) => self.on_event(&event),
            Incoming::Request(request) => self.on_request(request),
        }
    }

    fn on_event(&mut self, event: &Message) {
        let kill = format!("shell-{}.kill", self.ctx.info.id.0);
        // anybody may publish an event of this name
        if event.topic.as_str() != kill || event.rolemask & role::OWNER == 0 {
            return;
        }
        if let Some(signal) = signal::of_kill_event(event) {
            log!(
                self.ctx,
                Debug,
                "",
                "killing tasks with signal {}",
                signal.number()
            );
            self.kill_tasks(signal);
        }
    }

    fn on_response(&mut self, response: &Message) {
        if response.matchtag() == 0 {
            if response.topic.as_str() == "job-exec.shell-barrier" {
                self.on_barrier(response);
            }
            return;
        }
        let Some(purpose) = self.ctx.purpose_of(response) else {
            return;
        };
        let failed = response.errnum() != 0;
        match purpose {
            Purpose::Commit { number, bytes } => {
                self.ctx.on_committed(number, bytes, response, Instant::now());
                self.parts.output.grant(&mut self.ctx);
            }
            Purpose::Mark => self.ctx.on_mark(response, Instant::now()),
            Purpose::Relay { to, number, attempt } => {
                let errnum = response.errnum();
                self.ctx.on_relayed(to, number, attempt, errnum, Instant::now());
            }
            Purpose::Running => self.on_running(response),
            Purpose::Hello => self.on_greeted(response),
            Purpose::Setup if failed => {
                self.ctx.rpc_failed(response.topic.as_str(), response);
            }
            Purpose::Exchange => {
                if let Some(pmi) = &mut self.parts.pmi {
                    pmi.on_exchanged(&mut self.ctx, response);
                }
            }
            Purpose::PmiAttr { key } => {
                if let Some(pmi) = &mut self.parts.pmi {
                    pmi.on_attribute(&mut self.ctx, key, response);
                }
            }
            Purpose::Pids { gather, shell_rank } => {
                let proctables = &mut self.parts.proctables;
                proctables.on_pids(&mut self.ctx, gather, shell_rank, response);
            }
            Purpose::Credit => self.parts.output.on_credit(&mut self.ctx, response),
            Purpose::ResourceUpdate => self.on_resource_update(response),
            Purpose::ShellExit => self.on_reported(),
            Purpose::Setup | Purpose::Raise => {}
        }
    }

    fn on_resource_update(&mut self, response: &Message) {
        #[derive(Deserialize)]
        struct Update {
            #[serde(rename = "R")]
            resources: Resources,
        }
        #[derive(Deserialize)]
        struct Resources {
            execution: Execution,
        }
        #[derive(Deserialize)]
        struct Execution {
            #[serde(default)]
            expiration: f64,
        }
        let Ok(update) = response.payload_json::<Update>() else {
            return;
        };
        let expiration = update.resources.execution.expiration;
        self.ctx.info.expiration = expiration;
        if let Some(warning) = &mut self.parts.warning {
            warning.set_expiration(&mut self.ctx, expiration);
        }
    }

    fn on_barrier(&mut self, response: &Message) {
        let errnum = response.errnum();
        if errnum == 0 {
            self.barrier_passed();
            return;
        }
        // Another shell has ended or the job was cancelled: whoever decided that has told the job why.
        let text = flux_formats::errno::strerror(errnum);
        log!(self.ctx, Debug, "", "shell barrier failed: {text}");
        self.ctx.exit_code = self.ctx.exit_code.max(1);
        self.ctx.fatal = true;
    }

    fn on_request(&mut self, request: Message) {
        let is_owner = request.rolemask & role::OWNER != 0;
        if !is_owner && request.userid != self.ctx.info.uid {
            self.answer(&request, Err((EPERM, "")));
            return;
        }
        let topic = request.topic.clone();
        let method = topic
            .as_str()
            .strip_prefix(self.ctx.info.service.as_str())
            .unwrap_or("");
        let method = method.strip_prefix('.').unwrap_or(method);
        if let Some(rank) = method.strip_prefix("pty.") {
            self.on_pty(rank, request);
            return;
        }
        if let Some(method) = method.strip_prefix("rexec.") {
            self.parts.rexec.on_request(&mut self.ctx, method, request);
            return;
        }
        match method {
            "pmi-exchange" => match &mut self.parts.pmi {
                Some(pmi) => pmi.on_exchange(&mut self.ctx, request),
                None => self.answer(&request, Err((ENOSYS, "PMI is off"))),
            },
            "pids" => self.on_pids(&request),
            "proctable" => {
                let proctables = &mut self.parts.proctables;
                proctables.on_request(&mut self.ctx, &self.tasks, request);
            }
            "relay" => self.on_relay(&request),
            "write-getcredit" => self.parts.output.on_getcredit(&mut self.ctx, request),
            "disconnect" => {
                if let Some(ptys) = &mut self.parts.ptys {
                    ptys.on_disconnect(&request);
                }
            }
            _ => {
                let result = self.serve(method, &request);
                self.answer(&request, result);
            }
        }
    }

    /// Takes a message that another shell sends until it has arrived.
    fn on_relay(&mut self, request: &Message) {
        let payload = request.payload_str().unwrap_or("");
        let Ok(relay) = serde_json::from_str::<Relay<'_>>(payload) else {
            self.answer(request, Err((EPROTO, "")));
            return;
        };
        match self.ctx.links.arrived(relay.from, relay.number) {
            Arrival::Early => self.answer(request, Err((EAGAIN, ""))),
            Arrival::Known => self.answer(request, Ok(())),
            Arrival::New => {
                let inner = Message {
                    payload: json_payload(relay.body).ok(),
                    ..request.clone()
                };
                let result = self.serve_relayed(relay.from, relay.method, &inner);
                if let Err((errnum, text)) = result {
                    let from = relay.from;
                    let words = if text.is_empty() { strerror(errnum) } else { text };
                    log!(self.ctx, Error, "", "{} from shell {from}: {words}", relay.method);
                }
                self.answer(request, Ok(()));
            }
        }
    }

    fn serve_relayed(&mut self, from: u32, method: &str, request: &Message) -> Result<(), Refusal> {
        let Some(pmi) = &mut self.parts.pmi else {
            return self.serve(method, request);
        };
        match method {
            "pmi-up" => pmi.on_child(&mut self.ctx, from, request),
            "pmi-down" => pmi.on_parent(&mut self.ctx, request),
            _ => return self.serve(method, request),
        }
        .map_err(|_| (EPROTO, ""))
    }

    fn on_pty(&mut self, rank: &str, request: Message) {
        if rank == "disconnect" {
            if let Some(ptys) = &mut self.parts.ptys {
                ptys.on_disconnect(&request);
            }
            return;
        }
        let copy = request.clone();
        let result = match (&mut self.parts.ptys, rank.parse()) {
            (Some(ptys), Ok(rank)) => ptys.on_request(&mut self.ctx, rank, request),
            _ => Err((ENOSYS, "no such terminal")),
        };
        if let Err((errnum, text)) = result {
            let _sent = self.ctx.handle.respond_error(&copy, errnum, text);
        }
    }

    /// Serves a request that is answered at once.
    fn serve(&mut self, method: &str, request: &Message) -> Result<(), Refusal> {
        match method {
            "stdin" => self.parts.input.on_stdin(&mut self.ctx, &mut self.tasks, request),
            "stdin-forward" => {
                self.parts.input.on_forward(&mut self.tasks, request);
                Ok(())
            }
            "write" => self
                .parts
                .output
                .on_write(&mut self.ctx, request)
                .map_err(|_| (EPROTO, "")),
            "doom" => {
                let exit: TaskExit = request.payload_json().map_err(|_| (EPROTO, ""))?;
                self.parts.doom.on_exit(&mut self.ctx, exit, Instant::now());
                self.report_first_exit();
                Ok(())
            }
            "exception" => self.on_exception(request),
            "tasks-complete" => Ok(()),
            _ => Err((ENOSYS, "unknown shell service method")),
        }
    }

    /// Answers which processes the local tasks are (an addition to the original's services).
    fn on_pids(&mut self, request: &Message) {
        let pids = Pids::of(&self.ctx, &self.tasks);
        // A requestor that is gone needs no answer.
        let _sent = self.ctx.handle.respond(request, Some(&pids));
    }

    /// Takes the news that another shell is gone.
    fn on_exception(&mut self, request: &Message) -> Result<(), Refusal> {
        #[derive(Deserialize)]
        struct Exception {
            #[serde(rename = "type")]
            kind: String,
            shell_rank: u32,
            #[serde(default)]
            message: Option<String>,
        }
        let exception: Exception = request.payload_json().map_err(|_| (EPROTO, ""))?;
        let message = exception.message.unwrap_or_default();
        if exception.kind == "lost-shell" {
            log!(
                self.ctx,
                Warn,
                "",
                "shell rank {} is lost: {message}",
                exception.shell_rank
            );
            self.parts.output.lost_shell(exception.shell_rank);
        } else {
            log!(self.ctx, Warn, "", "exception {}: {message}", exception.kind);
        }
        Ok(())
    }

    fn answer(&mut self, request: &Message, result: Result<(), Refusal>) {
        // A requestor that is gone needs no answer.
        let _sent = match result {
            Ok(()) => self.ctx.handle.respond::<()>(request, None),
            Err((errnum, text)) => self.ctx.handle.respond_error(request, errnum, text),
        };
    }
}
