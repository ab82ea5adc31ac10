//! How does a site start, watch and end its brokers? As systemd would.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::files::exec_start;
use super::node::enter;
use super::users::{FLUX, as_user};
use super::whole::Site;
use crate::{DEADLINE, kill, wait_for};

impl Site {
    /// Starts a broker with the words of the installed `flux.service`, as systemd would.
    ///
    /// # Panics
    /// When it runs already.
    pub fn start(&mut self, rank: u32) {
        self.start_as(rank, |words| words);
    }

    /// The same with the words changed.
    ///
    /// # Panics
    /// When it runs already.
    pub fn start_as(&mut self, rank: u32, change: impl Fn(Vec<String>) -> Vec<String>) {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.file(&format!("log{rank}")))
            .expect("the site's directory is writable");
        let unit = include_str!("../../../etc/systemd/flux.service");
        let mut command = enter(&self.node(rank).holder.id().to_string());
        command
            .args(as_user(FLUX))
            .args([
                "env",
                "-i",
                &format!(
                    "PATH={}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
                    self.prefix()
                ),
                "LANG=C.UTF-8",
            ])
            .args([
                "USER=flux",
                "HOME=/",
                &format!("NOTIFY_SOCKET={}/site/notify{rank}", self.prefix()),
            ])
            .args(change(exec_start(unit, self.prefix())))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0);
        let child = command.spawn().expect("nsenter is there");
        let node = self.node_mut(rank);
        assert!(node.broker.replace(child).is_none(), "broker {rank} runs");
    }

    /// Starts all brokers and waits until all are online.
    pub fn start_all(&mut self) {
        let size = u32::try_from(self.nodes.len()).expect("a size fits");
        for rank in 0..size {
            self.start(rank);
        }
        let all = if size == 1 {
            "0".to_owned()
        } else {
            format!("0-{}", size - 1)
        };
        self.wait_online(&all);
    }

    /// Waits until exactly these ranks are online.
    ///
    /// # Panics
    /// At the deadline, with the log.
    #[track_caller]
    pub fn wait_online(&self, ranks: &str) {
        let mut last = String::new();
        let mut online = || {
            let output = self.flux(FLUX, &["module", "stats", "groups"]);
            last = output.to_string();
            let good = output.code == 0 && output.json()["subtree"]["broker.online"] == ranks;
            good.then_some(())
        };
        let until = std::time::Instant::now() + DEADLINE;
        while online().is_none() {
            assert!(
                std::time::Instant::now() < until,
                "not online: {last}\n{}",
                self.log(0)
            );
        }
    }

    /// Sends a signal to a broker.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&mut self, rank: u32, signal: Signal) {
        let broker = self.node(rank).broker.as_ref().expect("the broker runs");
        kill(i32::try_from(broker.id()).expect("a pid fits"), signal);
    }

    /// Waits until a broker has ended; returns its exit code.
    ///
    /// # Panics
    /// At the deadline.
    #[track_caller]
    pub fn wait_end(&mut self, rank: u32, deadline: Duration) -> Option<i32> {
        let broker = self.node_mut(rank).broker.as_mut().expect("the broker runs");
        let status = wait_for("the broker ends", deadline, || {
            broker.try_wait().expect("a child can be waited for")
        });
        self.node_mut(rank).broker = None;
        status.code()
    }

    /// Returns what a broker wrote to standard error so far.
    #[must_use]
    pub fn log(&self, rank: u32) -> String {
        let bytes = fs::read(self.file(&format!("log{rank}"))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
