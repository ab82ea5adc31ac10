//! A store, a scheduler and an executor that do what the tests say, in the hub's thread.

use super::super::api::{self, ExecEvent, SchedEvent, Submission};
use super::super::ports::{Change, Executor, SchedRequest, Scheduler, Store, Stored};
use super::super::tap::Plugins;
use super::super::{JobManager, state};
use crate::modules::job_exec::api::StartRequest;
use crate::service::testing::{Probe, TestHub, body, request};
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::idset::IdSet;
use flux_formats::jobid::JobId;
use flux_formats::msg::{Message, role};
use serde::Serialize;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::rc::Rc;

/// What the fakes share with the test.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) map: BTreeMap<String, Vec<u8>>,
    pub(crate) commits: usize,
    pub(crate) durable_commits: usize,
    /// Keys that were looked up.
    pub(crate) lookups: Vec<String>,
    /// Commits fail with this.
    pub(crate) fail: Option<u32>,
    /// A failing commit is visible all the same.
    pub(crate) fail_visible: bool,
    /// Free slots of the scheduler.
    pub(crate) slots: usize,
    pub(crate) pending: BTreeSet<(Reverse<u64>, JobId)>,
    pub(crate) holding: HashSet<JobId>,
    pub(crate) adopted: Vec<JobId>,
    pub(crate) denied: Option<String>,
    pub(crate) no_scheduler: bool,
    /// Cancellations arrive after the answer.
    pub(crate) late_cancel: bool,
    pub(crate) starts: Vec<StartRequest>,
    pub(crate) exceptions: Vec<(JobId, u8, String)>,
    pub(crate) expirations: Vec<(JobId, f64)>,
    /// Jobs run to their end as soon as they are started.
    pub(crate) auto: bool,
    pub(crate) exec_gone: bool,
}

impl World {
    /// Returns the largest job id in the store.
    fn last_id(&self) -> u64 {
        let logs = self.map.keys().filter_map(|key| key.strip_suffix(".eventlog"));
        logs.filter_map(|path| path.parse::<JobId>().ok())
            .map(|id| id.0)
            .max()
            .unwrap_or(0)
    }
}

pub(crate) type Shared = Rc<RefCell<World>>;

struct FakeStore(Shared);
struct FakeScheduler(Shared);
struct FakeExecutor(Shared);

/// The plugins, in the hub's thread.
struct InlinePlugins(Option<flux_policy::PolicyHost>);

impl Plugins for InlinePlugins {
    fn exist(&self) -> bool {
        true
    }

    fn open(
        &mut self,
        cx: &mut Cx<'_>,
        dir: std::path::PathBuf,
        config: std::sync::Arc<str>,
    ) -> Result<(), RpcError> {
        let config = flux_policy::HostConfig {
            dir,
            config,
            ..flux_policy::HostConfig::default()
        };
        self.0 = flux_policy::PolicyHost::inline(config).ok();
        self.send(cx, Vec::new())
    }

    fn send(&mut self, cx: &mut Cx<'_>, commands: Vec<flux_policy::Command>) -> Result<(), RpcError> {
        if let Some(host) = &mut self.0 {
            host.send(1_795_240_138.0, commands)
                .map_err(|err| RpcError::new(errno::EIO, err.to_string()))?;
        }
        let me = cx.slot();
        cx.to_slot::<JobManager>(me, JobManager::on_tap_answers);
        Ok(())
    }

    fn receive(&mut self) -> Result<Vec<flux_policy::Answer>, RpcError> {
        let mut answers = Vec::new();
        if let Some(host) = &mut self.0 {
            host.receive(&mut answers);
        }
        Ok(answers)
    }
}

fn reply<T: 'static>(cx: &mut Cx<'_>, done: Stored<T>, result: Result<T, RpcError>) {
    let me = cx.slot();
    cx.to_slot::<JobManager>(me, move |jobs, cx| done(jobs, cx, result));
}

impl Store for FakeStore {
    fn commit(&mut self, cx: &mut Cx<'_>, changes: Vec<Change>, durable: bool, done: Stored<()>) {
        let mut world = self.0.borrow_mut();
        world.commits += 1;
        world.durable_commits += usize::from(durable);
        let failed = world
            .fail
            .map(|errnum| RpcError::new(errnum, "store.sqlite: disk full"));
        if failed.is_none() || world.fail_visible {
            for change in changes {
                match change {
                    Change::Put(key, value) => drop(world.map.insert(key, value.to_vec())),
                    Change::Append(key, data) => world.map.entry(key).or_default().extend(data),
                    Change::Unlink(key) => world.map.retain(|k, _| !k.starts_with(&key)),
                }
            }
        }
        drop(world);
        reply(cx, done, failed.map_or(Ok(()), Err));
    }

    fn lookup(&mut self, cx: &mut Cx<'_>, key: &str, done: Stored<Bytes>) {
        self.0.borrow_mut().lookups.push(key.to_owned());
        let found = self.0.borrow().map.get(key).map(|v| Bytes::copy_from_slice(v));
        reply(cx, done, found.ok_or_else(|| RpcError::bare(errno::ENOENT)));
    }

    fn lookup_dir(&mut self, cx: &mut Cx<'_>, key: &str, done: Stored<Vec<String>>) {
        let prefix = format!("{key}.");
        let names: BTreeSet<String> = self
            .0
            .borrow()
            .map
            .keys()
            .filter_map(|k| k.strip_prefix(&prefix))
            .filter_map(|rest| rest.split('.').next().map(str::to_owned))
            .collect();
        let result = if names.is_empty() {
            Err(RpcError::bare(errno::ENOENT))
        } else {
            Ok(names.into_iter().collect())
        };
        reply(cx, done, result);
    }
}

/// R of a one-core job.
pub(crate) fn r_text() -> String {
    json!({"version": 1, "execution": {"R_lite": [{"rank": "0", "children": {"core": "0"}}],
        "starttime": 1_795_240_138.5, "expiration": 0.0, "nslots": 1, "nodelist": ["vm"]}})
    .to_string()
}

impl Scheduler for FakeScheduler {
    fn send(&mut self, cx: &mut Cx<'_>, requests: Vec<SchedRequest>) -> bool {
        let mut world = self.0.borrow_mut();
        if world.no_scheduler {
            return false;
        }
        let mut answers = Vec::new();
        for request in requests {
            match request {
                SchedRequest::Alloc { id, priority, .. } => {
                    if let Some(note) = world.denied.clone() {
                        answers.push((id, SchedEvent::Deny { note }));
                    } else {
                        world.pending.insert((Reverse(priority), id));
                    }
                }
                SchedRequest::Cancel(_) if world.late_cancel => {}
                SchedRequest::Cancel(id) => {
                    world.pending.retain(|(_, pending)| *pending != id);
                    answers.push((id, SchedEvent::Cancelled));
                }
                SchedRequest::Prioritize(jobs) => {
                    for (id, priority) in jobs {
                        world.pending.retain(|(_, pending)| *pending != id);
                        world.pending.insert((Reverse(priority), id));
                    }
                }
                SchedRequest::Free { id, ranks: None } => {
                    assert!(world.holding.remove(&id), "{id} freed twice");
                    world.slots += 1;
                }
                SchedRequest::Free { .. } | SchedRequest::Expiration { .. } => {}
                SchedRequest::Adopt { id, .. } => {
                    world.adopted.push(id);
                    world.holding.insert(id);
                }
            }
        }
        while world.slots > 0
            && let Some((_, id)) = world.pending.pop_first()
        {
            world.slots -= 1;
            assert!(world.holding.insert(id), "{id} allocated twice");
            let annotations = r#"{"sched":{"resource_summary":"rank0/core0"}}"#.to_owned();
            answers.push((
                id,
                SchedEvent::Alloc {
                    r: r_text(),
                    annotations,
                },
            ));
        }
        drop(world);
        if !answers.is_empty() {
            api::sched_events(cx, answers);
        }
        true
    }
}

impl Executor for FakeExecutor {
    fn is_ready(&self, _cx: &Cx<'_>) -> bool {
        !self.0.borrow().exec_gone
    }

    fn start(&mut self, cx: &mut Cx<'_>, request: StartRequest) -> bool {
        let mut world = self.0.borrow_mut();
        if world.exec_gone {
            return false;
        }
        if world.auto {
            finish(cx, request.id, 0);
        } else {
            world.starts.push(request);
        }
        true
    }

    fn exception(&mut self, _cx: &mut Cx<'_>, id: JobId, severity: u8, kind: &str, _: Option<i64>) {
        self.0
            .borrow_mut()
            .exceptions
            .push((id, severity, kind.to_owned()));
    }

    fn expiration(&mut self, _cx: &mut Cx<'_>, id: JobId, expiration: f64) {
        self.0.borrow_mut().expirations.push((id, expiration));
    }

    fn restored(&mut self, _: &mut Cx<'_>) {}
}

/// Reports a job's start and end.
pub(crate) fn finish(cx: &mut Cx<'_>, id: JobId, status: i32) {
    api::exec_event(cx, id, ExecEvent::Start);
    end(cx, id, status);
}

/// Reports a job's end.
pub(crate) fn end(cx: &mut Cx<'_>, id: JobId, status: i32) {
    api::exec_event(cx, id, ExecEvent::Finish { status });
    api::exec_event(
        cx,
        id,
        ExecEvent::Release {
            ranks: IdSet::from_range(0, 0),
            last: true,
        },
    );
}

/// A hub with a job manager over the fakes.
pub(crate) struct Bench {
    pub(crate) hub: TestHub,
    pub(crate) world: Shared,
    /// The last id given out.
    next: u64,
}

/// Results of a submission.
pub(crate) type Submitted = Vec<Result<JobId, RpcError>>;

/// An answer to a request, kept by the probe.
pub(crate) type Reply = Rc<RefCell<Option<Result<Value, RpcError>>>>;

impl Bench {
    pub(crate) fn new(slots: usize, auto: bool) -> Self {
        let world = Rc::new(RefCell::new(World {
            slots,
            auto,
            ..World::default()
        }));
        Self::over(world)
    }

    /// A job manager that asks the scheduler module of the hub; that is to be loaded by the test.
    pub(crate) fn with_local_scheduler(auto: bool, config: Value) -> Self {
        let world = Rc::new(RefCell::new(World {
            auto,
            ..World::default()
        }));
        let mut hub = TestHub::new(&[]);
        hub.hub.core().config = Rc::new(config);
        let jobs = JobManager::with_ports(
            Box::new(FakeStore(world.clone())),
            Box::new(super::super::ports::LocalScheduler),
            Box::new(FakeExecutor(world.clone())),
        );
        hub.load("job-manager", Box::new(jobs)).unwrap();
        Bench {
            hub,
            world,
            next: 1 << 24,
        }
    }

    /// Starts a job manager over what an earlier one left.
    pub(crate) fn over(world: Shared) -> Self {
        Self::over_with(world, &[])
    }

    /// The same with broker attributes.
    pub(crate) fn over_with(world: Shared, attributes: &[(&str, &str)]) -> Self {
        let mut hub = TestHub::new(attributes);
        let jobs = JobManager::with_ports(
            Box::new(FakeStore(world.clone())),
            Box::new(FakeScheduler(world.clone())),
            Box::new(FakeExecutor(world.clone())),
        );
        hub.load("job-manager", Box::new(jobs)).unwrap();
        hub.with_probe(|cx| api::sched_ready(cx, true));
        let next = world.borrow().last_id().max(1 << 24);
        Bench { hub, world, next }
    }

    /// A job manager with the standard plugins, in the hub's thread; `None` when they are not built.
    pub(crate) fn with_plugins(slots: usize, auto: bool, config: Value) -> Option<Self> {
        let world = Rc::new(RefCell::new(World {
            slots,
            auto,
            ..World::default()
        }));
        Self::plugins_over(world, config)
    }

    /// The same over what an earlier one left.
    pub(crate) fn plugins_over(world: Shared, mut config: Value) -> Option<Self> {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/policies");
        if !std::path::Path::new(dir).join("jobtap-begin-time.json").is_file() {
            println!("skipped: policies are not built");
            return None;
        }
        if config.pointer("/policies/directory").is_none() {
            config["policies"] = json!({ "directory": dir });
        }
        let mut hub = TestHub::new(&[]);
        hub.hub.core().config = Rc::new(config);
        let jobs = JobManager::with_ports(
            Box::new(FakeStore(world.clone())),
            Box::new(FakeScheduler(world.clone())),
            Box::new(FakeExecutor(world.clone())),
        )
        .with_plugins(Box::new(InlinePlugins(None)));
        hub.load("job-manager", Box::new(jobs)).unwrap();
        hub.with_probe(|cx| api::sched_ready(cx, true));
        let next = world.borrow().last_id().max(1 << 24);
        Some(Bench { hub, world, next })
    }

    pub(crate) fn submission(&mut self, urgency: u8, flags: u32) -> Submission {
        self.next += 1 << 24;
        let jobspec =
            json!({"resources": [], "tasks": [], "attributes": {"system": {"duration": 0}}, "version": 1});
        Submission {
            id: JobId(self.next),
            userid: 1000,
            urgency,
            flags,
            t_submit: 1_795_240_138.25,
            jobspec_text: jobspec.to_string().into_bytes(),
            jobspec,
            environment: serde_json::value::to_raw_value(&json!({"PATH": "/bin"})).ok(),
            j: Rc::from("J"),
        }
    }

    /// Submits jobs in one turn; returns the results. Their texts are written anew: jobs of equal texts share a jobspec, so
    /// a text of another jobspec than the job's own would make it a different job.
    pub(crate) fn submit_all(&mut self, mut jobs: Vec<Submission>) -> Submitted {
        for job in &mut jobs {
            job.jobspec_text = job.jobspec.to_string().into_bytes();
        }
        let out: Rc<RefCell<Option<Submitted>>> = Rc::default();
        let slot = out.clone();
        self.hub.with_probe(move |cx| {
            api::submit(cx, jobs, move |_: &mut Probe, _, results| {
                *slot.borrow_mut() = Some(results)
            });
        });
        out.take().unwrap_or_default()
    }

    pub(crate) fn submit(&mut self) -> JobId {
        let job = self.submission(16, 0);
        self.submit_all(vec![job]).remove(0).unwrap()
    }

    /// Calls into the job manager's neighbours.
    pub(crate) fn with(&mut self, call: impl FnOnce(&mut Cx<'_>) + 'static) {
        self.hub.with_probe(call);
    }

    /// Sends a request; the reply may come later.
    pub(crate) fn send<T: Serialize>(&mut self, topic: &'static str, body_value: &T) -> Reply {
        self.send_as(1000, role::OWNER, topic, body_value)
    }

    pub(crate) fn send_as<T: Serialize>(
        &mut self,
        userid: u32,
        rolemask: u32,
        topic: &'static str,
        payload: &T,
    ) -> Reply {
        let mut req: Message = request(topic, payload);
        req.userid = userid;
        req.rolemask = rolemask;
        let reply: Reply = Rc::default();
        let slot = reply.clone();
        self.hub.with_probe(move |cx| {
            cx.rpc(req, move |_: &mut Probe, _, result| {
                *slot.borrow_mut() = Some(result.map(|msg| body(&msg)));
            });
        });
        reply
    }

    /// Sends a request that is answered at once.
    pub(crate) fn rpc<T: Serialize>(&mut self, topic: &'static str, payload: &T) -> Result<Value, RpcError> {
        self.send(topic, payload).take().expect("no answer")
    }

    /// Sends a request that fails; returns errnum and text.
    pub(crate) fn refused<T: Serialize>(&mut self, topic: &'static str, payload: &T) -> (u32, String) {
        let err = self.rpc(topic, payload).unwrap_err();
        (err.errnum, err.text)
    }

    pub(crate) fn log(&self, id: JobId) -> String {
        let world = self.world.borrow();
        let log = world
            .map
            .get(&id.kvs_key("eventlog"))
            .cloned()
            .unwrap_or_default();
        String::from_utf8(log).unwrap()
    }

    /// Returns the names in a job's eventlog.
    pub(crate) fn events(&self, id: JobId) -> Vec<String> {
        let log = flux_formats::eventlog::decode_log(&self.log(id)).unwrap();
        log.into_iter().map(|event| event.name).collect()
    }

    /// Returns the context of the last event of that name.
    pub(crate) fn context(&self, id: JobId, name: &str) -> Value {
        let log = flux_formats::eventlog::decode_log(&self.log(id)).unwrap();
        let event = log.into_iter().rfind(|event| event.name == name).unwrap();
        event.context_as().unwrap()
    }

    pub(crate) fn cancel(&mut self, id: JobId) -> Result<Value, RpcError> {
        self.rpc(
            "job-manager.raise",
            &json!({"id": id, "severity": 0, "type": "cancel", "note": ""}),
        )
    }

    /// Returns the ids of all jobs, newest first.
    pub(crate) fn known(&mut self) -> Value {
        let out: Rc<RefCell<Vec<u64>>> = Rc::default();
        let slot = out.clone();
        self.hub.with_probe(move |cx| {
            api::known_jobs(cx, move |_: &mut Probe, _, ids| *slot.borrow_mut() = ids);
        });
        json!(*out.borrow())
    }

    /// Returns a job's state bit, 0 when it is not active.
    pub(crate) fn state(&mut self, id: JobId) -> u32 {
        let out = Rc::new(RefCell::new(0));
        let slot = out.clone();
        self.hub.with_probe(move |cx| {
            api::active_job(cx, id, move |_: &mut Probe, _, job| {
                *slot.borrow_mut() = job.map_or(0, |job| job.state);
            });
        });
        let state = *out.borrow();
        assert!(state == 0 || state & state::ACTIVE != 0);
        state
    }
}

/// Returns the CPU time that this thread has used, in seconds.
pub(crate) fn cpu_secs() -> f64 {
    use nix::sys::time::TimeValLike;
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD).unwrap();
    (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6
}
