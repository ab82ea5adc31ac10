//! What does the job manager keep of its plugins?

use super::super::api::Answer;
use super::super::job::Job;
use super::admit::Admission;
use super::load::Loading;
use super::names::Named;
use super::port::Plugins;
use super::programs::Programs;
use super::timers::Timers;
use super::update::Pending;
use super::wants::Wants;
use crate::service::RpcError;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use flux_policy::{PluginInfo, TapCommand};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// A plugin of the stack.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) info: PluginInfo,
    /// Its file, as `flux jobtap query` shows it.
    pub(super) path: String,
}

/// For what an answer of the policy thread is awaited.
pub(super) enum Waiting {
    /// A submission.
    Admission(Box<Admission>),
    /// A job takes no step before.
    Gate(JobId),
    /// So, too; the answer is its priority.
    Priority(JobId),
    /// The priority of a job that waits for resources already.
    Again(JobId),
    /// An update.
    Update(Box<Pending>),
    /// Nobody.
    Nothing,
    /// A plugin.
    Load(Box<Loading>),
    /// A request to be answered with what a plugin says.
    Response(Message),
    /// `jobtap-query`: merged into name and path.
    Query(Message, Value),
    /// A list with figures.
    Stats(Message),
    /// `job-manager.stats-get`, which has the figures of plugins among its own.
    ModuleStats(Message),
}

/// Submissions of one request, whose results are answered together.
pub(super) struct Group {
    pub(super) results: Vec<Result<JobId, RpcError>>,
    pub(super) outstanding: usize,
    pub(super) answer: GroupAnswer,
}

/// Who gets the results.
pub(super) enum GroupAnswer {
    /// `job-ingest`.
    Local(Answer),
    /// `job-manager.submit`.
    Rpc(Message),
}

/// The jobtap plugins as the job manager sees them.
pub(in super::super) struct Tap {
    pub(super) port: Box<dyn Plugins>,
    pub(in super::super) wants: Wants,
    /// In the order of the stack.
    pub(super) loaded: Vec<Loaded>,
    /// Commands of this turn.
    pub(super) out: Vec<TapCommand>,
    pub(super) waiting: HashMap<u64, Waiting>,
    pub(super) groups: HashMap<u64, Group>,
    pub(super) next_token: u64,
    pub(super) timers: Timers,
    pub(super) programs: Programs,
    /// When the broker's timer for them fires; infinite when there is none.
    pub(super) timer_at: f64,
    /// Who has subscribed to a job's events.
    pub(super) subscribers: HashMap<JobId, Vec<Arc<str>>>,
    /// The plugins' `state`.
    pub(super) saved: HashMap<Arc<str>, BTreeMap<String, String>>,
    /// Why submissions are refused.
    pub(super) failed: Option<String>,
    /// Plugins that are loaded at start and have not answered.
    pub(super) starting: usize,
    /// Those of them that wait until one before them is compiled.
    pub(super) queued: VecDeque<Named>,
    /// When the instance ends; 0 is never.
    pub(super) expiration: f64,
    /// Registered methods.
    pub(super) methods: Vec<String>,
}

impl Tap {
    pub(in super::super) fn new(port: Box<dyn Plugins>) -> Tap {
        Tap {
            port,
            wants: Wants::default(),
            loaded: Vec::new(),
            out: Vec::new(),
            waiting: HashMap::new(),
            groups: HashMap::new(),
            next_token: 0,
            timers: Timers::default(),
            programs: Programs::default(),
            timer_at: f64::INFINITY,
            subscribers: HashMap::new(),
            saved: HashMap::new(),
            failed: None,
            starting: 0,
            queued: VecDeque::new(),
            expiration: 0.0,
            methods: Vec::new(),
        }
    }

    /// Returns a token for an answer.
    pub(super) fn expect(&mut self, what: Waiting) -> u64 {
        self.next_token += 1;
        self.waiting.insert(self.next_token, what);
        self.next_token
    }

    /// Makes known what the plugins want now.
    pub(super) fn take_wants(&mut self) {
        let plugins = self
            .loaded
            .iter()
            .map(|plugin| (&plugin.info.name, plugin.info.topics.as_slice()));
        self.wants = Wants::of(plugins);
    }

    /// Returns true when plugins say something about the priority of a job.
    pub(in super::super) fn asks_priority(&self, job: &Job) -> bool {
        self.wants.asks_priority(&job.jobspec, job.urgency)
    }
}
