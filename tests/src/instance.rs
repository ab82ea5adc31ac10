//! How does a test get a running instance? Brokers through `flux start`, an initial program that waits for its end.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use flux_client::Handle;
use nix::sys::signal::Signal;

use crate::{DEADLINE, Output, Sandbox, wait_for};

/// What is printed when the instance runs; standard input stays open until it shall end.
const INITIAL: &str = r#"echo "READY $FLUX_URI"; cat >/dev/null"#;

/// Settings of an instance before it boots.
#[derive(Debug)]
pub struct Builder {
    sandbox: Sandbox,
    size: u32,
    options: Vec<String>,
}

/// A running instance in a sandbox of its own.
#[derive(Debug)]
pub struct Instance {
    sandbox: Sandbox,
    size: u32,
    options: Vec<String>,
    start: Option<Child>,
    uri: String,
    pids: Vec<i32>,
}

impl Builder {
    /// Adds an option of `flux start`.
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// Sets a broker attribute.
    #[must_use]
    pub fn attr(self, name: &str, value: &str) -> Self {
        self.option(&format!("-S{name}={value}"))
    }

    /// Sets the configuration, in TOML.
    #[must_use]
    pub fn config(self, toml: &str) -> Self {
        let path = self.sandbox.write("config/test.toml", toml);
        let dir = path
            .parent()
            .expect("a file is in a directory")
            .display()
            .to_string();
        self.option(&format!("--config-path={dir}"))
    }

    /// Adds an environment variable of brokers and commands.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.sandbox = self.sandbox.env(name, value);
        self
    }

    /// Changes how long a command may take.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.sandbox = self.sandbox.deadline(deadline);
        self
    }

    /// Keeps run and state directory when the instance ends, for [`Instance::boot_again`].
    ///
    /// # Panics
    /// When the sandbox is not writable.
    #[must_use]
    pub fn persistent(self) -> Self {
        let dir = |name: &str| {
            let path = self.sandbox.workdir().join(name);
            std::fs::create_dir(&path).expect("the sandbox is writable");
            path.display().to_string()
        };
        let (run, state) = (dir("run"), dir("state"));
        self.option(&format!("--test-rundir={run}"))
            .attr("statedir", &state)
    }

    /// Returns the sandbox, for files that must exist before the boot.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Boots and waits until the initial program runs.
    ///
    /// # Panics
    /// When it does not get there; the brokers' words are in the message.
    #[track_caller]
    #[must_use]
    pub fn boot(self) -> Instance {
        let Builder {
            sandbox,
            size,
            options,
        } = self;
        let mut instance = Instance {
            sandbox,
            size,
            options,
            start: None,
            uri: String::new(),
            pids: Vec::new(),
        };
        instance.boot_again();
        instance
    }
}

impl Instance {
    /// Boots `size` brokers with default settings.
    #[track_caller]
    #[must_use]
    pub fn boot(size: u32) -> Self {
        Self::builder(size).boot()
    }

    /// Returns settings to change before the boot.
    #[must_use]
    pub fn builder(size: u32) -> Builder {
        Builder {
            sandbox: Sandbox::new(),
            size,
            options: Vec::new(),
        }
    }

    /// Boots again after the end, with the same options; the log goes on.
    ///
    /// # Panics
    /// When it does not get there, or has not ended before.
    #[track_caller]
    pub fn boot_again(&mut self) {
        assert!(self.start.is_none(), "the instance runs");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.sandbox.file("log"))
            .expect("the sandbox is writable");
        let flux = crate::bindir().join("flux");
        let mut command = self.sandbox.command(&flux.to_string_lossy());
        command
            .args(["start", "-s", &self.size.to_string()])
            .args(&self.options)
            .args(["sh", "-c", INITIAL]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0);
        let mut child = command.spawn().expect("flux can be run");
        let stdout = child.stdout.take().expect("standard output is piped");
        let (ready, line) = channel();
        // ends with the instance, whose standard output it reads
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(uri) = line.strip_prefix("READY ") {
                    // nobody waits any longer when the boot took too long
                    let _late = ready.send(uri.to_owned());
                }
            }
        });
        self.start = Some(child);
        match line.recv_timeout(DEADLINE) {
            Ok(uri) => self.uri = uri,
            Err(_) => panic!(
                "{} brokers did not come up with {:?}:\n{}",
                self.size,
                self.options,
                self.log()
            ),
        }
        self.pids = (0..self.size).map(|rank| self.find_pid(rank)).collect();
    }

    /// Kills the leader without a word, and waits until all brokers have ended.
    ///
    /// # Panics
    /// When they do not end in time.
    #[track_caller]
    pub fn crash(&mut self) {
        self.signal(0, Signal::SIGKILL);
        self.wait_end(Duration::from_secs(30));
    }

    /// Returns where the instance runs.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Returns the number of brokers.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Returns the URI of the leader's socket.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Returns the URI of a broker's socket.
    #[must_use]
    pub fn uri_of(&self, rank: u32) -> String {
        let base = self
            .uri
            .strip_suffix("local-0")
            .expect("test mode names sockets local-RANK");
        format!("{base}local-{rank}")
    }

    /// Returns the path of the leader's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        PathBuf::from(self.uri.trim_start_matches("local://"))
    }

    /// Returns the process id of a broker.
    ///
    /// # Panics
    /// When there is no such rank.
    #[must_use]
    pub fn pid(&self, rank: u32) -> i32 {
        let at = usize::try_from(rank).expect("a rank fits");
        *self.pids.get(at).expect("the rank exists")
    }

    fn find_pid(&self, rank: u32) -> i32 {
        let text = self.on(rank, &["getattr", "broker.pid"]);
        text.ok().line().parse().expect("broker.pid is a number")
    }

    /// Returns a command that talks to the leader.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.sandbox.command(program);
        command.env("FLUX_URI", &self.uri);
        command
    }

    /// Runs `flux ARGS…` against the leader.
    pub fn run(&self, args: &[&str]) -> Output {
        self.run_input(args, b"")
    }

    /// Runs `flux ARGS…` with standard input.
    pub fn run_input(&self, args: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(&crate::bindir().join("flux").to_string_lossy());
        command.args(args);
        self.sandbox.finish(command, input)
    }

    /// Runs `flux ARGS…` against the broker of a rank.
    pub fn on(&self, rank: u32, args: &[&str]) -> Output {
        let mut command = self
            .sandbox
            .command(&crate::bindir().join("flux").to_string_lossy());
        command.env("FLUX_URI", self.uri_of(rank)).args(args);
        self.sandbox.finish(command, b"")
    }

    /// Runs a shell script with this instance's `flux` in its path.
    pub fn sh(&self, script: &str) -> Output {
        let mut command = self.command("sh");
        command.args(["-c", script]);
        self.sandbox.finish(command, b"")
    }

    /// Opens a connection to the broker of a rank; its calls give up after ten seconds.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    #[must_use]
    pub fn handle(&self, rank: u32) -> Handle {
        let mut handle = Handle::open(Some(&self.uri_of(rank))).expect("the broker accepts connections");
        handle.set_timeout(Some(Duration::from_secs(10)));
        handle
    }

    /// Sends a signal to a broker.
    pub fn signal(&self, rank: u32, signal: Signal) {
        crate::kill(self.pid(rank), signal);
    }

    /// Waits until a command's output satisfies `good`, asking again; returns that output.
    ///
    /// # Panics
    /// At the deadline, with the last output.
    #[track_caller]
    pub fn wait_until(&self, args: &[&str], deadline: Duration, good: impl Fn(&Output) -> bool) -> Output {
        let mut last = String::new();
        let started = Instant::now();
        wait_for(
            "the output is as expected",
            deadline + Duration::from_secs(5),
            || {
                let output = self.run(args);
                if good(&output) {
                    return Some(output);
                }
                last = output.to_string();
                assert!(
                    started.elapsed() < deadline,
                    "not as expected within {deadline:?}: {last}"
                );
                None
            },
        )
    }

    /// Returns what the brokers wrote to standard error so far.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.sandbox.file("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for `flux start` to end; returns its exit code (128 + signal number after a signal).
    ///
    /// # Panics
    /// At the deadline.
    #[track_caller]
    pub fn wait_end(&mut self, deadline: Duration) -> i32 {
        let Some(child) = &mut self.start else {
            panic!("flux start has ended already")
        };
        let status = wait_for("flux start ends", deadline, || {
            child.try_wait().expect("a child can be waited for")
        });
        self.start = None;
        status
            .code()
            .or_else(|| status.signal().map(|signal| 128 + signal))
            .unwrap_or(-1)
    }

    /// Closes the initial program's input, which asks the instance to end; see [`Instance::wait_end`].
    pub fn end_program(&mut self) {
        if let Some(child) = &mut self.start {
            drop(child.stdin.take());
        }
    }

    /// Ends the instance the normal way and checks exit code 0; for instances whose rundir is the test's own.
    ///
    /// # Panics
    /// When it ends otherwise.
    #[track_caller]
    pub fn end_and_check(mut self) {
        self.end_program();
        let code = self.wait_end(DEADLINE);
        assert_eq!(code, 0, "exit code of flux start; log:\n{}", self.log());
    }

    /// Ends the instance the normal way and checks exit code 0 and that nothing is left; returns the log.
    ///
    /// # Panics
    /// When it ends otherwise.
    #[track_caller]
    pub fn stop(mut self) -> String {
        self.end_program();
        let code = self.wait_end(DEADLINE);
        let log = self.log();
        assert_eq!(code, 0, "exit code of flux start; log:\n{log}");
        self.sandbox.nothing_left("flux start");
        log
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the brokers\n{}---", self.log());
        }
        self.sandbox.kill_all();
        if let Some(mut child) = self.start.take() {
            // killed above with the rest of the sandbox
            let _ended = child.wait();
        }
    }
}
