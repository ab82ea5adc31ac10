//! The scheduler module's actor: requests in, batches to the engine, decisions back.
//!
//! ```text
//! resource ─ acquire ─> define, up, down ─┐                 ┌─> job-manager: alloc, deny, cancelled
//! job-manager ─ alloc, cancel, free ──────┼─> policy thread ┤
//! clients ─ feasibility, status ──────────┘   (SchedEngine) └─> clients
//! ```
//!
//! The job manager is told that the scheduler is ready once resources are known; it then sends what jobs hold
//! (adopt) and what waits (alloc), so that the order of loading modules does not matter.

use super::engine::{self, Engine, PolicyEngine};
use crate::lifecycle;
use crate::modules::job_manager::SchedRequest;
use crate::modules::job_manager::api::{self as job_manager, SchedEvent};
use crate::modules::resource::api::{self as resource, AcquireUpdate};
use crate::service::{Cx, Interface, Method, RpcError, Service};
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use flux_formats::rpc::sched::{ExpirationRequest, FeasibilityRequest, ResourceStatusResponse};
use flux_policy::pool::Request;
use flux_policy::{Answer, Command, SchedAnswer, SchedCommand, Submit};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::rc::Rc;

/// The scheduler module (`sched-simple`, rank 0).
#[derive(Debug)]
pub struct Sched {
    engine: Option<Box<dyn Engine>>,
    /// Makes the engine of a policy; a test gives one that needs no thread.
    make: MakeEngine,
    /// Name of the policy.
    policy: String,
    /// The policy before a change, until the new one is loaded.
    former: Option<String>,
    /// Asks for resources; a test tells them itself.
    acquire: fn(&mut Cx<'_>) -> bool,
    /// Resources were defined at least once.
    defined: bool,
    /// Resources are known and the job manager was told.
    ready: bool,
    /// Commands of this turn.
    commands: Vec<SchedCommand>,
    armed: bool,
    /// Requests that wait for the engine, by token.
    waiting: HashMap<u64, Message>,
    next_token: u64,
    pending: usize,
    allocated: u64,
}

/// Makes an engine.
type MakeEngine = fn(&mut Cx<'_>, &str) -> Result<Box<dyn Engine>, RpcError>;

impl Default for Sched {
    fn default() -> Self {
        Sched::with_parts(
            |cx, policy| Ok(Box::new(PolicyEngine::open(cx, policy)?)),
            |cx| resource::acquire(cx, |me: &mut Sched, cx, update| me.on_resources(cx, update)),
        )
    }
}

impl Sched {
    /// Returns a scheduler over the engine that `make` makes.
    pub(super) fn with_parts(make: MakeEngine, acquire: fn(&mut Cx<'_>) -> bool) -> Self {
        Sched {
            engine: None,
            make,
            policy: String::new(),
            former: None,
            acquire,
            defined: false,
            ready: false,
            commands: Vec::new(),
            armed: false,
            waiting: HashMap::new(),
            next_token: 0,
            pending: 0,
            allocated: 0,
        }
    }

    /// Queues a command for the end of the turn.
    fn command(&mut self, cx: &mut Cx<'_>, command: SchedCommand) {
        self.commands.push(command);
        if !self.armed {
            self.armed = true;
            cx.later(|me: &mut Sched, cx| me.flush(cx));
        }
    }

    fn flush(&mut self, cx: &mut Cx<'_>) {
        self.armed = false;
        let commands = std::mem::take(&mut self.commands)
            .into_iter()
            .map(Command::Sched)
            .collect();
        let Some(engine) = &mut self.engine else { return };
        if let Err(err) = engine.send(cx, commands) {
            self.engine_lost(cx, &err);
        }
    }

    fn engine_lost(&mut self, cx: &mut Cx<'_>, err: &RpcError) {
        cx.log_as_me(2, &format!("no scheduler: {}", err.text));
        self.engine = None;
        self.ready = false;
        job_manager::sched_ready(cx, false);
        for (_, req) in self.waiting.drain() {
            cx.fail_with(&req, err);
        }
        lifecycle::scheduler_settled(cx);
    }

    /// Takes requests of the job manager.
    pub(super) fn on_requests(&mut self, cx: &mut Cx<'_>, requests: Vec<SchedRequest>) {
        for request in requests {
            match request {
                SchedRequest::Alloc {
                    id,
                    priority,
                    userid,
                    t_submit,
                    jobspec,
                } => match Request::from_jobspec(&jobspec) {
                    Ok(request) => {
                        self.pending += 1;
                        let submit = Submit {
                            id: id.0,
                            priority,
                            userid,
                            t_submit,
                            queue: queue_of(&jobspec),
                            request,
                        };
                        self.command(cx, SchedCommand::Submit(Box::new(submit)));
                    }
                    Err(err) => {
                        let note = format!("cannot parse jobspec: {err}");
                        job_manager::sched_event(cx, id, SchedEvent::Deny { note });
                    }
                },
                SchedRequest::Cancel(id) => self.command(cx, SchedCommand::Cancel { id: id.0 }),
                SchedRequest::Prioritize(jobs) => {
                    let jobs = jobs.into_iter().map(|(id, priority)| (id.0, priority)).collect();
                    self.command(cx, SchedCommand::Prioritize(jobs));
                }
                SchedRequest::Free { id, ranks } => self.command(cx, SchedCommand::Free { id: id.0, ranks }),
                SchedRequest::Expiration { id, expiration } => {
                    self.command(cx, SchedCommand::Extend { id: id.0, expiration });
                }
                SchedRequest::Adopt { id, r } => {
                    self.command(
                        cx,
                        SchedCommand::Adopt {
                            id: id.0,
                            r: r.to_string().into(),
                        },
                    );
                }
            }
        }
    }

    pub(super) fn on_resources(&mut self, cx: &mut Cx<'_>, update: AcquireUpdate) {
        match update {
            AcquireUpdate::Initial { r, up } => {
                if self.defined && !self.begin_again(cx) {
                    return;
                }
                self.defined = true;
                job_manager::instance_expiration(cx, r.expiration);
                let down = r.ranks().difference(&up);
                self.command(cx, SchedCommand::Define { r: r.encode().into() });
                if !down.is_empty() {
                    self.command(cx, SchedCommand::Down(down));
                }
            }
            AcquireUpdate::Up(ranks) => self.command(cx, SchedCommand::Up(ranks)),
            AcquireUpdate::Down(ranks) => self.command(cx, SchedCommand::Down(ranks)),
            AcquireUpdate::Shrink(ranks) => self.command(cx, SchedCommand::Shrink(ranks)),
            AcquireUpdate::Expiration(at) => {
                job_manager::instance_expiration(cx, at);
                self.command(cx, SchedCommand::Expiration(at));
            }
        }
    }

    /// Other resources than before: a new engine learns everything from the job manager, so that nothing is given away
    /// before it knows what jobs hold. Returns false when there is no new engine.
    fn begin_again(&mut self, cx: &mut Cx<'_>) -> bool {
        job_manager::sched_ready(cx, false);
        self.ready = false;
        self.pending = 0;
        self.commands.clear();
        match (self.make)(cx, &self.policy) {
            Ok(engine) => self.engine = Some(engine),
            Err(err) => self.engine_lost(cx, &err),
        }
        self.engine.is_some()
    }

    /// Goes on with another policy, which learns everything anew; jobs that run keep what they hold.
    fn change_policy(&mut self, cx: &mut Cx<'_>, name: String) {
        self.former = Some(std::mem::replace(&mut self.policy, name));
        self.renew(cx);
    }

    /// Has a new engine made.
    fn renew(&mut self, cx: &mut Cx<'_>) {
        if !self.defined {
            // resources will come to the new engine
            self.begin_again(cx);
        } else if !(self.acquire)(cx) {
            self.engine_lost(cx, &RpcError::new(errno::ENOSYS, "the resource module is gone"));
        }
    }

    /// A policy cannot be loaded: the one before goes on.
    fn policy_failed(&mut self, cx: &mut Cx<'_>, why: &str) {
        match self.former.take() {
            Some(former) => {
                let text = format!("policy {} cannot be used: {why}: {former} goes on", self.policy);
                cx.log_as_me(2, &text);
                self.policy = former;
                self.renew(cx);
            }
            None => self.engine_lost(cx, &RpcError::new(errno::EIO, why)),
        }
    }

    /// Takes the engine's answers.
    pub(super) fn on_answers(&mut self, cx: &mut Cx<'_>) {
        let Some(engine) = &mut self.engine else { return };
        let answers = match engine.receive() {
            Ok(answers) => answers,
            Err(err) => return self.engine_lost(cx, &err),
        };
        let mut events = Vec::new();
        for answer in answers {
            match answer {
                Answer::Sched(answer) => self.on_answer(cx, answer, &mut events),
                Answer::Log(record) => crate::modules::policy_link::log(cx, &record),
                Answer::Ready(Err(err)) => {
                    return self.policy_failed(cx, &crate::modules::policy_link::chain(&err));
                }
                Answer::Ready(Ok(())) => self.former = None,
                Answer::Configured { result: Err(err), .. } => {
                    cx.log_as_me(
                        3,
                        &format!(
                            "configuration refused: {}",
                            crate::modules::policy_link::chain(&err)
                        ),
                    );
                }
                Answer::Configured { .. } | Answer::Ingest { .. } | Answer::Tap(_) => {}
            }
        }
        if !events.is_empty() {
            job_manager::sched_events(cx, events);
        }
    }

    fn on_answer(&mut self, cx: &mut Cx<'_>, answer: SchedAnswer, events: &mut Vec<(JobId, SchedEvent)>) {
        match answer {
            SchedAnswer::Alloc { id, r, annotations } => {
                self.pending = self.pending.saturating_sub(1);
                self.allocated += 1;
                events.push((JobId(id), SchedEvent::Alloc { r, annotations }));
            }
            SchedAnswer::Annotate { id, annotations } => {
                events.push((JobId(id), SchedEvent::Annotate { annotations }));
            }
            SchedAnswer::Deny { id, note } => {
                self.pending = self.pending.saturating_sub(1);
                events.push((JobId(id), SchedEvent::Deny { note }));
            }
            SchedAnswer::Cancelled { id } => {
                self.pending = self.pending.saturating_sub(1);
                events.push((JobId(id), SchedEvent::Cancelled));
            }
            SchedAnswer::AdoptFailed { id, note } => {
                job_manager::raise(cx, JobId(id), 0, "scheduler-restart", &note);
            }
            SchedAnswer::Defined(Ok(())) => {
                if !self.ready {
                    self.ready = true;
                    job_manager::sched_ready(cx, true);
                    lifecycle::scheduler_settled(cx);
                }
            }
            SchedAnswer::Defined(Err(why)) => {
                cx.log_as_me(2, &format!("resources cannot be used: {why}"));
                lifecycle::scheduler_settled(cx);
            }
            SchedAnswer::Feasible { token, result } => {
                let Some(req) = self.waiting.remove(&token) else {
                    return;
                };
                match result {
                    Ok(()) => cx.respond_empty(&req),
                    Err(text) => cx.fail(&req, errno::EINVAL, &text),
                }
            }
            SchedAnswer::Status {
                token,
                all,
                down,
                allocated,
            } => {
                let Some(req) = self.waiting.remove(&token) else {
                    return;
                };
                let raw = RawValue::from_string;
                match (raw(all), raw(down), raw(allocated)) {
                    (Ok(all), Ok(down), Ok(allocated)) => {
                        cx.respond(&req, &ResourceStatusResponse { all, down, allocated });
                    }
                    _ => cx.fail(&req, errno::EPROTO, "the scheduler's resources are no JSON"),
                }
            }
        }
    }

    fn token_for(&mut self, req: &Message) -> u64 {
        self.next_token += 1;
        self.waiting.insert(self.next_token, req.clone());
        self.next_token
    }

    fn on_feasibility(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let FeasibilityRequest { jobspec } = req.payload_json()?;
        let request = Request::from_jobspec(&jobspec)
            .map_err(|err| RpcError::new(errno::EINVAL, format!("cannot parse jobspec: {err}")))?;
        self.check_engine()?;
        let token = self.token_for(req);
        self.command(
            cx,
            SchedCommand::CheckFeasible {
                token,
                request: Box::new(request),
            },
        );
        Ok(())
    }

    /// A running job's time limit has changed: plans of waiting jobs depend on it.
    fn on_expiration(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let ExpirationRequest { id, expiration } = req.payload_json()?;
        self.check_engine()?;
        self.command(cx, SchedCommand::Extend { id: id.0, expiration });
        cx.respond_empty(req);
        Ok(())
    }

    fn check_engine(&self) -> Result<(), RpcError> {
        if self.engine.is_some() {
            Ok(())
        } else {
            Err(RpcError::new(errno::EIO, "the scheduler's plugin is not loaded"))
        }
    }
}

/// Returns the queue that a jobspec names; empty when it names none.
fn queue_of(jobspec: &Value) -> Box<str> {
    let queue = jobspec.pointer("/attributes/system/queue");
    queue.and_then(Value::as_str).unwrap_or("").into()
}

const SCHED: &[Method] = &[
    Method::user("resource-status"),
    Method::owner("expiration"),
    Method::owner("alloc"),
    Method::owner("cancel"),
    Method::owner("free"),
    Method::owner("prioritize"),
];
const FEASIBILITY: &[Method] = &[Method::user("check")];

impl Service for Sched {
    fn interfaces(&self) -> Vec<Interface> {
        vec![
            Interface {
                service: super::api::SERVICE,
                methods: SCHED,
            },
            Interface {
                service: "feasibility",
                methods: FEASIBILITY,
            },
            Interface {
                service: "sched-simple",
                methods: &[],
            },
        ]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        self.policy = engine::policy(&cx.config)?;
        self.engine = Some((self.make)(cx, &self.policy)?);
        if !(self.acquire)(cx) {
            return Err(RpcError::new(
                errno::ENOSYS,
                "the resource module must be loaded first",
            ));
        }
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        let result = match req.topic.as_str() {
            "sched.resource-status" => self.check_engine().map(|()| {
                let token = self.token_for(&req);
                self.command(cx, SchedCommand::Status { token });
            }),
            "feasibility.check" => self.on_feasibility(cx, &req),
            "sched.expiration" => self.on_expiration(cx, &req),
            _ => Err(RpcError::new(
                errno::ENOSYS,
                "this scheduler serves the job manager of its own broker only",
            )),
        };
        if let Err(err) = result {
            cx.fail_with(&req, &err);
        }
    }

    fn on_disconnect(&mut self, _cx: &mut Cx<'_>, msg: &Message) {
        self.waiting.retain(|_, req| req.sender() != msg.sender());
    }

    fn stats(&mut self, _cx: &mut Cx<'_>) -> Option<Value> {
        Some(json!({"policy": self.policy, "pending_jobs": self.pending, "allocated_jobs": self.allocated}))
    }

    fn config_prepare(&mut self, cx: &mut Cx<'_>, config: &Rc<Value>) -> Result<(), RpcError> {
        if engine::policy(config)? == self.policy {
            return Ok(());
        }
        engine::check(cx, config)
    }

    fn config_commit(&mut self, cx: &mut Cx<'_>) {
        match engine::policy(&cx.config) {
            Ok(name) if name != self.policy => return self.change_policy(cx, name),
            // what stopped may have been mended
            _ if self.engine.is_none() => return self.renew(cx),
            _ => {}
        }
        let config = crate::modules::policy_link::config_text(cx);
        if let Some(engine) = &mut self.engine
            && let Err(err) = engine.send(cx, vec![Command::Configure { token: 0, config }])
        {
            self.engine_lost(cx, &err);
        }
    }

    fn stop(&mut self, cx: &mut Cx<'_>) -> bool {
        resource::release(cx);
        job_manager::sched_ready(cx, false);
        for (_, req) in self.waiting.drain() {
            cx.fail(&req, errno::ENOSYS, "the scheduler is unloading");
        }
        true
    }
}
