//! What do the job manager and its plugins say to each other?

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::PolicyError;
use crate::host::Refusal;
use crate::plugin::{Grant, PluginSpec};

use super::job::TapJob;
use super::stats::PluginStats;
use super::topic::Topic;

/// A dependency of a jobspec.
#[derive(Clone, Debug, PartialEq)]
pub struct Dependency {
    /// Its `scheme`.
    pub scheme: String,
    /// The object, JSON text.
    pub entry: String,
    /// The job that its `value` is the id of.
    pub target: Option<Arc<TapJob>>,
}

/// A callback, or several that follow from each other.
#[derive(Clone, Debug, PartialEq)]
pub enum TapCall {
    /// A submission: create, validate, all dependencies, new; then, if nothing holds it, depend, priority and priority.get as well.
    Admit {
        /// In the order of the jobspec.
        dependencies: Vec<Dependency>,
    },
    /// An active job, told again: create, new, and in DEPEND its dependencies and that state.
    Replay {
        /// Empty unless it is in DEPEND.
        dependencies: Vec<Dependency>,
    },
    /// `job.state.STATE`, for the state that the job has.
    State,
    /// `job.event.NAME` to a subscriber.
    Event {
        /// Event name.
        name: Arc<str>,
        /// Line of the eventlog without newline.
        entry: Arc<str>,
    },
    /// `job.priority.get`.
    Priority,
    /// `job.update.KEY` for each key, then `job.validate` for what no plugin declared valid.
    Update {
        /// Keys and JSON texts.
        updates: Vec<(String, String)>,
        /// The jobspec with the updates.
        updated: Arc<str>,
        /// Who asks.
        userid: u32,
        /// With which roles.
        rolemask: u32,
    },
    /// `job.destroy`.
    Destroy,
    /// `job.inactive-add`.
    Added,
    /// `job.inactive-remove`.
    Removed,
    /// `job.known`, to one plugin.
    Known {
        /// Ids and users.
        jobs: Arc<[(u64, u32)]>,
    },
    /// A timer has expired.
    Expired {
        /// Its key.
        key: String,
    },
    /// A program has ended.
    Exited {
        /// Which.
        token: u64,
        /// Wait status.
        status: i32,
        /// Where and how it failed.
        details: Vec<(String, String)>,
    },
    /// The answer to [`Action::LookUp`]; the command's job is the one that was found.
    LookedUp {
        /// Which.
        token: u64,
        /// There is such a job.
        found: bool,
    },
    /// A request to `job-manager.NAME.METHOD`.
    Request {
        /// Method.
        method: String,
        /// JSON text.
        payload: String,
        /// Who asks.
        userid: u32,
        /// With which roles.
        rolemask: u32,
    },
    /// `plugin.query`.
    Query,
}

/// One message to the stack.
#[derive(Debug)]
pub enum TapCommand {
    /// Loads a plugin at the end of the stack; answered by [`TapAnswer::Loaded`]. With the name of a loaded plugin it takes that one's
    /// place if it can be loaded, else everything stays.
    Load {
        /// Comes back.
        token: u64,
        /// The plugin.
        spec: Box<PluginSpec>,
        /// Name under which it is known.
        name: Arc<str>,
        /// Its `state`.
        values: BTreeMap<String, String>,
    },
    /// Drops a plugin.
    Remove {
        /// Its name.
        name: Arc<str>,
    },
    /// Calls plugins; answered by [`TapAnswer::Done`].
    Call {
        /// Comes back.
        token: u64,
        /// The job; an empty one for calls without.
        job: Arc<TapJob>,
        /// What to call.
        call: TapCall,
        /// This plugin alone.
        only: Option<Arc<str>>,
    },
    /// All active jobs were told again to a plugin that was rebuilt.
    Replayed {
        /// Its name.
        name: Arc<str>,
    },
    /// Asks for figures; answered by [`TapAnswer::Stats`].
    Stats {
        /// Comes back.
        token: u64,
    },
}

/// What a plugin asks for (interface `actions` and its neighbours).
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is described at its function in wit/")]
pub enum Action {
    DependencyAdd {
        job: u64,
        description: String,
    },
    DependencyRemove {
        job: u64,
        description: String,
    },
    Prioritize {
        job: u64,
        priority: u64,
    },
    Reprioritize {
        job: u64,
    },
    ReprioritizeAll,
    Annotate {
        job: u64,
        annotations: String,
    },
    Raise {
        job: u64,
        kind: String,
        severity: u8,
        note: String,
    },
    SetFlag {
        job: u64,
        flag: String,
    },
    Post {
        job: u64,
        name: String,
        context: String,
    },
    UpdateJobspec {
        job: u64,
        updates: String,
    },
    Subscribe {
        job: u64,
    },
    Unsubscribe {
        job: u64,
    },
    PrologStart {
        job: u64,
        description: String,
    },
    PrologFinish {
        job: u64,
        description: String,
        status: i32,
    },
    EpilogStart {
        job: u64,
        description: String,
    },
    EpilogFinish {
        job: u64,
        description: String,
        status: i32,
    },
    LookUp {
        token: u64,
        job: u64,
    },
    SetTimer {
        key: String,
        at: f64,
    },
    CancelTimer {
        key: String,
    },
    Spawn {
        token: u64,
        job: u64,
        command: Vec<String>,
        options: Vec<(String, String)>,
    },
    Kill {
        token: u64,
        signum: u32,
    },
    SetResources {
        job: u64,
        r: String,
    },
    /// The plugin's whole state after the call.
    SaveState {
        values: BTreeMap<String, String>,
    },
}

/// An action with the plugin that asks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// Name under which it is known.
    pub plugin: Arc<str>,
    /// What it asks for.
    pub action: Action,
}

/// What plugins said of a priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// All passed.
    #[default]
    Pass,
    /// Not known yet.
    Unavailable,
    /// This one.
    Value(u64),
}

/// How far a submission came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// Bits of the states whose callbacks were made already.
    pub states: u32,
    /// Its priority, when it was asked for.
    pub priority: Option<Priority>,
    /// So many of the effects are from before the job was accepted.
    pub early: usize,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing to say.
    None,
    /// To [`TapCall::Admit`].
    Admitted(Admitted),
    /// A plugin refuses.
    Refused(Refusal),
    /// To [`TapCall::Priority`].
    Priority(Priority),
    /// To [`TapCall::Update`]: further changes, JSON texts of objects, and whether plugins declared all updates valid.
    Updated {
        /// In the order of the keys.
        updates: Vec<String>,
        /// Nothing had to be validated.
        validated: bool,
    },
    /// To [`TapCall::Request`] and [`TapCall::Query`]: JSON text.
    Response(String),
}

/// How a plugin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginState {
    /// In use.
    Running,
    /// Loaded and configured; takes memory from its first call on.
    Resting,
    /// Failed, to be rebuilt at the next call.
    Rebuilding,
    /// Failed too often: called no more.
    Quarantined,
}

/// A plugin that was loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginInfo {
    /// Name under which it is known.
    pub name: Arc<str>,
    /// Callbacks that it wants.
    pub topics: Vec<Topic>,
    /// Version of the plugin.
    pub version: String,
    /// SHA-256 of its `.wasm`.
    pub sha256: String,
    /// Granted interfaces.
    pub grants: Vec<Grant>,
}

/// One message from the stack.
#[derive(Debug)]
pub enum TapAnswer {
    /// To [`TapCommand::Load`].
    Loaded {
        /// From the command.
        token: u64,
        /// What is known of it, or why it is not loaded.
        result: Result<PluginInfo, PolicyError>,
    },
    /// To [`TapCommand::Call`].
    Done {
        /// From the command.
        token: u64,
        /// What plugins ask for, in order.
        effects: Vec<Effect>,
        /// What they say.
        verdict: Verdict,
    },
    /// A plugin that counts jobs has a new instance: it must be told all active jobs ([`TapCall::Replay`]), then [`TapCommand::Replayed`]; all other
    /// calls wait for that.
    Rebuilt {
        /// Its name.
        name: Arc<str>,
    },
    /// The callbacks that a plugin wants have changed with the configuration.
    Topics {
        /// Its name.
        name: Arc<str>,
        /// What it wants now.
        topics: Vec<Topic>,
    },
    /// To [`TapCommand::Stats`].
    Stats {
        /// From the command.
        token: u64,
        /// In the order of the stack.
        plugins: Vec<PluginStats>,
    },
}
