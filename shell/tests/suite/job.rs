//! Descriptions of jobs for the shell under test, and the running of it.

use std::fs::File;
use std::io::{Seek, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use flux_formats::jobid::JobId;
use serde_json::{Value, json};

use super::broker::{FakeBroker, PATIENCE, current_uid};

pub(crate) const ID: u64 = 6_731_191_091_817_518;

/// A job: one shell on each of `nodes` nodes.
pub(crate) struct Job {
    pub(crate) command: Vec<String>,
    pub(crate) nodes: u32,
    pub(crate) ntasks: u32,
    pub(crate) options: Value,
    pub(crate) environment: Value,
    pub(crate) cwd: String,
    pub(crate) gpus: String,
    pub(crate) files: Option<Value>,
    /// Where the shell says that it runs.
    pub(crate) claim: Option<String>,
}

pub(crate) fn sh(script: &str) -> Job {
    command(&["sh", "-c", script])
}

pub(crate) fn command(words: &[&str]) -> Job {
    Job {
        command: words.iter().map(|word| (*word).to_owned()).collect(),
        nodes: 1,
        ntasks: 1,
        options: json!({}),
        environment: json!({"PATH": std::env::var("PATH").unwrap(), "GREETING": "hello"}),
        cwd: "/".to_owned(),
        gpus: String::new(),
        files: None,
        claim: None,
    }
}

/// A shell that runs.
pub(crate) struct Running {
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the shell has no child left.
    pub(crate) fn wait_childless(&self) {
        let path = format!("/proc/{0}/task/{0}/children", self.child.id());
        let deadline = Instant::now() + PATIENCE;
        while !std::fs::read_to_string(&path)
            .unwrap_or_default()
            .trim()
            .is_empty()
        {
            assert!(Instant::now() < deadline, "tasks of {} run on", self.child.id());
            std::thread::yield_now();
        }
    }

    /// Waits for the shell's own end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let pidfd = flux_process::PidFd::open(self.child.id()).unwrap();
        let mut set = flux_process::PollSet::new();
        set.add(&pidfd, flux_process::Interest::Read, ());
        set.wait(Some(deadline - Instant::now())).unwrap();
        self.child.try_wait().unwrap().expect("shell has ended in time")
    }
}

impl Job {
    pub(crate) fn nodes(mut self, nodes: u32, ntasks: u32) -> Self {
        (self.nodes, self.ntasks) = (nodes, ntasks);
        self
    }

    pub(crate) fn options(mut self, options: Value) -> Self {
        self.options = options;
        self
    }

    fn document(&self, rank: u32) -> Value {
        let mut children = json!({"core": "0-63"});
        if !self.gpus.is_empty() {
            children["gpu"] = json!(self.gpus);
        }
        // More cores than this machine has: affinity says so once and lets tasks run anywhere.
        let mut options = self.options.clone();
        if options.get("cpu-affinity").is_none() {
            options["cpu-affinity"] = json!("off");
        }
        let nodelist: Vec<String> = (0..self.nodes).map(|node| format!("node{node}")).collect();
        json!({
            "version": 1, "id": ID, "broker_rank": rank, "claim": self.claim,
            "jobspec": {
                "resources": [{"type": "node", "count": self.nodes, "with": [
                    {"type": "slot", "count": self.ntasks.div_ceil(self.nodes), "label": "task",
                     "with": [{"type": "core", "count": 1}]}]}],
                "tasks": [{"command": self.command, "slot": "task", "count": {"total": self.ntasks}}],
                "attributes": {"system": {"duration": 0, "cwd": self.cwd, "environment": self.environment,
                    "shell": {"options": options}, "files": self.files}},
                "version": 1},
            "R": {"version": 1, "execution": {"R_lite": [{"rank": format!("0-{}", self.nodes - 1),
                "children": children}], "nodelist": nodelist, "starttime": 1.0, "expiration": 0.0}}
        })
    }

    /// Starts the shell of one rank.
    pub(crate) fn spawn(&self, broker: &FakeBroker, rank: u32) -> Running {
        self.spawn_with(broker, rank, &[])
    }

    pub(crate) fn spawn_with(&self, broker: &FakeBroker, rank: u32, extra: &[&str]) -> Running {
        let mut input: File = tempfile::tempfile().unwrap();
        input
            .write_all(self.document(rank).to_string().as_bytes())
            .unwrap();
        input.rewind().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_flux-shell"))
            .args(extra)
            .arg(ID.to_string())
            .env("FLUX_URI", broker.uri(rank))
            .env("FLUX_KVS_NAMESPACE", format!("job-{ID}"))
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::from(input))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Running { child }
    }

    /// Runs the whole job and returns the broker with what it saw, and the shells' wait statuses.
    pub(crate) fn run(&self) -> (FakeBroker, Vec<i32>) {
        let broker = FakeBroker::start(self.nodes, self.nodes);
        let mut shells: Vec<Running> = (0..self.nodes).map(|rank| self.spawn(&broker, rank)).collect();
        let exits = broker.wait_exits();
        for (shell, status) in shells.iter_mut().zip(&exits) {
            assert_eq!(shell.wait().code(), Some(status >> 8));
        }
        (broker, exits)
    }
}

pub(crate) fn service() -> String {
    format!("{}-shell-{}", current_uid(), JobId(ID).f58(true))
}
