//! Who runs housekeeping, and where does its end lead?

use super::super::JobManager;
use super::super::ports::SchedRequest;
use super::super::program::{self, Lines, Reply};
use super::allocation::{Allocation, Step};
use super::config::ReleaseAfter;
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::idset::IdSet;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use flux_formats::resource_set::ResourceSet;
use flux_formats::rpc::job_manager::HousekeepingKillRequest;
use flux_formats::signal;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A job whose nodes are cleaned up.
#[derive(Debug)]
pub(super) struct Running {
    allocation: Allocation,
    userid: u32,
    /// Process ids, as far as they are known.
    pids: BTreeMap<u32, i64>,
    /// Signals for those that are not known yet.
    signals: BTreeMap<u32, i32>,
    /// Wait status, by rank.
    statuses: BTreeMap<u32, i32>,
    lines: Lines,
}

impl JobManager {
    /// Takes over the resources of a job that gives them up, if housekeeping is configured. The programs start when
    /// the job's `free` event is in the KVS ([`JobManager::housekeeping_begin`]).
    pub(in super::super) fn housekeeping_adopt(&mut self, id: JobId) {
        if self.config.housekeeping.is_none() {
            return;
        }
        let now = self.now();
        let Some(job) = self.active.get(&id).filter(|job| !job.marks.bypass) else {
            return;
        };
        let r = job.r.as_deref().map(ResourceSet::from_value);
        let Some(Ok(r)) = r else {
            tracing::error!(jobid = %id, "R is not readable: no housekeeping");
            return;
        };
        let held = r.copy_ranks(&r.ranks().difference(&job.given_back));
        if held.is_empty() {
            return;
        }
        let running = Running {
            allocation: Allocation::new(held, now),
            userid: job.userid,
            pids: BTreeMap::new(),
            signals: BTreeMap::new(),
            statuses: BTreeMap::new(),
            lines: Lines::default(),
        };
        self.housekeeping.running.insert(id, running);
    }

    /// Starts the programs; returns false when housekeeping does not hold the job's resources.
    pub(in super::super) fn housekeeping_begin(&mut self, cx: &mut Cx<'_>, id: JobId) -> bool {
        let Some(running) = self.housekeeping.running.get(&id) else {
            return false;
        };
        let Some(config) = &self.config.housekeeping else {
            // not configured any more
            self.housekeeping.running.remove(&id);
            return false;
        };
        let ranks = running.allocation.pending.clone();
        let mut env = Map::new();
        env.insert("FLUX_JOB_ID".to_owned(), id.0.to_string().into());
        env.insert("FLUX_JOB_USERID".to_owned(), running.userid.to_string().into());
        env.insert("FLUX_JOB_RANKS".to_owned(), ranks.to_string().into());
        let request = program::request(cx, config.command.clone(), env);
        cx.log_as_me(7, &format!("housekeeping: {id} started"));
        for rank in ranks.iter() {
            let message = cx.request("rexec.exec", rank, &request);
            cx.rpc_stream(message, move |me: &mut JobManager, cx, result| {
                me.on_housekeeping(cx, id, rank, result);
            });
        }
        true
    }

    fn on_housekeeping(&mut self, cx: &mut Cx<'_>, id: JobId, rank: u32, result: Result<Message, RpcError>) {
        let Some(running) = self.housekeeping.running.get_mut(&id) else {
            return;
        };
        let reply = match result {
            Ok(message) => message.payload_json::<Reply>().ok(),
            Err(err) => {
                let why = if err.errnum == errno::ENODATA {
                    running.statuses.get(&rank).copied().and_then(failure)
                } else {
                    Some(err.text)
                };
                if let Some(why) = why {
                    log_line(cx, 3, id, rank, &why);
                }
                return self.housekeeping_ended(cx, id, rank);
            }
        };
        let Some(reply) = reply else { return };
        match reply.kind.as_str() {
            "started" => {
                if let Some(pid) = reply.pid {
                    running.pids.insert(rank, pid);
                    if let Some(signum) = running.signals.remove(&rank) {
                        program::kill(cx, rank, pid, signum);
                    }
                }
            }
            "output" => {
                let Some(io) = reply.io else { return };
                for line in running.lines.add(rank, &io) {
                    log_line(cx, program::level_of(&io.stream), id, rank, &line);
                }
            }
            "finished" => {
                running.statuses.insert(rank, reply.status.unwrap_or(0));
            }
            _ => {}
        }
    }

    fn housekeeping_ended(&mut self, cx: &mut Cx<'_>, id: JobId, rank: u32) {
        let after = self.release_after();
        let Some(running) = self.housekeeping.running.get_mut(&id) else {
            return;
        };
        running.pids.remove(&rank);
        let step = running.allocation.ended(rank, after);
        self.housekeeping_step(cx, id, step);
    }

    fn release_after(&self) -> ReleaseAfter {
        self.config
            .housekeeping
            .as_ref()
            .map_or(ReleaseAfter::All, |config| config.release_after)
    }

    fn housekeeping_step(&mut self, cx: &mut Cx<'_>, id: JobId, step: Step) {
        if let (true, ReleaseAfter::Time(time)) = (step.arm, self.release_after()) {
            cx.timer(time, move |me: &mut JobManager, cx| {
                if let Some(running) = me.housekeeping.running.get_mut(&id) {
                    let step = running.allocation.expired();
                    me.housekeeping_step(cx, id, step);
                }
            });
        }
        let Some(ranks) = step.release else { return };
        let ranks = (!step.last).then_some(ranks);
        self.sched_request(cx, SchedRequest::Free { id, ranks });
        if step.last {
            self.housekeeping.running.remove(&id);
            cx.log_as_me(7, &format!("housekeeping: {id} complete"));
        }
    }

    /// Tells a new scheduler what housekeeping holds.
    pub(in super::super) fn housekeeping_hello(&mut self) {
        for (id, running) in &self.housekeeping.running {
            self.sched_requests.push(SchedRequest::Adopt {
                id: *id,
                r: Rc::new(running.allocation.held.to_value()),
            });
        }
    }

    /// Returns the resources that housekeeping holds.
    pub(in super::super) fn housekeeping_held(&self) -> impl Iterator<Item = &ResourceSet> {
        let running = self.housekeeping.running.values();
        running.map(|running| &running.allocation.held)
    }

    /// Returns what `job-manager.stats-get` tells of housekeeping.
    pub(in super::super) fn housekeeping_stats(&self) -> Value {
        let running: Map<String, Value> = self
            .housekeeping
            .running
            .iter()
            .map(|(id, running)| {
                let Allocation {
                    t_start,
                    held,
                    pending,
                    ..
                } = &running.allocation;
                let told = json!({
                    "t_start": t_start, "pending": pending.to_string(), "allocated": held.ranks().to_string(),
                });
                (id.to_string(), told)
            })
            .collect();
        let command = self
            .config
            .housekeeping
            .as_ref()
            .map(|config| config.command.join(" "));
        json!({
            "running": running,
            "config": {
                "release-after": self.release_after().seconds(),
                "command": command.unwrap_or_default(),
            },
        })
    }

    /// Sends a signal to housekeeping of one job or all, on some ranks or all.
    pub(in super::super) fn on_housekeeping_kill(
        &mut self,
        cx: &mut Cx<'_>,
        req: &Message,
    ) -> Result<(), RpcError> {
        let HousekeepingKillRequest { signum, jobid, ranks } = req.payload_json()?;
        if !(1..=64).contains(&signum) {
            return Err(RpcError::new(
                errno::EINVAL,
                format!("there is no signal {signum}"),
            ));
        }
        let ranks: Option<IdSet> = ranks
            .map(|ranks| ranks.parse())
            .transpose()
            .map_err(|err| RpcError::new(errno::EINVAL, format!("ranks: {err}")))?;
        let mut found = Vec::new();
        for (id, running) in &mut self.housekeeping.running {
            if jobid.is_some_and(|wanted| wanted != *id) {
                continue;
            }
            for rank in running.allocation.pending.iter() {
                if ranks.as_ref().is_some_and(|ranks| !ranks.contains(rank)) {
                    continue;
                }
                match running.pids.get(&rank) {
                    Some(pid) => found.push((rank, *pid)),
                    None => drop(running.signals.insert(rank, signum)),
                }
            }
        }
        for (rank, pid) in found {
            program::kill(cx, rank, pid, signum);
        }
        cx.respond_empty(req);
        Ok(())
    }
}

/// Says why a wait status is none of success.
fn failure(status: i32) -> Option<String> {
    match (status & 0x7f, status) {
        (_, 0) => None,
        (0, _) => Some("nonzero exit code".to_owned()),
        (signum, _) => Some(signal::text_or_number(signum)),
    }
}

fn log_line(cx: &mut Cx<'_>, level: u8, id: JobId, rank: u32, text: &str) {
    let host = program::host_of(cx, rank);
    cx.log_as_me(level, &format!("housekeeping: {host} (rank {rank}) {id}: {text}"));
}
