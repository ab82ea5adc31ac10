//! A whole multi-user site on one machine: nodes with network, host name, users, MUNGE, setuid IMP and broker of their own.
//!
//! Every node is a process in a network, UTS and mount namespace; below them lies a mount namespace with the site's users,
//! configuration and programs at their installed places. Nothing of the machine outside is changed, and what a killed test
//! leaves ends with its namespaces.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::run::run;
use crate::{DEADLINE, Output, bindir, kill, wait_for};

/// A user of the site.
#[derive(Clone, Copy, Debug)]
pub struct User {
    /// Name, and name of the primary group.
    pub name: &'static str,
    /// User id, and id of the primary group.
    pub id: u32,
}

/// The instance owner.
pub const FLUX: User = User {
    name: "flux",
    id: 64100,
};
/// A guest, also in group `project`.
pub const ALICE: User = User {
    name: "alice",
    id: 64101,
};
/// Another guest.
pub const BOB: User = User {
    name: "bob",
    id: 64102,
};
/// The machine's root, who is a guest unless he is allowed more.
pub const ROOT: User = User { name: "root", id: 0 };
/// A group of `alice`'s.
pub const PROJECT: u32 = 64110;

/// Where the site's programs and configuration are, for everyone on its nodes.
const PREFIX: &str = "/usr/local";

/// A site with one broker on each node.
#[derive(Debug)]
pub struct Site {
    dir: PathBuf,
    kept: Option<tempfile::TempDir>,
    base: Child,
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    holder: Child,
    munged: Child,
    broker: Option<Child>,
}

fn write(path: impl AsRef<Path>, text: &str) {
    let path = path.as_ref();
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).expect("the site's directory is writable");
    }
    fs::write(path, text).expect("the site's directory is writable");
}

/// Runs a step of the making of a site.
fn must(mut command: Command) {
    let output = command.output().expect("the program is there");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Starts a shell script that says `ready` and stays until it is killed.
fn holder(mut command: Command, script: &str) -> Child {
    use std::io::BufRead;
    let script = format!("set -e\n{script}\necho ready\nexec sleep 100000");
    let mut child = command
        .args(["sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare and nsenter are there");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("it is a pipe");
    std::io::BufReader::new(stdout)
        .read_line(&mut line)
        .expect("a pipe can be read");
    assert_eq!(line, "ready\n", "a namespace could not be set up");
    child
}

impl Site {
    /// Makes a site of `size` nodes `test0`, `test1`, … with two cores each. `toml` is added to the admin guide's
    /// configuration, `imp` to that of the IMP.
    ///
    /// # Panics
    /// When the machine lacks what [`crate::Capability::Site`] stands for.
    #[must_use]
    pub fn new(size: u32, toml: &str, imp: &str) -> Self {
        let kept = tempfile::Builder::new()
            .prefix("fs")
            .tempdir_in("/tmp")
            .expect("/tmp is writable");
        let dir = kept.path().to_owned();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("it is ours");
        write_files(&dir, size, toml, imp);
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private", "--"]);
        let base = holder(unshare, &base_script(&dir));
        let mut site = Site {
            dir,
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
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.base.id().to_string(), "-m", "--"])
            .args(as_user(FLUX))
            .args([
                &format!("{PREFIX}/bin/flux"),
                "keygen",
                "/usr/local/site/curve.cert",
            ]);
        must(command);
        let script = "mv /usr/local/site/curve.cert /usr/local/etc/flux/system/curve.cert";
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.base.id().to_string(), "-m", "--", "sh", "-c", script]);
        must(command);
    }

    fn make_node(&self, rank: u32) -> Node {
        let dir = self.dir.display();
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.base.id().to_string(), "-m", "--"])
            .args([
                "unshare",
                "--mount",
                "--net",
                "--uts",
                "--propagation",
                "private",
                "--",
            ]);
        let script = format!(
            "hostname test{rank}
             ip link set lo up
             mount -t tmpfs -o mode=755 run /run
             mkdir -p /run/munge /run/flux /var/lib/flux
             chown {flux}:{flux} /run/flux
             mount --bind {dir}/state{rank} /var/lib/flux",
            flux = FLUX.id
        );
        let holder = holder(command, &script);
        let pid = holder.id().to_string();
        let inside = |pid: &str, words: &str| {
            let mut command = Command::new("nsenter");
            command
                .args(["-t", pid, "-n", "--"])
                .args(words.split_whitespace());
            must(command);
        };
        // the leader's node has the switch that all are plugged into
        if rank == 0 {
            inside(&pid, "ip link add eth0 type bridge");
        } else {
            let leader = self.nodes.first().expect("the leader comes first").holder.id();
            let link = format!("ip link add port{rank} type veth peer name eth0 netns {pid}");
            inside(&leader.to_string(), &link);
            inside(
                &leader.to_string(),
                &format!("ip link set port{rank} master eth0 up"),
            );
        }
        inside(&pid, &format!("ip addr add 10.77.0.{}/24 dev eth0", rank + 1));
        inside(&pid, "ip link set eth0 up");
        let mut munged = enter(&pid);
        munged
            .args(["/usr/sbin/munged", "--foreground", "--force", "--num-threads=2"])
            .arg("--key-file=/usr/local/site/munge.key")
            .args(["--socket=/run/munge/munge.socket.2", "--pid-file=/run/munge/pid"])
            .args(["--log-file=/run/munge/log", "--seed-file=/run/munge/seed"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let munged = munged.spawn().expect("munged is there");
        let node = Node {
            holder,
            munged,
            broker: None,
        };
        wait_for("munged listens", DEADLINE, || {
            let mut probe = enter(&pid);
            probe
                .args(["munge", "-n"])
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            probe.status().is_ok_and(|status| status.success()).then_some(())
        });
        node
    }

    fn node(&self, rank: u32) -> &Node {
        let index = usize::try_from(rank).expect("a rank fits");
        self.nodes.get(index).expect("the node exists")
    }

    fn node_mut(&mut self, rank: u32) -> &mut Node {
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
                "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin",
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

    /// Starts a broker with the words of the installed `flux.service`, as systemd would.
    ///
    /// # Panics
    /// When it runs already.
    pub fn start(&mut self, rank: u32) {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join(format!("log{rank}")))
            .expect("the site's directory is writable");
        let unit = include_str!("../../etc/systemd/flux.service");
        let mut command = enter(&self.node(rank).holder.id().to_string());
        command
            .args(as_user(FLUX))
            .args([
                "env",
                "-i",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
                "LANG=C.UTF-8",
            ])
            .args([
                "USER=flux",
                "HOME=/",
                &format!("NOTIFY_SOCKET=/usr/local/site/notify{rank}"),
            ])
            .args(exec_start(unit))
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
        format!("{PREFIX}/site/ssh")
    }

    /// Returns what a broker wrote to standard error so far.
    #[must_use]
    pub fn log(&self, rank: u32) -> String {
        let bytes = fs::read(self.dir.join(format!("log{rank}"))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Returns the directory that all nodes see as `/usr/local/site`.
    #[must_use]
    pub fn shared(&self) -> PathBuf {
        self.dir.join("shared")
    }

    /// Returns the directory that the nodes see as their `SYSCONFDIR`.
    #[must_use]
    pub fn sysconfdir(&self) -> PathBuf {
        self.dir.join("etc")
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

/// Returns a command that enters a node.
fn enter(pid: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["-t", pid, "-m", "-n", "-u", "--"]);
    command
}

/// Returns the words that become a user.
fn as_user(user: User) -> Vec<String> {
    let words = [
        "setpriv",
        &format!("--reuid={}", user.id),
        &format!("--regid={}", user.id),
        "--init-groups",
    ];
    words.map(str::to_owned).to_vec()
}

/// Returns the words of a unit's ExecStart, with the paths of the site.
fn exec_start(unit: &str) -> Vec<String> {
    let unit = unit.replace("\\\n", " ");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart="));
    line.expect("the unit has an ExecStart")
        .replace("@BINDIR@", &format!("{PREFIX}/bin"))
        .replace("@SYSCONFDIR@", &format!("{PREFIX}/etc"))
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// Writes what the nodes will see.
fn write_files(dir: &Path, size: u32, toml: &str, imp: &str) {
    let mut passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
    let mut group = fs::read_to_string("/etc/group").expect("/etc/group is readable");
    for user in [FLUX, ALICE, BOB] {
        let User { name, id } = user;
        passwd.push_str(&format!("{name}:x:{id}:{id}::/home/{name}:/bin/sh\n"));
        group.push_str(&format!("{name}:x:{id}:\n"));
    }
    group.push_str(&format!("project:x:{PROJECT}:alice\n"));
    write(dir.join("passwd"), &passwd);
    write(dir.join("group"), &group);
    let mut hosts = "127.0.0.1 localhost\n".to_owned();
    for rank in 0..size {
        hosts.push_str(&format!("10.77.0.{} test{rank}\n", rank + 1));
        fs::create_dir(dir.join(format!("state{rank}"))).expect("the directory is writable");
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(dir.join(format!("state{rank}")), private).expect("it is ours");
        let owned = Command::new("chown")
            .arg(format!("{0}:{0}", FLUX.id))
            .arg(dir.join(format!("state{rank}")))
            .status();
        assert!(
            owned.is_ok_and(|status| status.success()),
            "root may give files away"
        );
    }
    write(dir.join("hosts"), &hosts);
    write(dir.join("pam.d/flux"), include_str!("../../etc/pam.d/flux"));
    let libexec = format!("{PREFIX}/libexec/flux");
    let fill = |text: &str| {
        text.replace("@LIBEXECDIR@", &libexec)
            .replace("@SYSCONFDIR@", &format!("{PREFIX}/etc"))
    };
    // the files that are installed as examples, with the site's own names
    let last = size - 1;
    let system = fill(include_str!("../../etc/flux/system.toml"))
        .replace("test[0-7]", &format!("test[0-{last}]"))
        .replace("cores = \"0-3\"", "cores = \"0-1\"");
    write(dir.join("etc/flux/system/conf.d/system.toml"), &system);
    if !toml.is_empty() {
        write(dir.join("etc/flux/system/conf.d/test.toml"), toml);
    }
    write(
        dir.join("etc/flux/security/conf.d/security.toml"),
        include_str!("../../etc/flux/security.toml"),
    );
    write(
        dir.join("etc/flux/imp/conf.d/imp.toml"),
        &fill(include_str!("../../etc/flux/imp.toml")),
    );
    if !imp.is_empty() {
        write(dir.join("etc/flux/imp/conf.d/test.toml"), imp);
    }
    let shared = dir.join("shared");
    fs::create_dir(&shared).expect("the directory is writable");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).expect("it is ours");
    let mut key = fs::File::create(shared.join("munge.key")).expect("the directory is writable");
    key.write_all(&[0x5a; 64]).expect("the key is writable");
    key.set_permissions(fs::Permissions::from_mode(0o400))
        .expect("it is ours");
}

/// What is mounted where, for all nodes.
fn base_script(dir: &Path) -> String {
    let (dir, bins) = (dir.display(), bindir());
    let (bins, imp) = (bins.display(), crate::bins::imp());
    let imp = imp.display();
    let policies = bindir().join("../policies");
    let policies = policies.display();
    let mut script = format!(
        "mount -t tmpfs -o mode=755 prefix {PREFIX}
         cd {PREFIX}
         mkdir -p bin etc libexec/flux lib/flux/policies
         touch bin/flux libexec/flux/flux-broker libexec/flux/flux-shell libexec/flux/flux-hwloc-xml
         mount --bind {bins}/flux bin/flux
         mount --bind {bins}/flux-broker libexec/flux/flux-broker
         mount --bind {bins}/flux-shell libexec/flux/flux-shell
         mount --bind {bins}/flux-hwloc-xml libexec/flux/flux-hwloc-xml
         mount --bind {policies} lib/flux/policies
         install -m 4755 {imp} libexec/flux/flux-imp
         mount --bind {dir}/etc etc
         mount --bind {dir}/passwd /etc/passwd
         mount --bind {dir}/group /etc/group
         mount --bind {dir}/hosts /etc/hosts
         cp -a /etc/pam.d/. {dir}/pam.d/
         mount --bind {dir}/pam.d /etc/pam.d
         mount -t tmpfs -o mode=755 home /home
         mount -t tmpfs -o mode=755 lib /var/lib
         mkdir site
         mount --bind {dir}/shared site\n"
    );
    for user in [FLUX, ALICE, BOB] {
        script.push_str(&format!(
            "install -d -m 700 -o {0} -g {0} /home/{1}\n",
            user.id, user.name
        ));
    }
    script
}
