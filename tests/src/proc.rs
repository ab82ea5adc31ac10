//! Which processes belong to a sandbox, and how large are they? Read from `/proc`.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// A process that carries a sandbox's mark.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its process id.
    pub pid: i32,
    /// Its command line, words separated by blanks.
    pub command: String,
}

/// Returns the processes whose environment holds `mark` (`NAME=VALUE`); zombies have none and do not count.
pub(crate) fn marked(mark: &str) -> Vec<Process> {
    let own = nix::unistd::getpid().as_raw();
    let entries = std::fs::read_dir("/proc").expect("/proc is mounted");
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != own)
        .filter(|pid| {
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ
                .split(|byte| *byte == 0)
                .any(|entry| entry == mark.as_bytes())
        })
        .map(|pid| Process {
            pid,
            command: command_line(pid),
        })
        .collect()
}

fn command_line(pid: i32) -> String {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words)
        .replace('\0', " ")
        .trim_end()
        .to_owned()
}

/// Sends a signal; a process that is gone already needs none.
pub fn kill(pid: i32, signal: Signal) {
    let _gone = nix::sys::signal::kill(Pid::from_raw(pid), signal);
}

/// Returns true while the process exists and is not a zombie.
#[must_use]
pub fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// Returns the resident memory of a process in KiB; 0 when it is gone.
#[must_use]
pub fn rss_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Returns the files below a directory, deepest names included, without the directory itself.
pub(crate) fn files_below(dir: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found
}
