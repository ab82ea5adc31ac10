//! How is a command run to its end, or to its deadline, and its output judged?

use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

/// How a command ended and what it wrote.
#[derive(Clone, Debug)]
pub struct Output {
    /// The words that were run, for messages.
    pub command: String,
    /// Exit code; 128 + signal number when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub elapsed: Duration,
}

impl Output {
    /// Asserts success.
    #[track_caller]
    pub fn ok(&self) -> &Self {
        self.code(0)
    }

    /// Asserts an exit code.
    #[track_caller]
    pub fn code(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "unexpected exit code of {self}");
        self
    }

    /// Asserts a failure, whatever the code, that did not come from a signal or time-out.
    #[track_caller]
    pub fn fails(&self) -> &Self {
        assert!(self.code != 0 && self.code < 124, "expected a failure of {self}");
        self
    }

    /// Asserts that standard output contains a text.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(
            self.stdout.contains(text),
            "'{text}' is missing from standard output of {self}"
        );
        self
    }

    /// Asserts that standard error contains a text.
    #[track_caller]
    pub fn complains(&self, text: &str) -> &Self {
        assert!(
            self.stderr.contains(text),
            "'{text}' is missing from standard error of {self}"
        );
        self
    }

    /// Returns the only line of standard output.
    #[track_caller]
    #[must_use]
    pub fn line(&self) -> &str {
        assert_eq!(self.stdout.lines().count(), 1, "expected one line from {self}");
        self.stdout.trim_end()
    }

    /// Returns the lines of standard output.
    #[must_use]
    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }

    /// Returns the lines of standard output in sorted order.
    #[must_use]
    pub fn sorted(&self) -> Vec<&str> {
        let mut lines = self.lines();
        lines.sort_unstable();
        lines
    }

    /// Reads standard output as JSON.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(err) => panic!("not JSON ({err}): {self}"),
        }
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` (exit code {}, {:?})\n--- stdout\n{}--- stderr\n{}---",
            self.command, self.code, self.elapsed, self.stdout, self.stderr
        )
    }
}

/// Runs a command in a process group of its own; at the deadline the group is killed and the code is 124.
pub(crate) fn run(mut command: Command, input: &[u8], deadline: Duration) -> Output {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let started = Instant::now();
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(err) => panic!("cannot run {}: {err}", words.join(" ")),
    };
    let pid = i32::try_from(child.id()).expect("a pid is positive");
    let writer = feed(&mut child, input.to_vec());
    let (done, result) = channel();
    let waiter = std::thread::spawn(move || {
        let output = child.wait_with_output();
        // the receiver is gone when the deadline has passed
        let _late = done.send(output);
    });
    let (output, timed_out) = match result.recv_timeout(deadline) {
        Ok(output) => (output, false),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            crate::kill(-pid, Signal::SIGKILL);
            // a process outside the group may still hold the pipes: then what was written is lost
            let late = result.recv_timeout(Duration::from_secs(2));
            (
                late.unwrap_or_else(|_| Err(std::io::Error::other("output is held open"))),
                true,
            )
        }
    };
    if !timed_out {
        waiter.join().expect("the waiting thread does not panic");
        // a program that does not read its input breaks the pipe
        let _unread = writer.join();
    }
    let (mut code, stdout, stderr) = match output {
        Ok(output) => {
            let code = output
                .status
                .code()
                .or_else(|| output.status.signal().map(|signal| 128 + signal));
            (
                code.unwrap_or(-1),
                String::from_utf8_lossy(&output.stdout).into_owned(),
                String::from_utf8_lossy(&output.stderr).into_owned(),
            )
        }
        Err(err) => (-1, String::new(), err.to_string()),
    };
    if timed_out {
        code = 124;
    }
    Output {
        command: words.join(" "),
        code,
        stdout,
        stderr,
        elapsed: started.elapsed(),
    }
}

fn feed(child: &mut Child, input: Vec<u8>) -> std::thread::JoinHandle<()> {
    let stdin = child.stdin.take();
    std::thread::spawn(move || {
        if let Some(mut stdin) = stdin {
            let _unread = stdin.write_all(&input);
        }
    })
}

/// Asks again and again until `ready` returns something; fails the test at the deadline.
///
/// # Panics
/// At the deadline, naming `what`.
#[track_caller]
pub fn wait_for<T>(what: &str, deadline: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(
            started.elapsed() < deadline,
            "waited {deadline:?} in vain: {what}"
        );
        pause();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the harness polls, always under a deadline"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}
