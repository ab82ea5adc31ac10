//! How do the brokers of a subtree report what they found? Merged on the way up the tree.
//!
//! ```text
//! rank 3 ─┐  {count 1}
//! rank 4 ─┴─> rank 1 ──{count 3}──> rank 0   R is known when all brokers have reported
//! ```

use super::Resource;
use super::config::Strictness;
use super::discover;
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::hostlist::Hostlist;
use flux_formats::idset::IdSet;
use flux_formats::msg::{Message, NODEID_UPSTREAM};
use flux_formats::resource_set::{Children, Group, ResourceSet};
use flux_formats::rpc::resource::TopoReduceRequest;

/// What has been reported so far.
#[derive(Debug, Default)]
pub(super) struct Reduce {
    groups: Vec<Group>,
    ranks: IdSet,
    planned: bool,
}

impl Resource {
    /// Looks at this host and adds it to the report.
    ///
    /// # Errors
    /// EIO when the kernel does not say which CPUs there are.
    pub(super) fn discover_local(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        let found = discover::local(!self.config.norestrict).map_err(|err| {
            RpcError::new(
                errno::EIO,
                format!("cannot find out which CPUs this host has: {err}"),
            )
        })?;
        let group = Group {
            ranks: IdSet::from(cx.rank()),
            children: found,
        };
        self.add_report(cx, vec![group]);
        Ok(())
    }

    /// Takes the report of a child's subtree.
    pub(super) fn on_topo_reduce(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let Some(body) = cx.decode::<TopoReduceRequest>(req) else {
            return;
        };
        match ResourceSet::from_value(&body.resource) {
            Ok(found) => self.add_report(cx, found.groups().to_vec()),
            Err(err) => cx.log_as_me(3, &format!("resource.topo-reduce: {err}")),
        }
    }

    fn add_report(&mut self, cx: &mut Cx<'_>, groups: Vec<Group>) {
        for group in groups {
            let ranks = group.ranks.difference(&self.reduce.ranks);
            if ranks.is_empty() {
                continue;
            }
            self.reduce.ranks = self.reduce.ranks.union(&ranks);
            if cx.rank() == 0 {
                self.verify(cx, &ranks, &group.children);
            }
            self.reduce.groups.push(Group {
                ranks,
                children: group.children,
            });
        }
        if !self.reduce.planned {
            self.reduce.planned = true;
            cx.later(|me: &mut Resource, cx| me.forward_report(cx));
        }
    }

    fn forward_report(&mut self, cx: &mut Cx<'_>) {
        self.reduce.planned = false;
        if cx.rank() == 0 {
            self.check_discovered(cx);
            return;
        }
        let groups = std::mem::take(&mut self.reduce.groups);
        let count = groups.iter().map(|group| group.ranks.count()).sum::<u64>();
        let Ok(found) = ResourceSet::from_groups(groups, Hostlist::new()) else {
            return;
        };
        let body = TopoReduceRequest {
            count: u32::try_from(count).unwrap_or(u32::MAX),
            resource: found.to_value(),
        };
        let req = cx.request("resource.topo-reduce", NODEID_UPSTREAM, &body);
        cx.notify_upstream(req);
    }

    /// Returns R when every broker has reported.
    pub(super) fn discovered(&self) -> Option<ResourceSet> {
        if self.reduce.ranks.count() < u64::from(self.state.size) {
            return None;
        }
        let hosts = self.state.hosts.select(&self.reduce.ranks);
        ResourceSet::from_groups(self.reduce.groups.clone(), hosts).ok()
    }

    /// Compares what a host has with what the configuration promised, and drains it when it has less.
    fn verify(&mut self, cx: &mut Cx<'_>, ranks: &IdSet, found: &Children) {
        let Some(expected) = self.config.r.clone() else {
            return;
        };
        for rank in ranks {
            let Some(want) = expected.children(rank) else {
                continue;
            };
            let host = expected.host(rank).unwrap_or_default();
            if let Some(text) = difference(&self.config, want, found) {
                let text = format!("rank {rank} ({host}) {text}");
                cx.log_as_me(3, &text);
                self.pending_drains.push((rank, text));
            }
        }
        self.apply_pending_drains(cx);
    }
}

/// Returns what is wrong, or `None`.
fn difference(config: &super::config::Config, want: &Children, found: &Children) -> Option<String> {
    let mut missing = Vec::new();
    let mut extra = Vec::new();
    let mut compare = |name: &str, want: &IdSet, found: &IdSet, strictness: Strictness| {
        let (less, more) = (want.difference(found), found.difference(want));
        if !less.is_empty() && matches!(strictness, Strictness::Strict | Strictness::AllowExtra) {
            missing.push(format!("{name}{}", less.bracketed()));
        }
        if !more.is_empty() && matches!(strictness, Strictness::Strict | Strictness::AllowMissing) {
            extra.push(format!("{name}{}", more.bracketed()));
        }
    };
    compare("core", &want.core, &found.core, config.verify_core);
    compare("gpu", &want.gpu, &found.gpu, config.verify_gpu);
    match (missing.is_empty(), extra.is_empty()) {
        (true, true) => None,
        (false, true) => Some(format!("missing resources: {}", missing.join(","))),
        (true, false) => Some(format!("extra resources: {}", extra.join(","))),
        (false, false) => Some(format!(
            "missing resources: {} extra resources: {}",
            missing.join(","),
            extra.join(",")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Config;
    use super::*;

    #[test]
    fn verification_follows_the_configuration() {
        let ids = |n| Children {
            core: IdSet::first_n(n),
            gpu: IdSet::default(),
        };
        let mut config = Config::default();
        assert_eq!(difference(&config, &ids(2), &ids(4)), None);
        assert_eq!(
            difference(&config, &ids(4), &ids(2)).as_deref(),
            Some("missing resources: core[2-3]")
        );
        config.verify_core = Strictness::Strict;
        assert_eq!(
            difference(&config, &ids(2), &ids(4)).as_deref(),
            Some("extra resources: core[2-3]")
        );
        config.verify_core = Strictness::Ignore;
        assert_eq!(difference(&config, &ids(4), &ids(2)), None);
    }
}
