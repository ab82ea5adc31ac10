//! How is a node made, and entered?

use std::process::{Child, Command, Stdio};

use super::users::FLUX;
use super::whole::Site;
use crate::{DEADLINE, wait_for};

/// A node: a process that holds its namespaces, its MUNGE daemon, and its broker.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) holder: Child,
    pub(super) munged: Child,
    pub(super) broker: Option<Child>,
}

/// Runs a step of the making of a site.
pub(super) fn must(mut command: Command) {
    let output = command.output().expect("the program is there");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Starts a shell script that says `ready` and stays until it is killed.
pub(super) fn holder(command: &Command, script: &str) -> Child {
    use std::io::BufRead;
    let script = format!("set -e\n{script}\necho ready\nexec sleep 100000");
    let mut child = mortal(command)
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

/// Returns the command, but it ends with the process that starts it.
fn mortal(command: &Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped
        .arg("--pdeathsig=KILL")
        .arg(command.get_program())
        .args(command.get_args());
    wrapped
}

/// Returns a command that enters a node.
pub(super) fn enter(pid: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["-t", pid, "-m", "-n", "-u", "--"]);
    command
}

impl Site {
    pub(super) fn make_node(&self, rank: u32) -> Node {
        let state = self.file(&format!("state{rank}"));
        let state = state.display();
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.base().id().to_string(), "-m", "--"])
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
             mount --bind {state} /var/lib/flux",
            flux = FLUX.id
        );
        let holder = holder(&command, &script);
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
        let mut munged = mortal(&enter(&pid));
        munged
            .args(["/usr/sbin/munged", "--foreground", "--force", "--num-threads=2"])
            .arg(format!("--key-file={}/site/munge.key", self.prefix()))
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
}
