//! Did every job really run? Each benchmark of jobs ends with a look at every eventlog, and at the store.

use std::path::Path;

use anyhow::{Context, Result, bail};
use flux_client::{Handle, job};

use super::Bench;
use super::instance::{Instance, output};

/// Names of the events of a job that ran well (RFC 21), in order.
const EVENTS: [&str; 10] = [
    "submit", "validate", "depend", "priority", "alloc", "start", "finish", "release", "free", "clean",
];
/// How often the list of jobs is asked for until all jobs in it have ended.
const LIST_TRIES: usize = 50;
/// Look-ups that are under way at once.
const WINDOW: usize = 200;

/// Checks that the instance has exactly `count` inactive jobs and that all have the eventlog of a good job.
pub(super) fn jobs(instance: &Instance, count: u32) -> Result<()> {
    let list = settled(instance)?;
    let mut ids = Vec::new();
    for line in list.lines() {
        match line.split_once(' ') {
            Some((id, "COMPLETED")) => ids.push(id.parse::<u64>()?),
            _ => bail!("a job did not complete: {line}"),
        }
    }
    if ids.len() != usize::try_from(count)? {
        bail!("{} jobs are known, {count} were submitted", ids.len());
    }
    let mut handle = instance.handle()?;
    for ids in ids.chunks(WINDOW) {
        eventlogs(&mut handle, ids)?;
    }
    Ok(())
}

/// Lists the jobs; job-list may hear of the last ends a moment after those who waited for them.
fn settled(instance: &Instance) -> Result<String> {
    let mut list = String::new();
    for _ in 0..LIST_TRIES {
        list = output(&mut instance.flux(&["jobs", "-a", "-c0", "-no", "{id.dec} {result}"]))?;
        if list.lines().all(|line| !line.ends_with(' ')) {
            break;
        }
    }
    Ok(list)
}

fn eventlogs(handle: &mut Handle, ids: &[u64]) -> Result<()> {
    let requests = ids
        .iter()
        .map(|id| job::lookup_start(handle, *id, &["eventlog"], 0))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    for (id, request) in ids.iter().zip(&requests) {
        let answer: serde_json::Value = handle.get(request)?;
        let text = answer["eventlog"]
            .as_str()
            .with_context(|| format!("job {id} has no eventlog"))?;
        let mut names = Vec::new();
        for line in text.lines() {
            let event: serde_json::Value = serde_json::from_str(line)?;
            names.push(event["name"].as_str().unwrap_or_default().to_owned());
        }
        if names != EVENTS {
            bail!("job {id} has the events {}", names.join(" "));
        }
    }
    Ok(())
}

/// Starts an instance on what another left in `statedir` and checks its store.
pub(super) fn store(bench: &Bench, statedir: &Path) -> Result<()> {
    let option = format!("-Sstatedir={}", statedir.display());
    output(&mut bench.flux(&["start", "-s", "1", &option, "flux", "fsck"])).context("the store")?;
    Ok(())
}
