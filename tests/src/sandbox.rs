//! Where does a test run? A private directory, a clean environment, and a mark by which its processes are found.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::proc::{Process, files_below, marked};
use crate::run::{Output, run};
use crate::{DEADLINE, bindir, wait_for};

/// Environment variable that every process of a sandbox inherits.
const MARK: &str = "FLUX_TEST_MARK";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A place to run commands in. Dropping it kills what is left; after a failure the files are kept and named.
#[derive(Debug)]
pub struct Sandbox {
    dir: Option<tempfile::TempDir>,
    mark: String,
    bindir: PathBuf,
    deadline: Duration,
    env: Vec<(String, String)>,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Sandbox {
    /// Makes an empty sandbox.
    ///
    /// # Panics
    /// When the temporary directory is not writable.
    #[must_use]
    pub fn new() -> Self {
        // short names: a UNIX socket's path is at most 107 bytes
        let dir = tempfile::Builder::new()
            .prefix("fx")
            .tempdir_in("/tmp")
            .expect("/tmp is writable");
        for name in ["t", "w"] {
            std::fs::create_dir(dir.path().join(name)).expect("a new directory is writable");
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{}.{count}.{}", std::process::id(), dir.path().display());
        Sandbox {
            dir: Some(dir),
            mark,
            bindir: bindir(),
            deadline: DEADLINE,
            env: Vec::new(),
        }
    }

    /// Changes how long a command may take.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Adds an environment variable to all commands.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    fn path(&self) -> &Path {
        self.dir
            .as_ref()
            .expect("the directory lives as long as the sandbox")
            .path()
    }

    /// Returns the directory that is `TMPDIR` of all commands; an instance's run directory appears below it.
    #[must_use]
    pub fn tmpdir(&self) -> PathBuf {
        self.path().join("t")
    }

    /// Returns the directory that commands start in, for the test's own files.
    #[must_use]
    pub fn workdir(&self) -> PathBuf {
        self.path().join("w")
    }

    /// Returns the path of a file in the sandbox that is neither in `tmpdir` nor in `workdir`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file into the working directory and returns its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.workdir().join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).expect("the sandbox is writable");
        }
        std::fs::write(&path, text).expect("the sandbox is writable");
        path
    }

    /// Returns a command with the sandbox's environment: no variable of an enclosing instance or launcher.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let foreign = ["FLUX_", "PMI_", "PMIX_", "HYDRA_", "SLURM_", "CARGO_", "NEXTEST"];
            if foreign.iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        let mut path = OsString::from(&self.bindir);
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        command
            .env("PATH", path)
            .env("TMPDIR", self.tmpdir())
            .env("HOME", self.workdir())
            .env("LC_ALL", "C.UTF-8")
            .env(MARK, &self.mark)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.workdir());
        command
    }

    /// Runs a program of this build (`flux`, …) or of the machine.
    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        self.run_input(program, args, b"")
    }

    /// Runs a program with standard input.
    pub fn run_input(&self, program: &str, args: &[&str], input: &[u8]) -> Output {
        let own = self.bindir.join(program);
        let program = if own.is_file() {
            own.to_string_lossy().into_owned()
        } else {
            program.to_owned()
        };
        let mut command = self.command(&program);
        command.args(args);
        self.finish(command, input)
    }

    /// Runs a prepared command to its end.
    pub fn finish(&self, command: Command, input: &[u8]) -> Output {
        run(command, input, self.deadline)
    }

    /// Runs `flux start ARGS…` to its end, and checks that it left no process, socket or directory behind.
    ///
    /// # Panics
    /// When something is left.
    #[track_caller]
    pub fn start(&self, args: &[&str]) -> Output {
        let words: Vec<&str> = std::iter::once("start").chain(args.iter().copied()).collect();
        let output = self.run("flux", &words);
        self.nothing_left(&output.to_string());
        output
    }

    /// Returns the processes of this sandbox.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        marked(&format!("{MARK}={}", self.mark))
    }

    /// Asserts that the sandbox's processes have ended and that `TMPDIR` is empty.
    ///
    /// # Panics
    /// When something is left after five seconds.
    #[track_caller]
    pub fn nothing_left(&self, context: &str) {
        let mut left = String::new();
        let started = std::time::Instant::now();
        wait_for(
            &format!("nothing is left after {context}"),
            Duration::from_secs(6),
            || {
                let processes = self.processes();
                let files = files_below(&self.tmpdir());
                if processes.is_empty() && files.is_empty() {
                    return Some(());
                }
                left = format!("processes {processes:?}, files {files:?}");
                assert!(
                    started.elapsed() < Duration::from_secs(5),
                    "left behind: {left}\nafter {context}"
                );
                None
            },
        );
    }

    /// Kills every process of the sandbox.
    pub fn kill_all(&self) {
        // a process may fork while it is being killed
        for _ in 0..10 {
            let found = self.processes();
            if found.is_empty() {
                break;
            }
            found
                .iter()
                .for_each(|process| crate::kill(process.pid, Signal::SIGKILL));
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.kill_all();
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("kept for a look: {}", dir.keep().display());
        }
    }
}
