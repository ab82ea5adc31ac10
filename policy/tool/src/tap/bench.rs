//! `flux policy bench` for jobtap plugins: what one job costs, from its submission to its end, and what one call does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use flux_policy::{Grant, PluginSpec, PluginState, TapCall, TapJob, World};
use serde_json::{Value, json};

use super::{INACTIVE, SCHED, Tap};
use crate::bench::quantile;

const RUN: u32 = 16;
const CLEANUP: u32 = 32;

const REMOVED: &str = "job.inactive-remove";

/// Jobs that are active at a time.
const ACTIVE: u64 = 100;

/// Measures.
///
/// # Errors
/// When the plugin cannot be loaded, or fails.
pub(crate) fn run(dir: &Path, name: &str, jobspec: &str, calls: u32) -> Result<Value> {
    let mut spec = PluginSpec::new(name, World::Jobtap);
    // what it asks for costs the site's programs nothing here
    spec.grants = vec![Grant::Exec, Grant::Bypass, Grant::Service];
    let loading = Instant::now();
    let mut tap = Tap::load(dir, spec, &json!({}), BTreeMap::new())?;
    let load = loading.elapsed().as_secs_f64();
    let r: Arc<str> = Arc::from(r#"{"version":1,"execution":{"R_lite":[],"starttime":0,"expiration":0}}"#);
    let jobspec: Arc<str> = Arc::from(jobspec);
    let (mut times, mut refused) = (Vec::new(), 0_u32);
    for id in 1..=u64::from(calls) {
        let job = TapJob {
            id,
            userid: 1000,
            urgency: 16,
            state: 1,
            t_submit: 1.0,
            jobspec: jobspec.clone(),
            ..TapJob::default()
        };
        tap.jobs.insert(id, job);
        let begun = Instant::now();
        let said = tap.submit(id)?;
        if said.last().is_some_and(|line| line.starts_with("refused ")) {
            refused += 1;
            tap.jobs.remove(&id);
        } else {
            tap.enter(id, SCHED)?;
            if let Some(job) = tap.jobs.get_mut(&id) {
                job.r = Some(r.clone());
                job.posted.alloc = true;
            }
            tap.enter(id, RUN)?;
        }
        // the job of long ago ends
        if let Some(old) = id.checked_sub(ACTIVE).filter(|old| tap.jobs.contains_key(old)) {
            tap.enter(old, CLEANUP)?;
            tap.enter(old, INACTIVE)?;
            tap.jobs.remove(&old);
            tap.call(old, TapCall::Removed)?;
        }
        times.push(begun.elapsed().as_secs_f64());
    }
    let stats = tap.stats()?;
    ensure!(
        stats.traps == 0 && stats.state != PluginState::Quarantined,
        "{name} failed {} times: {}",
        stats.traps,
        stats.last_failure
    );
    let mut figures = json!({
        "load_us": load * 1e6,
        "job_p50_us": quantile(&mut times, 50) * 1e6,
        "job_p99_us": quantile(&mut times, 99) * 1e6,
        "calls": stats.calls,
        "call_p50_us": stats.p50.as_secs_f64() * 1e6,
        "call_p99_us": stats.p99.as_secs_f64() * 1e6,
        "memory_bytes": stats.memory_bytes,
        "jobs": calls,
        "refused": refused,
        "jobspec_bytes": jobspec.len(),
    });
    if tap.wants(REMOVED)
        && let Some(figures) = figures.as_object_mut()
    {
        let micros = removed(&mut tap.restarted(dir)?, calls)?;
        figures.insert("removed_p50_us".to_owned(), micros.into());
    }
    Ok(figures)
}

/// Returns the microseconds of `job.inactive-remove`, called again and again: what a call costs while all that it needs is in the caches.
fn removed(tap: &mut Tap, calls: u32) -> Result<f64> {
    for id in 1..=u64::from(calls) {
        tap.call(id, TapCall::Removed)?;
    }
    Ok(tap.stats()?.p50.as_secs_f64() * 1e6)
}
