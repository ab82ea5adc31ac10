//! What does a signed job of a guest cost? On a site of one node with users, MUNGE, and the installation's own IMP, setuid (as
//! root; PAM is off).

use anyhow::{Context, Result};
use flux_tests::{ALICE, Capability, FLUX, Programs, Site, User, missing};

use super::{Bench, Figure, Unit, median, middle};

/// Jobs whose start is timed, of each user by turns.
const STARTS: usize = 41;

/// 1000 signed jobs, and the start of one beside the start of an owner's.
pub(super) fn guests(bench: &Bench) -> Result<Vec<Figure>> {
    if missing(Capability::Site) {
        // it takes root, namespaces and munged; that is said
        return Ok(Vec::new());
    }
    let shell = bench.prefix.join("libexec/flux/flux-shell");
    let imp = format!(
        "[exec]\nallowed-users = [\"flux\"]\nallowed-shells = [\"{}\"]\npam-support = false\n",
        shell.display()
    );
    let mut site = Site::of(&Programs::installed(&bench.prefix), 1, "", &imp);
    site.start_all();
    let rate = |user: User| {
        median(3, || {
            let began = std::time::Instant::now();
            site.flux(user, &["submit", "--quiet", "--cc=1-1000", "--wait", "true"])
                .ok();
            Ok(1000.0 / began.elapsed().as_secs_f64())
        })
    };
    let (signed, own) = (rate(ALICE)?, rate(FLUX)?);
    let mut starts = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        starts.0.push(start(&site, ALICE)?);
        starts.1.push(start(&site, FLUX)?);
    }
    let (guest, owner) = (middle(starts.0), middle(starts.1));
    Ok(vec![
        Figure::new(
            "1000 signed jobs of a guest, statedir",
            Unit::PerSecond,
            None,
            200.0,
            signed,
        ),
        Figure::new(
            "the same of the owner, unsigned",
            Unit::PerSecond,
            None,
            300.0,
            own,
        ),
        Figure::new(
            "alloc to shell.init of a guest's job",
            Unit::Millis,
            None,
            owner + 5.0,
            guest,
        ),
        Figure::new("what the IMP adds to it", Unit::Millis, None, 5.0, guest - owner),
    ])
}

/// Runs a job; returns the milliseconds from its allocation to its shell's first word.
fn start(site: &Site, user: User) -> Result<f64> {
    let id = site.flux(user, &["submit", "--wait", "true"]);
    let id = id.ok().line().to_owned();
    let time = |path: &str, event: &str| {
        let log = site.flux(user, &["job", "eventlog", "--format=json", "-p", path, &id]);
        let lines = log.ok().stdout.clone();
        let mut events = lines
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let found = events.find(|entry| entry["name"] == event);
        let time = found.and_then(|entry| entry["timestamp"].as_f64());
        time.with_context(|| format!("{id} has no {event} in {path}"))
    };
    Ok(1000.0 * (time("exec", "shell.init")? - time("eventlog", "alloc")?))
}
