//! Whom does the job manager ask to store, to schedule and to run jobs?
//!
//! The three services are behind traits so that the job manager is tested, and measured, without them.

use super::JobManager;
use crate::modules::kvs;
use crate::modules::{job_exec, sched};
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::idset::IdSet;
use flux_formats::jobid::JobId;
use serde_json::Value;
use std::rc::Rc;

/// A request to the scheduler (RFC 27).
#[derive(Clone, Debug)]
pub(crate) enum SchedRequest {
    /// Allocate resources to a job.
    Alloc {
        /// The job.
        id: JobId,
        /// Its priority.
        priority: u64,
        /// Its user.
        userid: u32,
        /// Submission time.
        t_submit: f64,
        /// Jobspec without environment.
        jobspec: Rc<Value>,
    },
    /// Drop an alloc request; answered by `Cancelled`, or by what came before it.
    Cancel(JobId),
    /// Other priorities of pending requests.
    Prioritize(Vec<(JobId, u64)>),
    /// Resources are free again.
    Free {
        /// The job that held them.
        id: JobId,
        /// These ranks of it, or `None` for all that is left.
        ranks: Option<IdSet>,
    },
    /// A running job ends at another time.
    Expiration {
        /// The job.
        id: JobId,
        /// Seconds since the epoch, 0 never.
        expiration: f64,
    },
    /// A job that holds resources already, when the scheduler starts.
    Adopt {
        /// The job.
        id: JobId,
        /// Its R.
        r: Rc<Value>,
    },
}

/// The scheduler as the job manager sees it.
pub(crate) trait Scheduler {
    /// Takes requests, in order. Returns false when there is no scheduler.
    fn send(&mut self, cx: &mut Cx<'_>, requests: Vec<SchedRequest>) -> bool;
}

/// The execution service as the job manager sees it.
pub(crate) trait Executor {
    /// Returns true when it is there.
    fn is_ready(&self, cx: &Cx<'_>) -> bool;
    /// Starts a job. Returns false when the service is not there.
    fn start(&mut self, cx: &mut Cx<'_>, request: job_exec::api::StartRequest) -> bool;
    /// Tells of an exception.
    /// `wait_status` is that of the task which caused it.
    fn exception(&mut self, cx: &mut Cx<'_>, id: JobId, severity: u8, kind: &str, wait_status: Option<i64>);
    /// Tells of another time limit.
    fn expiration(&mut self, cx: &mut Cx<'_>, id: JobId, expiration: f64);
    /// Tells that it has been asked for all jobs which had been started before.
    fn restored(&mut self, cx: &mut Cx<'_>);
}

/// The scheduler module of this broker.
#[derive(Debug)]
pub(super) struct LocalScheduler;

impl Scheduler for LocalScheduler {
    fn send(&mut self, cx: &mut Cx<'_>, requests: Vec<SchedRequest>) -> bool {
        sched::api::requests(cx, requests)
    }
}

/// The execution module of this broker.
#[derive(Debug)]
pub(super) struct LocalExecutor;

impl Executor for LocalExecutor {
    fn is_ready(&self, cx: &Cx<'_>) -> bool {
        cx.provides(job_exec::api::SERVICE)
    }

    fn start(&mut self, cx: &mut Cx<'_>, request: job_exec::api::StartRequest) -> bool {
        job_exec::api::start(cx, request)
    }

    fn exception(&mut self, cx: &mut Cx<'_>, id: JobId, severity: u8, kind: &str, wait_status: Option<i64>) {
        job_exec::api::exception(cx, id, severity, kind, wait_status);
    }

    fn expiration(&mut self, cx: &mut Cx<'_>, id: JobId, expiration: f64) {
        job_exec::api::expiration(cx, id, expiration);
    }

    fn restored(&mut self, cx: &mut Cx<'_>) {
        job_exec::api::restored(cx);
    }
}

/// One change to the KVS.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// Sets a value.
    Put(String, Bytes),
    /// Appends to a value.
    Append(String, Bytes),
    /// Removes a key with all below it.
    Unlink(String),
}

/// What runs when the store has answered.
pub(crate) type Stored<T> = Box<dyn FnOnce(&mut JobManager, &mut Cx<'_>, Result<T, RpcError>)>;

/// The primary namespace of the KVS as the job manager sees it.
pub(crate) trait Store {
    /// Commits changes in order; `done` runs when they are visible and, if `durable`, on stable storage.
    fn commit(&mut self, cx: &mut Cx<'_>, changes: Vec<Change>, durable: bool, done: Stored<()>);
    /// Looks up a value.
    fn lookup(&mut self, cx: &mut Cx<'_>, key: &str, done: Stored<Bytes>);
    /// Looks up the names in a directory.
    fn lookup_dir(&mut self, cx: &mut Cx<'_>, key: &str, done: Stored<Vec<String>>);
}

/// The kvs module of this broker.
#[derive(Debug)]
pub(super) struct LocalStore;

/// The namespace that holds jobs (RFC 16).
const PRIMARY: &str = "primary";

impl Store for LocalStore {
    fn commit(&mut self, cx: &mut Cx<'_>, changes: Vec<Change>, durable: bool, done: Stored<()>) {
        let mut txn = kvs::Txn::new();
        for change in changes {
            match change {
                Change::Put(key, value) => txn.put(&key, value),
                Change::Append(key, data) => txn.append(&key, &data),
                Change::Unlink(key) => txn.unlink(&key),
            };
        }
        let done = move |me: &mut JobManager, cx: &mut Cx<'_>, result: Result<kvs::CommitInfo, RpcError>| {
            done(me, cx, result.map(|_| ()));
        };
        if durable {
            kvs::commit_durable(cx, PRIMARY, txn, done);
        } else {
            kvs::commit(cx, PRIMARY, txn, done);
        }
    }

    fn lookup(&mut self, cx: &mut Cx<'_>, key: &str, done: Stored<Bytes>) {
        kvs::lookup(cx, PRIMARY, key, done);
    }

    fn lookup_dir(&mut self, cx: &mut Cx<'_>, key: &str, done: Stored<Vec<String>>) {
        kvs::lookup_dir(cx, PRIMARY, key, done);
    }
}
