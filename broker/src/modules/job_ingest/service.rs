//! The ingest module's actor: one batch of submissions per turn goes to the plugins, one to the job manager.

use super::check::{Checked, check};
use super::config::Config;
use super::verify::Verifier;
use crate::modules::job_manager::api::{self as job_manager, Submission};
use crate::modules::policy_link::{self, PolicyLink};
use crate::service::{Cx, Interface, Method, RpcError, Service};
use flux_formats::errno;
use flux_formats::eventlog;
use flux_formats::fsd::Fsd;
use flux_formats::jobid::{FluidGenerator, JobId};
use flux_formats::jobspec::Apart;
use flux_formats::msg::Message;
use flux_formats::rpc::job_ingest::{GetinfoResponse, SubmitResponse, flags};
use flux_policy::{Accepted, Answer, Command, IngestJob, Refusal};
use flux_sign::Mechanism;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The ingest module (`job-ingest`).
#[derive(Debug)]
pub struct JobIngest {
    args: Vec<String>,
    config: Config,
    plugins: Plugins,
    /// Submissions that the plugins look at, by token.
    pending: HashMap<u64, (Message, Checked)>,
    next_token: u64,
    /// Commands of this turn.
    commands: Vec<Command>,
    /// Submissions that passed in this turn.
    ready: Vec<(Message, Checked)>,
    armed: bool,
    ids: Option<FluidGenerator>,
    stride: Option<Stride>,
    frobnicator: Counters,
    validator: Counters,
    pub(super) verifier: Verifier,
}

/// A clock for job ids that advances by a fixed time with each job: attribute `test.jobid-step`, a test aid that
/// spreads a few jobs over as many KVS directories as hours of operation would fill.
#[derive(Debug)]
struct Stride {
    step: Duration,
    now: Duration,
}

impl Stride {
    fn of(text: &str) -> Result<Self, RpcError> {
        let step = text.parse::<Fsd>().ok().and_then(Fsd::to_duration);
        let step = step.ok_or_else(|| {
            RpcError::new(
                errno::EINVAL,
                format!("attribute test.jobid-step: \"{text}\" is not a duration such as 18ms"),
            )
        })?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Stride { step, now })
    }

    fn next_ms(&mut self) -> u64 {
        self.now = self.now.saturating_add(self.step);
        u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX)
    }
}

/// What is known of the plugins.
#[derive(Debug)]
enum Plugins {
    /// None is configured.
    None,
    /// Loaded, or being loaded.
    Open(PolicyLink),
    /// Configured, but not usable: every submission is refused with this.
    Failed(RpcError),
}

/// Figures for `flux module stats job-ingest`.
#[derive(Debug, Default)]
struct Counters {
    requests: u64,
    errors: u64,
}

impl JobIngest {
    /// Returns a module with the arguments of `flux module load`.
    pub fn new(args: &[String]) -> Self {
        JobIngest {
            args: args.to_vec(),
            config: Config {
                frobnicators: Vec::new(),
                validators: Vec::new(),
                feasibility: false,
                allow_root_jobs: false,
            },
            plugins: Plugins::None,
            pending: HashMap::new(),
            next_token: 0,
            commands: Vec::new(),
            ready: Vec::new(),
            armed: false,
            ids: None,
            stride: None,
            frobnicator: Counters::default(),
            validator: Counters::default(),
            verifier: Verifier::of_site(),
        }
    }

    fn open_plugins(&mut self, cx: &mut Cx<'_>) {
        if self.config.frobnicators.is_empty() && self.config.validators.is_empty() {
            self.plugins = Plugins::None;
            return;
        }
        let host = self
            .config
            .host(policy_link::policy_dir(cx), policy_link::config_text(cx));
        self.plugins = match PolicyLink::open(cx, host, JobIngest::on_answers) {
            Ok(link) => Plugins::Open(link),
            Err(err) => {
                cx.log_as_me(2, &format!("submissions are refused: {}", err.text));
                Plugins::Failed(err)
            }
        };
    }

    fn arm(&mut self, cx: &mut Cx<'_>) {
        if !self.armed {
            self.armed = true;
            cx.later(|me: &mut JobIngest, cx| me.flush(cx));
        }
    }

    fn flush(&mut self, cx: &mut Cx<'_>) {
        self.armed = false;
        let commands = std::mem::take(&mut self.commands);
        if !commands.is_empty() {
            let sent = match &mut self.plugins {
                Plugins::Open(link) => link.send(commands),
                Plugins::Failed(err) => Err(err.clone()),
                Plugins::None => Ok(()),
            };
            if let Err(err) = sent {
                self.plugins_failed(cx, err);
            }
        }
        self.hand_over(cx);
    }

    /// The plugins cannot be used: nothing passes unchecked.
    fn plugins_failed(&mut self, cx: &mut Cx<'_>, err: RpcError) {
        cx.log_as_me(2, &format!("submissions are refused: {}", err.text));
        for (_, (req, _)) in self.pending.drain() {
            cx.fail_with(&req, &err);
        }
        self.plugins = Plugins::Failed(err);
    }

    fn on_submit(&mut self, cx: &mut Cx<'_>, req: Message) {
        let checked = match check(&req, cx.owner, self.config.allow_root_jobs) {
            Ok(checked) => checked,
            Err(err) => return cx.fail_with(&req, &err),
        };
        if checked.mechanism == Mechanism::None {
            self.pass_on(cx, req, checked);
        } else {
            self.verify_first(cx, req, checked);
        }
    }

    /// Hands a submission whose author is known to the plugins.
    pub(super) fn pass_on(&mut self, cx: &mut Cx<'_>, req: Message, checked: Checked) {
        let novalidate = checked.flags & flags::NOVALIDATE != 0;
        let frobnicates = !self.config.frobnicators.is_empty();
        let validates = !self.config.validators.is_empty() && !novalidate;
        self.frobnicator.requests += u64::from(frobnicates);
        self.validator.requests += u64::from(validates);
        if frobnicates || validates {
            if let Plugins::Failed(err) = &self.plugins {
                let err = err.clone();
                return cx.fail_with(&req, &err);
            }
            let job = IngestJob {
                userid: checked.userid,
                rolemask: checked.rolemask,
                urgency: checked.urgency.into(),
                flags: checked.flags,
                novalidate,
                jobspec: checked.text.clone(),
            };
            self.next_token += 1;
            self.commands.push(Command::Ingest {
                token: self.next_token,
                job: Box::new(job),
            });
            self.pending.insert(self.next_token, (req, checked));
        } else {
            self.validated(cx, req, checked);
        }
        self.arm(cx);
    }

    /// Takes the plugins' answers.
    fn on_answers(&mut self, cx: &mut Cx<'_>) {
        let Plugins::Open(link) = &mut self.plugins else {
            return;
        };
        let answers = match link.receive() {
            Ok(answers) => answers,
            Err(err) => return self.plugins_failed(cx, err),
        };
        for answer in answers {
            match answer {
                Answer::Ingest { token, result } => {
                    let Some((req, checked)) = self.pending.remove(&token) else {
                        continue;
                    };
                    match result {
                        Ok(accepted) => self.accepted(cx, req, checked, accepted),
                        Err(refusal) => self.refused(cx, &req, &refusal),
                    }
                }
                Answer::Log(record) => policy_link::log(cx, &record),
                Answer::Ready(Err(err)) => {
                    let err = RpcError::new(errno::EIO, policy_link::chain(&err));
                    return self.plugins_failed(cx, err);
                }
                Answer::Configured { result: Err(err), .. } => {
                    cx.log_as_me(3, &format!("configuration refused: {}", policy_link::chain(&err)));
                }
                Answer::Ready(Ok(())) | Answer::Configured { .. } | Answer::Sched(_) | Answer::Tap(_) => {}
            }
        }
        self.hand_over(cx);
    }

    fn refused(&mut self, cx: &mut Cx<'_>, req: &Message, refusal: &Refusal) {
        let by_frobnicator = self
            .config
            .frobnicators
            .iter()
            .any(|plugin| plugin.name == *refusal.plugin);
        let counters = if by_frobnicator {
            &mut self.frobnicator
        } else {
            &mut self.validator
        };
        counters.errors += 1;
        cx.fail(req, refusal.errnum, &refusal.text);
    }

    fn accepted(&mut self, cx: &mut Cx<'_>, req: Message, mut checked: Checked, accepted: Accepted) {
        if accepted.changed {
            match Apart::read(&accepted.jobspec) {
                Ok(jobspec) => checked.jobspec = jobspec,
                Err(err) => {
                    let text = format!("error decoding jobspec from frobnicator: {err}");
                    return cx.fail(&req, errno::EINVAL, &text);
                }
            }
        }
        self.validated(cx, req, checked);
    }

    /// Asks the scheduler whether a job can ever run, where the site wants that; without a scheduler it can.
    fn validated(&mut self, cx: &mut Cx<'_>, req: Message, checked: Checked) {
        if !self.config.feasibility || checked.flags & flags::NOVALIDATE != 0 {
            self.ready.push((req, checked));
            return;
        }
        let question = cx.request_any("feasibility.check", &json!({"jobspec": checked.jobspec.jobspec}));
        cx.rpc(question, move |me: &mut JobIngest, cx, result| match result {
            Err(err) if err.errnum != errno::ENOSYS => cx.fail_with(&req, &err),
            _ => {
                me.ready.push((req, checked));
                me.arm(cx);
            }
        });
    }

    /// Gives ids to what passed and hands it to the job manager in one call.
    fn hand_over(&mut self, cx: &mut Cx<'_>) {
        // until the largest id of a former run is known nothing gets one
        let Some(ids) = &mut self.ids else { return };
        if self.ready.is_empty() {
            return;
        }
        let now = SystemTime::now();
        let t_submit = eventlog::timestamp(now);
        let now_ms = millis(now);
        let mut requests = Vec::with_capacity(self.ready.len());
        let mut jobs = Vec::with_capacity(self.ready.len());
        for (req, checked) in self.ready.drain(..) {
            let now_ms = self.stride.as_mut().map_or(now_ms, Stride::next_ms);
            match ids.generate(now_ms) {
                Ok(id) => {
                    jobs.push(submission(id, t_submit, checked));
                    requests.push(req);
                }
                Err(err) => cx.fail(&req, errno::EINVAL, &err.to_string()),
            }
        }
        let requests = Rc::new(requests);
        let waiting = requests.clone();
        let sent = job_manager::submit(cx, jobs, move |_: &mut JobIngest, cx, results| {
            for (req, result) in waiting.iter().zip(results) {
                cx.answer(req, result.map(|id| SubmitResponse { id }));
            }
        });
        if !sent {
            for req in requests.iter() {
                cx.fail(req, errno::ENOSYS, "job-manager is not loaded");
            }
        }
    }

    fn start_ids(&mut self, cx: &mut Cx<'_>, max: JobId) {
        let next = FluidGenerator::timestamp_ms(max) + 1;
        let epoch = millis(SystemTime::now()).saturating_sub(next);
        match FluidGenerator::new(0, epoch) {
            Ok(mut ids) => {
                ids.advance_past(max);
                self.ids = Some(ids);
                self.hand_over(cx);
            }
            Err(err) => tracing::error!(service = "job-ingest", err = %err, "no job ids can be made"),
        }
    }

    fn counters(&self, counters: &Counters, loaded: bool) -> Value {
        let running = u8::from(loaded && matches!(self.plugins, Plugins::Open(_)));
        json!({
            "running": running, "requests": counters.requests, "errors": counters.errors, "trash": 0,
            "backlog": self.pending.len(), "pids": [0, 0, 0, 0],
        })
    }
}

fn millis(time: SystemTime) -> u64 {
    let elapsed = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// Returns what the job manager takes. The environment goes to the shells, not into the KVS or to others' eyes.
fn submission(id: JobId, t_submit: f64, checked: Checked) -> Submission {
    let Checked {
        urgency,
        flags,
        userid,
        j,
        jobspec: Apart { jobspec, environment },
        ..
    } = checked;
    let jobspec_text = jobspec.to_string().into_bytes();
    Submission {
        id,
        userid,
        urgency,
        flags,
        t_submit,
        jobspec,
        environment,
        jobspec_text,
        j,
    }
}

impl Service for JobIngest {
    fn interfaces(&self) -> Vec<Interface> {
        const METHODS: &[Method] = &[Method::user("submit"), Method::owner("getinfo")];
        vec![Interface {
            service: "job-ingest",
            methods: METHODS,
        }]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        let config = cx.config.clone();
        self.config = Config::read(&config, &self.args)?;
        if let Some(step) = cx.attrs.get("test.jobid-step") {
            self.stride = Some(Stride::of(step)?);
        }
        let asked = job_manager::max_jobid(cx, |me: &mut JobIngest, cx, max| me.start_ids(cx, max));
        if !asked {
            return Err(RpcError::new(errno::ENOSYS, "job-manager must be loaded first"));
        }
        self.open_plugins(cx);
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        match req.topic.method() {
            "submit" => self.on_submit(cx, req),
            _ => {
                let id = self
                    .ids
                    .as_mut()
                    .and_then(|ids| ids.generate(millis(SystemTime::now())).ok());
                match id {
                    Some(id) => {
                        cx.respond(
                            &req,
                            &GetinfoResponse {
                                timestamp: FluidGenerator::timestamp_ms(id),
                            },
                        );
                    }
                    None => cx.fail(&req, errno::EAGAIN, "job ids are not known yet"),
                }
            }
        }
    }

    fn stats(&mut self, _cx: &mut Cx<'_>) -> Option<Value> {
        Some(json!({"pipeline": {
            "frobnicator": self.counters(&self.frobnicator, !self.config.frobnicators.is_empty()),
            "validator": self.counters(&self.validator, !self.config.validators.is_empty()),
        }}))
    }

    fn config_prepare(&mut self, _cx: &mut Cx<'_>, config: &Rc<Value>) -> Result<(), RpcError> {
        Config::read(config, &self.args).map(|_| ())
    }

    fn config_commit(&mut self, cx: &mut Cx<'_>) {
        self.verifier.reload();
        let config = cx.config.clone();
        let Ok(new) = Config::read(&config, &self.args) else {
            return;
        };
        let same = new == self.config;
        self.config = new;
        if !same {
            // what the old plugins have not answered is checked by the new ones
            let pending = std::mem::take(&mut self.pending);
            self.open_plugins(cx);
            for (_, (req, checked)) in pending {
                self.pass_on(cx, req, checked);
            }
            return;
        }
        let text: Arc<str> = policy_link::config_text(cx);
        if let Plugins::Open(link) = &mut self.plugins
            && let Err(err) = link.send([Command::Configure {
                token: 0,
                config: text,
            }])
        {
            self.plugins_failed(cx, err);
        }
    }

    fn stop(&mut self, cx: &mut Cx<'_>) -> bool {
        let pending = std::mem::take(&mut self.pending).into_values();
        let unverified = self.verifier.abandon();
        for (req, _) in pending.chain(std::mem::take(&mut self.ready)).chain(unverified) {
            cx.fail(&req, errno::ENOSYS, "job-ingest is unloading");
        }
        true
    }
}
