//! Which ranks may be used? Pure: R, who is online, who is drained or excluded, and what follows from a change.

use crate::service::RpcError;
use flux_formats::errno;
use flux_formats::hostlist::Hostlist;
use flux_formats::idset::IdSet;
use flux_formats::resource_set::ResourceSet;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Why and since when a rank is drained.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Drain {
    /// Seconds since the epoch.
    pub(super) timestamp: f64,
    /// Text for people; empty when none was given.
    pub(super) reason: String,
}

/// What `resource.drain` does with ranks that are drained already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DrainMode {
    /// Refuses.
    Fail,
    /// Leaves them as they are, but fills in a missing reason.
    Update,
    /// Replaces the reason.
    Overwrite,
    /// Replaces reason and time.
    ForceOverwrite,
}

impl DrainMode {
    /// Parses the request's `mode`.
    ///
    /// # Errors
    /// EINVAL with the mode.
    pub(super) fn parse(mode: Option<&str>) -> Result<Self, RpcError> {
        match mode {
            None => Ok(DrainMode::Fail),
            Some("update") => Ok(DrainMode::Update),
            Some("overwrite") => Ok(DrainMode::Overwrite),
            Some("force-overwrite") => Ok(DrainMode::ForceOverwrite),
            Some(other) => Err(RpcError::new(
                errno::EINVAL,
                format!("invalid drain mode specified: {other}"),
            )),
        }
    }

    /// Returns the number that the `drain` event carries.
    pub(super) fn overwrite(self) -> u8 {
        match self {
            DrainMode::Fail | DrainMode::Update => 0,
            DrainMode::Overwrite => 1,
            DrainMode::ForceOverwrite => 2,
        }
    }
}

/// Everything that decides which ranks may be used.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Number of brokers.
    pub(super) size: u32,
    /// All resources, excluded ones too; `None` while unknown.
    pub(super) r: Option<ResourceSet>,
    /// Ranks whose broker is up.
    pub(super) online: IdSet,
    /// Ranks whose broker is slow to answer.
    pub(super) torpid: IdSet,
    /// Ranks taken out by the configuration.
    pub(super) exclude: IdSet,
    /// Ranks held down by `resource.monitor-force-down`.
    pub(super) forced_down: IdSet,
    /// Drained ranks.
    pub(super) drained: BTreeMap<u32, Drain>,
    /// Hosts by rank, attribute `hostlist`.
    pub(super) hosts: Hostlist,
}

impl State {
    /// Returns the ranks that exist: brokers and the ranks of R.
    pub(super) fn ranks(&self) -> IdSet {
        let brokers = IdSet::first_n(self.size);
        self.r
            .as_ref()
            .map_or_else(|| brokers.clone(), |r| brokers.union(&r.ranks()))
    }

    /// Returns the ranks whose broker is up and not held down.
    pub(super) fn online(&self) -> IdSet {
        self.online.difference(&self.forced_down)
    }

    /// Returns the drained ranks.
    pub(super) fn drained(&self) -> IdSet {
        self.drained.keys().copied().collect()
    }

    /// Returns the ranks of R that new jobs may use.
    pub(super) fn up(&self) -> IdSet {
        let Some(r) = &self.r else { return IdSet::default() };
        r.ranks()
            .intersection(&self.online())
            .difference(&self.torpid)
            .difference(&self.drained())
            .difference(&self.exclude)
    }

    /// Returns R without excluded ranks, as schedulers get it.
    pub(super) fn schedulable(&self) -> Option<ResourceSet> {
        let r = self.r.as_ref()?;
        if self.exclude.is_empty() {
            return Some(r.clone());
        }
        Some(r.copy_ranks(&r.ranks().difference(&self.exclude)))
    }

    /// Returns the hosts of ranks, from R when it knows them, else from the brokers.
    pub(super) fn hosts_of(&self, ranks: &IdSet) -> Hostlist {
        match &self.r {
            Some(r) if !r.nodelist().is_empty() => r.hosts_of(ranks),
            _ => self.hosts.select(ranks),
        }
    }

    /// Resolves drain targets or `resource.exclude`: an idset of ranks or a hostlist.
    ///
    /// # Errors
    /// EINVAL with what is wrong.
    pub(super) fn resolve(&self, targets: &str) -> Result<IdSet, RpcError> {
        let invalid = |text: String| RpcError::new(errno::EINVAL, text);
        if let Ok(ranks) = targets.parse::<IdSet>() {
            if ranks.is_empty() {
                return Err(invalid("idset is empty".into()));
            }
            if !ranks.is_subset(&self.ranks()) {
                return Err(invalid("idset is out of range".into()));
            }
            return Ok(ranks);
        }
        let wanted: Hostlist = targets.parse().map_err(|_| {
            invalid(format!(
                "invalid targets: {targets} is neither idset nor hostlist"
            ))
        })?;
        let hosts = match &self.r {
            Some(r) if !r.nodelist().is_empty() => r.nodelist(),
            _ => &self.hosts,
        };
        let unknown: Vec<String> = wanted
            .expand()
            .unwrap_or_default()
            .into_iter()
            .filter(|name| !hosts.contains(name))
            .collect();
        if !unknown.is_empty() {
            return Err(invalid(format!(
                "invalid targets: invalid hosts: {}",
                unknown.join(",")
            )));
        }
        let all: Vec<u32> = match &self.r {
            Some(r) if !r.nodelist().is_empty() => r.ranks().iter().collect(),
            _ => (0..self.size).collect(),
        };
        let names = hosts.expand().map_err(|err| invalid(err.to_string()))?;
        Ok(all
            .into_iter()
            .zip(names)
            .filter(|(_, name)| wanted.contains(name))
            .map(|(rank, _)| rank)
            .collect())
    }

    /// Checks a drain and returns the ranks that the event shall name (empty: nothing to do).
    ///
    /// # Errors
    /// EEXIST when ranks are drained already and the mode is `Fail`.
    pub(super) fn check_drain(
        &self,
        ranks: &IdSet,
        mode: DrainMode,
        reason: &str,
    ) -> Result<IdSet, RpcError> {
        let drained = self.drained();
        let already = ranks.intersection(&drained);
        match mode {
            DrainMode::Fail if !already.is_empty() => Err(RpcError::new(
                errno::EEXIST,
                format!(
                    "rank{} {already} already drained",
                    if already.count() > 1 { "s" } else { "" }
                ),
            )),
            DrainMode::Update => {
                let keep: IdSet = already
                    .iter()
                    .filter(|rank| {
                        reason.is_empty() || self.drained.get(rank).is_some_and(|d| !d.reason.is_empty())
                    })
                    .collect();
                Ok(ranks.difference(&keep))
            }
            _ => Ok(ranks.clone()),
        }
    }

    /// Applies a `drain` event, new or read back from the eventlog.
    pub(super) fn apply_drain(&mut self, ranks: &IdSet, reason: &str, timestamp: f64, overwrite: u8) {
        for rank in ranks {
            let entry = self.drained.entry(rank).or_insert_with(|| Drain {
                timestamp,
                reason: reason.to_owned(),
            });
            if overwrite > 0 || entry.reason.is_empty() {
                reason.clone_into(&mut entry.reason);
            }
            if overwrite > 1 {
                entry.timestamp = timestamp;
            }
        }
    }

    /// Checks an undrain and returns the ranks to undrain.
    ///
    /// # Errors
    /// EINVAL when ranks are not drained, unless forced.
    pub(super) fn check_undrain(&self, ranks: &IdSet, force: bool) -> Result<IdSet, RpcError> {
        let drained = self.drained();
        let not = ranks.difference(&drained);
        if !not.is_empty() && !force {
            let plural = if not.count() > 1 { "s" } else { "" };
            return Err(RpcError::new(
                errno::EINVAL,
                format!("rank{plural} {not} not drained"),
            ));
        }
        Ok(ranks.intersection(&drained))
    }

    /// Applies an `undrain` event.
    pub(super) fn apply_undrain(&mut self, ranks: &IdSet) {
        for rank in ranks {
            self.drained.remove(&rank);
        }
    }

    /// Returns the body of `resource.status`.
    pub(super) fn status(&self) -> Value {
        let r = self.r.as_ref().map(|r| {
            let mut r = r.clone();
            r.scheduling = None;
            r.to_value()
        });
        let (online, all) = (self.online(), self.ranks());
        json!({
            "R": r,
            "drain": self.drain_object(),
            "online": online.to_string(),
            "offline": all.difference(&online).to_string(),
            "exclude": self.exclude.to_string(),
            "torpid": self.torpid.to_string(),
        })
    }

    /// Returns drained ranks, those with the same time and reason together.
    fn drain_object(&self) -> Map<String, Value> {
        let mut groups: Vec<(IdSet, &Drain)> = Vec::new();
        for (rank, drain) in &self.drained {
            match groups.iter_mut().find(|(_, known)| *known == drain) {
                Some((ranks, _)) => {
                    ranks.insert(*rank);
                }
                None => groups.push((IdSet::from(*rank), drain)),
            }
        }
        groups
            .into_iter()
            .map(|(ranks, drain)| {
                (
                    ranks.to_string(),
                    json!({ "timestamp": drain.timestamp, "reason": drain.reason }),
                )
            })
            .collect()
    }

    /// Returns R of all and of the down resources for `resource.sched-status`, without excluded ranks.
    pub(super) fn sched_status(&self) -> (ResourceSet, ResourceSet) {
        let mut all = self.schedulable().unwrap_or_default();
        all.scheduling = None;
        let down = all.copy_ranks(&all.ranks().difference(&self.up()));
        (all, down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_formats::resource_set::Children;
    use proptest::prelude::*;

    fn state() -> State {
        let hosts: Hostlist = "n[0-3]".parse().unwrap();
        let children = Children {
            core: IdSet::first_n(2),
            gpu: IdSet::default(),
        };
        let r = ResourceSet::uniform(IdSet::first_n(4), hosts.clone(), children).unwrap();
        State {
            size: 4,
            r: Some(r),
            online: IdSet::first_n(4),
            hosts,
            ..State::default()
        }
    }

    fn ids(text: &str) -> IdSet {
        text.parse().unwrap()
    }

    #[test]
    fn drain_rules() {
        let mut state = state();
        assert_eq!(state.up(), ids("0-3"));
        state.apply_drain(&ids("1,3"), "bad", 5.0, 0);
        assert_eq!(state.up(), ids("0,2"));
        let err = state.check_drain(&ids("0-1"), DrainMode::Fail, "x").unwrap_err();
        assert_eq!(
            (err.errnum, err.text.as_str()),
            (errno::EEXIST, "rank 1 already drained")
        );
        assert_eq!(
            state.check_drain(&ids("0-1"), DrainMode::Update, "x"),
            Ok(ids("0"))
        );
        state.apply_drain(&ids("1"), "new", 9.0, 1);
        assert_eq!(
            state.drained[&1],
            Drain {
                timestamp: 5.0,
                reason: "new".into()
            }
        );
        state.apply_drain(&ids("1"), "newer", 9.0, 2);
        assert_eq!(state.drained[&1].timestamp, 9.0);
        assert_eq!(
            state.check_undrain(&ids("0-1"), false).unwrap_err().text,
            "rank 0 not drained"
        );
        assert_eq!(state.check_undrain(&ids("0-1"), true), Ok(ids("1")));
        state.apply_undrain(&ids("1,3"));
        assert_eq!(state.up(), ids("0-3"));
    }

    #[test]
    fn targets() {
        let state = state();
        assert_eq!(state.resolve("0-1"), Ok(ids("0-1")));
        assert_eq!(state.resolve("n[2-3]"), Ok(ids("2-3")));
        assert_eq!(state.resolve("9").unwrap_err().text, "idset is out of range");
        assert_eq!(
            state.resolve("n1,x9").unwrap_err().text,
            "invalid targets: invalid hosts: x9"
        );
    }

    #[test]
    fn status_groups_equal_drains() {
        let mut state = state();
        state.apply_drain(&ids("1-2"), "bad", 5.0, 0);
        state.exclude = ids("0");
        let status = state.status();
        assert_eq!(
            status["drain"],
            json!({"1-2": {"timestamp": 5.0, "reason": "bad"}})
        );
        let (all, down) = state.sched_status();
        assert_eq!((all.ranks(), down.ranks()), (ids("1-3"), ids("1-2")));
    }

    proptest! {
        /// Up ranks are online, in R, and neither drained nor excluded, whatever happened.
        #[test]
        fn up_is_never_drained(steps in prop::collection::vec((0u8..5, 0u32..4), 0..40)) {
            let mut state = state();
            for (what, rank) in steps {
                let ranks = IdSet::from(rank);
                match what {
                    0 => state.apply_drain(&ranks, "r", 1.0, 0),
                    1 => state.apply_undrain(&ranks),
                    2 => state.online = state.online.difference(&ranks),
                    3 => state.online = state.online.union(&ranks),
                    _ => state.exclude = ranks,
                }
                let up = state.up();
                prop_assert!(up.is_subset(&state.online));
                prop_assert!(!up.intersects(&state.drained()));
                prop_assert!(!up.intersects(&state.exclude));
            }
        }
    }
}
