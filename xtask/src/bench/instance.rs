//! How does a benchmark run commands and instances of the installed programs?

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use flux_client::Handle;

use super::Bench;

/// Prints where the instance is, then waits until its input ends.
const INITIAL: &str = r#"echo "READY $FLUX_URI"; cat >/dev/null"#;

/// A running instance; ends when dropped.
#[derive(Debug)]
pub(super) struct Instance {
    start: Child,
    prefix: PathBuf,
    pub(super) uri: String,
}

impl Bench {
    /// Returns a command of the installation, with a clean environment.
    pub(super) fn flux(&self, args: &[&str]) -> Command {
        flux(&self.prefix, args)
    }

    /// Boots an instance with options of `flux start`.
    pub(super) fn instance<S: AsRef<std::ffi::OsStr>>(&self, options: &[S]) -> Result<Instance> {
        let mut command = self.flux(&["start"]);
        command
            .args(options)
            .args(["sh", "-c", INITIAL])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut start = command.spawn()?;
        let stdout = start.stdout.take().context("standard output is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let Some(uri) = lines.find_map(|line| line.ok()?.strip_prefix("READY ").map(str::to_owned)) else {
            bail!("flux start ended at once ({})", start.wait()?);
        };
        Ok(Instance {
            start,
            prefix: self.prefix.clone(),
            uri,
        })
    }

    /// Writes a file into the scratch directory.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.scratch.join(name);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(&path, text)?;
        Ok(path)
    }
}

impl Instance {
    /// Returns a command against this instance.
    pub(super) fn flux(&self, args: &[&str]) -> Command {
        let mut command = flux(&self.prefix, args);
        command.env("FLUX_URI", &self.uri);
        command
    }

    pub(super) fn handle(&self) -> Result<Handle> {
        Ok(Handle::open(Some(&self.uri))?)
    }

    /// Ends the instance the normal way.
    pub(super) fn stop(mut self) -> Result<()> {
        drop(self.start.stdin.take());
        let status = self.start.wait()?;
        if !status.success() {
            bail!("the instance ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        drop(self.start.stdin.take());
        // after stop() the status is there already
        let _status = self.start.wait();
    }
}

fn flux(prefix: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(prefix.join("bin/flux"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["FLUX_", "PMI_", "CARGO"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    command.args(args);
    command
}

/// Runs a command to its end; returns its output.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        let words: Vec<_> = command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        bail!(
            "`flux {}` ended with {}: {}",
            words.join(" "),
            output.status,
            error.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command to its end; returns the seconds it took.
pub(super) fn seconds(command: &mut Command) -> Result<f64> {
    let started = Instant::now();
    output(command)?;
    Ok(started.elapsed().as_secs_f64())
}

/// Returns the private memory of a process in megabytes (`smaps_rollup`).
pub(super) fn private_megabytes(pid: &str) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let private = text.lines().filter(|line| line.starts_with("Private_"));
    let kib: f64 = private
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok())
        .sum();
    Ok(kib / 1024.0)
}

/// Returns the resident memory of a process in kilobytes.
pub(super) fn rss_kilobytes(pid: &str) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    Ok(line.split_whitespace().next().context("no VmRSS")?.parse()?)
}

/// Returns the CPU time of all threads of a process in milliseconds.
pub(super) fn cpu_millis(pid: &str) -> Result<f64> {
    // ticks of 10 ms on every Linux
    const TICK_MILLIS: f64 = 10.0;
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // the name, which may hold anything, ends with the last parenthesis
    let (_, rest) = text.rsplit_once(')').context("no name in stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).context("no times in stat")?;
    Ok((user + system) * TICK_MILLIS)
}

/// Returns the size of the files in a directory in kilobytes.
pub(super) fn directory_kilobytes(dir: &Path) -> Result<f64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        bytes += entry?.metadata()?.len();
    }
    #[expect(clippy::cast_precision_loss, reason = "a size in kilobytes needs no more")]
    let kilobytes = bytes as f64 / 1024.0;
    Ok(kilobytes)
}
