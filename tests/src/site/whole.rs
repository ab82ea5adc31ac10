//! How is a site made, looked at, and ended?

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command};

use nix::sys::signal::Signal;

use super::files::{base_script, write, write_files};
use super::node::{Node, enter, holder, must};
use super::programs::Programs;
use super::users::{FLUX, User, as_user};
use crate::run::run;
use crate::{DEADLINE, Output, kill};

/// A site with one broker on each node.
#[derive(Debug)]
pub struct Site {
    dir: PathBuf,
    prefix: String,
    kept: Option<tempfile::TempDir>,
    base: Child,
    pub(super) nodes: Vec<Node>,
}

impl Site {
    /// Makes a site of `size` nodes `test0`, `test1`, … with two cores each. `toml` is added to the admin guide's
    /// configuration, `imp` to that of the IMP.
    ///
    /// # Panics
    /// When the machine lacks what [`crate::Capability::Site`] stands for.
    #[must_use]
    pub fn new(size: u32, toml: &str, imp: &str) -> Self {
        Site::of(&Programs::built(), size, toml, imp)
    }

    /// The same with other programs.
    ///
    /// # Panics
    /// As [`new`](Site::new).
    #[must_use]
    pub fn of(programs: &Programs, size: u32, toml: &str, imp: &str) -> Self {
        let kept = tempfile::Builder::new()
            .prefix("fs")
            .tempdir_in("/tmp")
            .expect("/tmp is writable");
        let dir = kept.path().to_owned();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("it is ours");
        write_files(&dir, &programs.prefix, size, toml, imp);
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private", "--"]);
        let base = holder(&unshare, &base_script(&dir, programs));
        let mut site = Site {
            dir,
            prefix: programs.prefix.clone(),
            kept: Some(kept),
            base,
            nodes: Vec::new(),
        };
        site.make_certificate();
        for rank in 0..size {
            let node = site.make_node(rank);
            site.nodes.push(node);
        }
        site
    }

    fn make_certificate(&self) {
        let prefix = &self.prefix;
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.base.id().to_string(), "-m", "--"])
            .args(as_user(FLUX))
            .args([
                &format!("{prefix}/bin/flux"),
                "keygen",
                &format!("{prefix}/site/curve.cert"),
            ]);
        must(command);
        let script = format!("mv {prefix}/site/curve.cert {prefix}/etc/flux/system/curve.cert");
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.base.id().to_string(), "-m", "--", "sh", "-c", &script]);
        must(command);
    }

    /// Returns where the programs are on the nodes.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the namespace of all nodes.
    pub(super) fn base(&self) -> &Child {
        &self.base
    }

    /// Returns a file that the nodes do not see.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn node(&self, rank: u32) -> &Node {
        let index = usize::try_from(rank).expect("a rank fits");
        self.nodes.get(index).expect("the node exists")
    }

    pub(super) fn node_mut(&mut self, rank: u32) -> &mut Node {
        let index = usize::try_from(rank).expect("a rank fits");
        self.nodes.get_mut(index).expect("the node exists")
    }

    /// Returns a command that runs on a node, as a user who has logged in there.
    #[must_use]
    pub fn command(&self, rank: u32, user: User, words: &[&str]) -> Command {
        let mut command = enter(&self.node(rank).holder.id().to_string());
        let home = if user.id == 0 {
            "/root".to_owned()
        } else {
            format!("/home/{}", user.name)
        };
        command
            .args(as_user(user))
            .args([
                "env",
                "-i",
                &format!("PATH={}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin", self.prefix),
                "LANG=C.UTF-8",
            ])
            .args([format!("HOME={home}"), format!("USER={}", user.name)])
            .args(["sh", "-c", "cd; exec \"$@\"", "sh"])
            .args(words);
        command
    }

    /// Runs a command on a node as a user.
    pub fn run(&self, rank: u32, user: User, words: &[&str]) -> Output {
        run(self.command(rank, user, words), b"", DEADLINE)
    }

    /// Runs `flux ARGS…` on the leader's node.
    pub fn flux(&self, user: User, args: &[&str]) -> Output {
        let words: Vec<&str> = std::iter::once("flux").chain(args.iter().copied()).collect();
        self.run(0, user, &words)
    }

    /// Ends the MUNGE daemon of a node.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn stop_munge(&mut self, rank: u32) {
        let munged = &mut self.node_mut(rank).munged;
        munged.kill().expect("a child can be killed");
        munged.wait().expect("a child can be waited for");
    }

    /// Makes a program that takes `ssh`'s place on the nodes, for root; returns its path there.
    ///
    /// # Panics
    /// When the site's directory is not writable.
    #[must_use]
    pub fn remote_shell(&self) -> String {
        let mut script = "#!/bin/sh\nhost=$1; shift\ncase $host in\n".to_owned();
        for (rank, node) in self.nodes.iter().enumerate() {
            script.push_str(&format!("test{rank}) pid={};;\n", node.holder.id()));
        }
        script.push_str("*) echo \"no such host: $host\" >&2; exit 255;;\nesac\n");
        script.push_str("exec nsenter -t $pid -m -n -u -- \"$@\"\n");
        let path = self.shared().join("ssh");
        write(&path, &script);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        format!("{}/site/ssh", self.prefix)
    }

    /// Returns the directory that all nodes see as `PREFIX/site`.
    #[must_use]
    pub fn shared(&self) -> PathBuf {
        self.dir.join("shared")
    }

    /// Returns the directory that the nodes see as their `SYSCONFDIR`.
    #[must_use]
    pub fn sysconfdir(&self) -> PathBuf {
        self.dir.join("etc")
    }

    /// Replaces the PAM stack of the jobs.
    ///
    /// # Panics
    /// When the site's directory is not writable.
    pub fn write_pam_stack(&self, text: &str) {
        write(self.dir.join("pam.d/flux"), text);
    }

    /// Writes a script of root's into `SYSCONFDIR/flux/system`, `prolog.d/NAME` for example.
    ///
    /// # Panics
    /// When the site's directory is not writable.
    pub fn write_script(&self, name: &str, text: &str) {
        let path = self.dir.join("etc/flux/system").join(name);
        write(&path, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }

    /// Returns the processes of a user on all nodes, as pids and commands.
    #[must_use]
    pub fn processes(&self, user: User) -> Vec<(u32, String)> {
        let owner = |pid: u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
            line.split_whitespace().next()?.parse::<u32>().ok()
        };
        let pids = self.pids().into_iter().filter(|pid| owner(*pid) == Some(user.id));
        let command = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        pids.map(|pid| (pid, command(pid).replace('\0', " ")))
            // one that has ended and waits for its parent has no words
            .filter(|(_, words)| !words.is_empty())
            .collect()
    }

    /// Every process in a namespace of the site.
    fn pids(&self) -> Vec<u32> {
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let holders = self.nodes.iter().map(|node| &node.holder).chain([&self.base]);
        let own: Vec<_> = holders.filter_map(|child| namespace(child.id())).collect();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| namespace(*pid).is_some_and(|found| own.contains(&found)))
            .collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for rank in 0..u32::try_from(self.nodes.len()).unwrap_or(0) {
                eprintln!("--- log of the broker on test{rank}\n{}", self.log(rank));
            }
        }
        let mut holders: Vec<u32> = self.nodes.iter().map(|node| node.holder.id()).collect();
        holders.push(self.base.id());
        // the namespaces are known by their holders, so those come last
        for _ in 0..10 {
            let found: Vec<u32> = self
                .pids()
                .into_iter()
                .filter(|pid| !holders.contains(pid))
                .collect();
            if found.is_empty() {
                break;
            }
            for pid in found {
                kill(i32::try_from(pid).unwrap_or(0), Signal::SIGKILL);
            }
        }
        let children = self.nodes.iter_mut().flat_map(|node| {
            [
                Some(&mut node.munged),
                node.broker.as_mut(),
                Some(&mut node.holder),
            ]
        });
        for child in children.flatten().chain([&mut self.base]) {
            // it may have ended before
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking()
            && let Some(dir) = self.kept.take()
        {
            eprintln!("kept for a look: {}", dir.keep().display());
        }
    }
}
