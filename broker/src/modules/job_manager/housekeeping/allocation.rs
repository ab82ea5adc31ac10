//! Which ranks of an ended job are still to be done, and which are given back when?

use super::config::ReleaseAfter;
use flux_formats::idset::IdSet;
use flux_formats::resource_set::ResourceSet;

/// What is to be done after a rank has ended, or the time is up.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Step {
    /// These ranks are free.
    pub(super) release: Option<IdSet>,
    /// They are the last ones.
    pub(super) last: bool,
    /// Call [`Allocation::expired`] after `release-after`.
    pub(super) arm: bool,
}

/// The resources of a job that housekeeping holds.
#[derive(Debug)]
pub(super) struct Allocation {
    /// Seconds since the epoch.
    pub(super) t_start: f64,
    /// What the scheduler thinks is allocated, without what was given back.
    pub(super) held: ResourceSet,
    /// Ranks that are not done.
    pub(super) pending: IdSet,
    armed: bool,
    expired: bool,
}

impl Allocation {
    /// Returns an allocation of which all is pending.
    pub(super) fn new(held: ResourceSet, t_start: f64) -> Self {
        let pending = held.ranks();
        Allocation {
            t_start,
            held,
            pending,
            armed: false,
            expired: false,
        }
    }

    /// A rank is done; one that was done already changes nothing.
    pub(super) fn ended(&mut self, rank: u32, after: ReleaseAfter) -> Step {
        if !self.pending.remove(rank) {
            return Step::default();
        }
        if self.pending.is_empty() || after == ReleaseAfter::Each || self.expired {
            return self.release();
        }
        let arm = matches!(after, ReleaseAfter::Time(_)) && !self.armed;
        self.armed |= arm;
        Step {
            arm,
            ..Step::default()
        }
    }

    /// The time after which what is done is given back has passed.
    pub(super) fn expired(&mut self) -> Step {
        self.expired = true;
        self.release()
    }

    fn release(&mut self) -> Step {
        let done = self.held.ranks().difference(&self.pending);
        if done.is_empty() {
            return Step::default();
        }
        self.held = self.held.copy_ranks(&self.pending);
        Step {
            release: Some(done),
            last: self.pending.is_empty(),
            arm: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn allocation() -> Allocation {
        let r = r#"{"version":1,"execution":{"R_lite":[{"rank":"0-2","children":{"core":"0"}}],
            "starttime":0.0,"expiration":0.0,"nodelist":["n[0-2]"]}}"#;
        Allocation::new(ResourceSet::decode(r.as_bytes()).unwrap(), 1.0)
    }

    fn step(release: Option<&str>, last: bool, arm: bool) -> Step {
        Step {
            release: release.map(|ranks| ranks.parse().unwrap()),
            last,
            arm,
        }
    }

    #[test]
    fn all_at_once() {
        let mut all = allocation();
        assert_eq!(all.ended(1, ReleaseAfter::All), Step::default());
        assert_eq!(all.ended(1, ReleaseAfter::All), Step::default());
        assert_eq!(all.ended(9, ReleaseAfter::All), Step::default());
        assert_eq!(all.ended(0, ReleaseAfter::All), Step::default());
        assert_eq!(
            (all.pending.to_string(), all.held.ranks().to_string()),
            ("2".to_owned(), "0-2".to_owned())
        );
        assert_eq!(all.ended(2, ReleaseAfter::All), step(Some("0-2"), true, false));
        assert!(all.held.is_empty());
    }

    #[test]
    fn each_when_it_is_done() {
        let mut each = allocation();
        assert_eq!(each.ended(1, ReleaseAfter::Each), step(Some("1"), false, false));
        assert_eq!(each.held.ranks().to_string(), "0,2");
        assert_eq!(each.ended(0, ReleaseAfter::Each), step(Some("0"), false, false));
        assert_eq!(each.ended(2, ReleaseAfter::Each), step(Some("2"), true, false));
    }

    #[test]
    fn after_a_time() {
        let time = ReleaseAfter::Time(Duration::from_secs(5));
        let mut some = allocation();
        assert_eq!(some.ended(1, time), step(None, false, true));
        assert_eq!(some.ended(0, time), step(None, false, false));
        assert_eq!(some.expired(), step(Some("0-1"), false, false));
        assert_eq!(some.expired(), Step::default());
        assert_eq!(some.ended(2, time), step(Some("2"), true, false));
    }
}
