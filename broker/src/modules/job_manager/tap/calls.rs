//! When are plugins called for a job, and where do their answers go?

use super::super::JobManager;
use super::super::job::Asked;
use super::super::state::State;
use super::state::Waiting;
use super::view;
use super::wants::Wants;
use crate::modules::policy_link;
use crate::service::Cx;
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_policy::{Answer, Command, Effect, Priority, TapAnswer, TapCall, TapCommand, TapJob, Verdict};
use std::sync::Arc;

impl JobManager {
    /// Queues a command for the end of the turn.
    pub(super) fn tap_command(&mut self, cx: &mut Cx<'_>, command: TapCommand) {
        self.tap.out.push(command);
        self.arm(cx);
    }

    /// Sends the commands of this turn.
    pub(in super::super) fn tap_flush(&mut self, cx: &mut Cx<'_>) {
        if self.tap.out.is_empty() {
            return;
        }
        let commands = std::mem::take(&mut self.tap.out)
            .into_iter()
            .map(Command::Tap)
            .collect();
        self.tap_send(cx, commands);
    }

    pub(super) fn tap_send(&mut self, cx: &mut Cx<'_>, commands: Vec<Command>) {
        if let Err(err) = self.tap.port.send(cx, commands) {
            self.tap_lost(cx, &err.text);
        }
    }

    /// Without plugins nothing can be decided any more.
    fn tap_lost(&mut self, cx: &mut Cx<'_>, why: &str) {
        if self.tap.failed.is_none() {
            cx.log_as_me(2, &format!("jobtap: {why}: submissions are refused"));
            self.tap.failed = Some(why.to_owned());
        }
        self.tap.wants = Wants::default();
        let waiting: Vec<Waiting> = self.tap.waiting.drain().map(|(_, waiting)| waiting).collect();
        for waiting in waiting {
            match waiting {
                Waiting::Admission(admission) => self.not_admitted(cx, &admission, why),
                Waiting::Gate(id) | Waiting::Priority(id) => self.open_gate(cx, id),
                Waiting::Update(pending) => cx.fail(&pending.request, errno::EIO, why),
                Waiting::Response(req)
                | Waiting::Query(req, _)
                | Waiting::Stats(req)
                | Waiting::ModuleStats(req) => cx.fail(&req, errno::EIO, why),
                Waiting::Again(_) | Waiting::Nothing | Waiting::Load(_) => {}
            }
        }
    }

    /// Calls plugins for an active job.
    pub(super) fn tap_call(
        &mut self,
        cx: &mut Cx<'_>,
        id: JobId,
        call: TapCall,
        waiting: Waiting,
        only: Option<Arc<str>>,
    ) {
        let Some(job) = self.active.get_mut(&id) else {
            return;
        };
        if matches!(waiting, Waiting::Gate(_) | Waiting::Priority(_)) {
            job.tap.waiting += 1;
        }
        let job = Arc::new(view::active(job));
        self.tap_ask(cx, job, call, only, waiting);
    }

    /// Tells plugins that a job has a new state.
    pub(in super::super) fn tap_state(&mut self, cx: &mut Cx<'_>, id: JobId) {
        let Some(job) = self.active.get_mut(&id) else {
            return;
        };
        if job.state == State::Priority {
            // a priority that plugins gave at the submission stands for the first time
            let known = job.tap.skip & State::Priority.bit() != 0;
            if !known {
                job.tap.priority = Asked::No;
            }
        }
        let bit = job.state.bit();
        if job.tap.skip & bit != 0 {
            job.tap.skip &= !bit;
            return;
        }
        if self.tap.wants.state(bit, &job.jobspec) {
            self.tap_call(cx, id, TapCall::State, Waiting::Gate(id), None);
        }
    }

    /// Tells subscribers of an event.
    pub(in super::super) fn tap_event(&mut self, cx: &mut Cx<'_>, id: JobId, name: &Arc<str>, line: &str) {
        let Some(plugins) = self.tap.subscribers.get(&id) else {
            return;
        };
        let entry: Arc<str> = Arc::from(line.trim_end());
        for plugin in plugins.clone() {
            if self.tap.wants.event(&plugin, name) {
                let call = TapCall::Event {
                    name: name.clone(),
                    entry: entry.clone(),
                };
                self.tap_call(cx, id, call, Waiting::Gate(id), Some(plugin));
            }
        }
    }

    /// Returns true when a job has subscribers.
    pub(in super::super) fn tap_is_watched(&self, id: JobId) -> bool {
        !self.tap.subscribers.is_empty() && self.tap.subscribers.contains_key(&id)
    }

    /// Asks for the priority of a job in PRIORITY.
    pub(in super::super) fn tap_ask_priority(&mut self, cx: &mut Cx<'_>, id: JobId) {
        if let Some(job) = self.active.get_mut(&id) {
            job.tap.priority = Asked::Now;
        }
        self.tap_call(cx, id, TapCall::Priority, Waiting::Priority(id), None);
    }

    /// Tells plugins that a job is out of the way.
    pub(in super::super) fn tap_retired(&mut self, cx: &mut Cx<'_>, job: &super::super::job::Job) {
        self.tap.subscribers.remove(&job.id);
        let calls = [
            (self.tap.wants.added(&job.jobspec), TapCall::Added),
            (self.tap.wants.destroy, TapCall::Destroy),
        ];
        for (wanted, call) in calls {
            if wanted {
                self.tap_ask(cx, Arc::new(view::active(job)), call, None, Waiting::Nothing);
            }
        }
    }

    /// Tells plugins that an inactive job was purged.
    pub(in super::super) fn tap_purged(&mut self, cx: &mut Cx<'_>, id: JobId) {
        if self.tap.wants.removed {
            self.tap_ask(cx, view::id_only(id), TapCall::Removed, None, Waiting::Nothing);
        }
    }

    /// Calls plugins, or only one, about a job; `waiting` says where the answer goes.
    pub(super) fn tap_ask(
        &mut self,
        cx: &mut Cx<'_>,
        job: Arc<TapJob>,
        call: TapCall,
        only: Option<Arc<str>>,
        waiting: Waiting,
    ) {
        let token = self.tap.expect(waiting);
        self.tap_command(
            cx,
            TapCommand::Call {
                token,
                job,
                call,
                only,
            },
        );
    }

    /// Takes what the policy thread says.
    pub(in super::super) fn on_tap_answers(&mut self, cx: &mut Cx<'_>) {
        let answers = match self.tap.port.receive() {
            Ok(answers) => answers,
            Err(err) => return self.tap_lost(cx, &err.text),
        };
        for answer in answers {
            match answer {
                Answer::Tap(answer) => self.on_tap_answer(cx, answer),
                Answer::Log(record) => policy_link::log(cx, &record),
                Answer::Ready(Err(err)) => {
                    let why = policy_link::chain(&err);
                    self.tap_lost(cx, &why);
                    self.tap.starting = 0;
                    self.finish_restart(cx);
                }
                Answer::Configured { result: Err(err), .. } => {
                    let why = policy_link::chain(&err);
                    cx.log_as_me(
                        3,
                        &format!("configuration refused: {why}: plugins keep the former one"),
                    );
                }
                Answer::Ready(Ok(()))
                | Answer::Configured { .. }
                | Answer::Ingest { .. }
                | Answer::Sched(_) => {}
            }
        }
    }

    fn on_tap_answer(&mut self, cx: &mut Cx<'_>, answer: TapAnswer) {
        match answer {
            TapAnswer::Done {
                token,
                effects,
                verdict,
            } => self.on_tap_done(cx, token, effects, verdict),
            TapAnswer::Loaded { token, result } => self.on_tap_loaded(cx, token, result),
            TapAnswer::Rebuilt { name } => {
                self.tell_known(cx, Some(&name));
                self.replay_to(cx, Some(&name));
                self.tap_command(cx, TapCommand::Replayed { name });
            }
            TapAnswer::Topics { name, topics } => {
                if let Some(plugin) = self.tap.loaded.iter_mut().find(|plugin| plugin.info.name == name) {
                    plugin.info.topics = topics;
                }
                self.tap_wants_changed(cx);
            }
            TapAnswer::Stats { token, plugins } => match self.tap.waiting.remove(&token) {
                Some(Waiting::Stats(req)) => self.answer_stats(cx, &req, &plugins),
                Some(Waiting::ModuleStats(req)) => self.answer_module_stats(cx, &req, &plugins),
                _ => {}
            },
        }
    }

    fn on_tap_done(&mut self, cx: &mut Cx<'_>, token: u64, effects: Vec<Effect>, verdict: Verdict) {
        match self.tap.waiting.remove(&token) {
            Some(Waiting::Admission(admission)) => self.admitted(cx, *admission, effects, verdict),
            Some(Waiting::Gate(id)) => {
                self.apply_effects(cx, effects);
                self.open_gate(cx, id);
            }
            Some(Waiting::Priority(id)) => {
                self.apply_effects(cx, effects);
                if let (Verdict::Priority(priority), Some(job)) = (verdict, self.active.get_mut(&id))
                    && job.tap.priority == Asked::Now
                {
                    job.tap.priority = Asked::Got(priority);
                }
                self.open_gate(cx, id);
            }
            Some(Waiting::Again(id)) => {
                self.apply_effects(cx, effects);
                if let Verdict::Priority(Priority::Value(priority)) = verdict {
                    self.set_priority(cx, id, priority);
                }
            }
            Some(Waiting::Update(pending)) => self.on_update_checked(cx, *pending, effects, verdict),
            Some(Waiting::Response(req)) => match self.apply_asked(cx, &req, effects) {
                Ok(changed) => self.respond_verdict(cx, &req, verdict, changed),
                Err(err) => cx.fail_with(&req, &err),
            },
            Some(Waiting::Query(req, about)) => self.answer_query(cx, &req, about, verdict),
            Some(Waiting::Nothing | Waiting::Load(_) | Waiting::Stats(_) | Waiting::ModuleStats(_))
            | None => {
                self.apply_effects(cx, effects);
            }
        }
    }

    /// A job may go on, unless other plugins are still to answer.
    fn open_gate(&mut self, cx: &mut Cx<'_>, id: JobId) {
        if let Some(job) = self.active.get_mut(&id) {
            job.tap.waiting = job.tap.waiting.saturating_sub(1);
            if job.tap.waiting == 0 && job.tap.priority == Asked::Now {
                job.tap.priority = Asked::Got(Priority::Pass);
            }
        }
        self.drive(cx, id);
    }
}
