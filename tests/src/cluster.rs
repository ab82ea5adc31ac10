//! How does a test get brokers that it starts and kills one by one? A configured instance, as a system has it.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{DEADLINE, Output, Sandbox, wait_for};

/// Brokers of an instance from a configuration file, one for each host `fake0`, `fake1`, ….
#[derive(Debug)]
pub struct Cluster {
    sandbox: Sandbox,
    brokers: Vec<Option<Child>>,
    options: Vec<String>,
}

impl Cluster {
    /// Writes the configuration of `size` brokers, whose ports begin with `first_port`, with two cores each; `toml` is
    /// added to it. `parent` names the parent of a rank when that is not 0.
    ///
    /// # Panics
    /// When the sandbox is not writable.
    #[must_use]
    pub fn new(size: u16, first_port: u16, toml: &str, parent: impl Fn(u16) -> Option<u16>) -> Self {
        let sandbox = Sandbox::new();
        let cert = sandbox.workdir().join("cert").display().to_string();
        sandbox.run("flux", &["keygen", "--name=test", &cert]).ok();
        let host = |rank: u16| {
            let port = first_port + rank;
            let parent =
                parent(rank).map_or_else(String::new, |parent| format!(", parent = \"fake{parent}\""));
            format!(
                "{{ host = \"fake{rank}\", bind = \"tcp://127.0.0.1:{port}\", \
                 connect = \"tcp://127.0.0.1:{port}\"{parent} }}"
            )
        };
        let hosts: Vec<String> = (0..size).map(host).collect();
        let last = size - 1;
        let config = format!(
            "[bootstrap]\ncurve_cert = \"{cert}\"\nhosts = [ {} ]\n\
             [resource]\nnoverify = true\nconfig = [ {{ hosts = \"fake[0-{last}]\", cores = \"0-1\" }} ]\n{toml}\n",
            hosts.join(", ")
        );
        sandbox.write("config/test.toml", &config);
        for rank in 0..size {
            for name in ["run", "state"] {
                let dir = sandbox.workdir().join(format!("{name}{rank}"));
                std::fs::create_dir(dir).expect("the sandbox is writable");
            }
        }
        Cluster {
            sandbox,
            brokers: (0..size).map(|_| None).collect(),
            options: Vec::new(),
        }
    }

    /// Adds an option to all brokers.
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// Returns where the instance runs.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    fn slot(&mut self, rank: u16) -> &mut Option<Child> {
        self.brokers.get_mut(usize::from(rank)).expect("the rank exists")
    }

    fn socket(&self, rank: u16) -> String {
        let dir = self.sandbox.workdir().display().to_string();
        format!("local://{dir}/run{rank}/local-{rank}")
    }

    /// Starts a broker; it may have to wait for others.
    ///
    /// # Panics
    /// When it runs already, or cannot be run.
    pub fn start(&mut self, rank: u16) {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.sandbox.file("log"))
            .expect("the sandbox is writable");
        let dir = self.sandbox.workdir().display().to_string();
        let mut command = self
            .sandbox
            .command(&crate::bindir().join("flux-broker").to_string_lossy());
        command
            .arg(format!("--config-path={dir}/config"))
            .arg(format!("-Shostname=fake{rank}"))
            .arg(format!("-Srundir={dir}/run{rank}"))
            .arg(format!("-Sstatedir={dir}/state{rank}"))
            .arg(format!("-Slocal-uri={}", self.socket(rank)))
            .args([
                "-Sbroker.rc2_none=1",
                "-Slog-stderr-level=6",
                "-Slog-stderr-mode=local",
            ])
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0);
        let child = command.spawn().expect("flux-broker can be run");
        assert!(self.slot(rank).replace(child).is_none(), "broker {rank} runs");
    }

    /// Kills a broker and waits for its end.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self, rank: u16) {
        let mut child = self.slot(rank).take().expect("the broker runs");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// Sends a signal to a broker.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&mut self, rank: u16, signal: Signal) {
        let child = self.slot(rank).as_ref().expect("the broker runs");
        crate::kill(i32::try_from(child.id()).expect("a pid fits"), signal);
    }

    /// Waits until a broker has ended; returns its exit code.
    ///
    /// # Panics
    /// At the deadline.
    #[track_caller]
    pub fn wait_end(&mut self, rank: u16, deadline: Duration) -> Option<i32> {
        let child = self.slot(rank).as_mut().expect("the broker runs");
        let status = wait_for("the broker ends", deadline, || {
            child.try_wait().expect("a child can be waited for")
        });
        *self.slot(rank) = None;
        status.code()
    }

    /// Runs `flux ARGS…` against the broker of a rank.
    pub fn run(&self, rank: u16, args: &[&str]) -> Output {
        let mut command = self
            .sandbox
            .command(&crate::bindir().join("flux").to_string_lossy());
        command.env("FLUX_URI", self.socket(rank)).args(args);
        self.sandbox.finish(command, b"")
    }

    /// Waits until a command against the leader gives what `good` wants; returns its output.
    ///
    /// # Panics
    /// At the deadline, with the last output and the log.
    #[track_caller]
    pub fn wait_until(&self, args: &[&str], good: impl Fn(&Output) -> bool) -> Output {
        let mut last = String::new();
        let started = std::time::Instant::now();
        wait_for(
            "the output is as expected",
            DEADLINE + Duration::from_secs(5),
            || {
                let output = self.run(0, args);
                if good(&output) {
                    return Some(output);
                }
                last = output.to_string();
                assert!(
                    started.elapsed() < DEADLINE,
                    "not as expected: {last}\n{}",
                    self.log()
                );
                None
            },
        )
    }

    /// Waits until exactly these ranks are online.
    #[track_caller]
    pub fn wait_online(&self, ranks: &str) {
        self.wait_until(&["module", "stats", "groups"], |output| {
            output.code == 0 && output.json()["subtree"]["broker.online"] == ranks
        });
    }

    /// Returns what the brokers wrote to standard error so far.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.sandbox.file("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until the log contains a text.
    #[track_caller]
    pub fn wait_log(&self, text: &str) {
        let started = std::time::Instant::now();
        wait_for(text, DEADLINE + Duration::from_secs(5), || {
            assert!(
                started.elapsed() < DEADLINE,
                "'{text}' is missing: {}",
                self.log()
            );
            self.log().contains(text).then_some(())
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the brokers\n{}---", self.log());
        }
        self.sandbox.kill_all();
        for mut child in self.brokers.drain(..).flatten() {
            // killed above with the rest of the sandbox
            let _ended = child.wait();
        }
    }
}
