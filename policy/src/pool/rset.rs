//! How is a choice of resources written as R (RFC 20) and as the one-line summary?
//!
//! Key order, grouping and spelling are those of flux-core's scheduler.

use std::collections::HashMap;
use std::fmt::Write as _;

use flux_formats::hostlist::Hostlist;
use flux_formats::idset::IdSet;

use super::bits::Bits;
use super::inventory::{Inventory, Node};

/// Some cores and GPUs of one node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    pub(super) node: &'a Node,
    pub(super) position: usize,
    pub(super) cores: &'a Bits,
    pub(super) gpus: &'a Bits,
}

/// What stands in R beside the resources.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    pub(super) start: f64,
    pub(super) expiration: f64,
    /// Left out of R when 0.
    pub(super) nslots: u32,
}

/// Returns R as compact JSON. `parts` ascend by rank. Properties with a leading `+` stay in the instance.
pub(super) fn to_r(
    inventory: &Inventory,
    parts: &[Part<'_>],
    times: Times,
    local_properties: bool,
) -> String {
    write_r(inventory, parts, &group(parts), times, local_properties)
}

/// Returns R and its summary; the ranks are grouped once for both.
pub(super) fn to_r_and_summary(inventory: &Inventory, parts: &[Part<'_>], times: Times) -> (String, String) {
    let groups = group(parts);
    let r = write_r(inventory, parts, &groups, times, false);
    (r, write_summary(&groups))
}

fn write_r(
    inventory: &Inventory,
    parts: &[Part<'_>],
    groups: &[Group<'_>],
    times: Times,
    local_properties: bool,
) -> String {
    let mut out = String::with_capacity(256);
    out.push_str(r#"{"version":1,"execution":{"R_lite":["#);
    for (index, group) in groups.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(
            out,
            r#"{comma}{{"rank":"{}","children":{{"core":"{}""#,
            group.ranks,
            ids(group.cores)
        );
        if group.gpus.count() > 0 {
            let _ = write!(out, r#","gpu":"{}""#, ids(group.gpus));
        }
        out.push_str("}}");
    }
    let _ = write!(
        out,
        r#"],"starttime":{},"expiration":{}"#,
        number(times.start),
        number(times.expiration)
    );
    if times.nslots > 0 {
        let _ = write!(out, r#","nslots":{}"#, times.nslots);
    }
    let hosts = if parts.is_empty() {
        String::new()
    } else {
        quoted(&nodelist(parts))
    };
    let _ = write!(out, r#","nodelist":[{hosts}]"#);
    properties(&mut out, inventory, parts, local_properties);
    out.push_str("}}");
    out
}

/// Returns the summary, for example `rank[0-1]/core[0-3],gpu0 rank2/core0`.
fn write_summary(groups: &[Group<'_>]) -> String {
    let mut out = String::with_capacity(64);
    for (index, group) in groups.iter().enumerate() {
        let space = if index == 0 { "" } else { " " };
        let _ = write!(
            out,
            "{space}rank{}/core{}",
            group.ranks.bracketed(),
            ids(group.cores).bracketed()
        );
        if group.gpus.count() > 0 {
            let _ = write!(out, ",gpu{}", ids(group.gpus).bracketed());
        }
    }
    out
}

/// Ranks that have the same cores and GPUs.
struct Group<'a> {
    ranks: IdSet,
    cores: &'a Bits,
    gpus: &'a Bits,
}

/// Groups ranks by equal children, ordered by their lowest rank.
fn group<'a>(parts: &[Part<'a>]) -> Vec<Group<'a>> {
    if let [only] = parts {
        return vec![Group {
            ranks: IdSet::from(only.node.rank),
            cores: only.cores,
            gpus: only.gpus,
        }];
    }
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut index: HashMap<(&[u64], &[u64]), usize> = HashMap::new();
    let mut last: Option<usize> = None;
    for part in parts {
        let key = (part.cores.key(), part.gpus.key());
        // neighbours are mostly alike
        let same = |at: &usize| {
            groups
                .get(*at)
                .is_some_and(|g| (g.cores.key(), g.gpus.key()) == key)
        };
        let at = last
            .filter(same)
            .unwrap_or_else(|| *index.entry(key).or_insert(groups.len()));
        if at == groups.len() {
            groups.push(Group {
                ranks: IdSet::new(),
                cores: part.cores,
                gpus: part.gpus,
            });
        }
        if let Some(group) = groups.get_mut(at) {
            group.ranks.extend([part.node.rank]);
        }
        last = Some(at);
    }
    groups
}

fn ids(bits: &Bits) -> IdSet {
    bits.iter().filter_map(|id| u32::try_from(id).ok()).collect()
}

/// Returns the hosts of the parts as one hostlist.
fn nodelist(parts: &[Part<'_>]) -> String {
    if let [only] = parts {
        return only.node.host.to_string();
    }
    let mut list = Hostlist::default();
    let pushed = parts.iter().try_for_each(|part| list.push(&part.node.host));
    match pushed {
        Ok(()) => list.to_string(),
        // a host name that no hostlist can hold is written as it is
        Err(_) => parts
            .iter()
            .map(|part| &*part.node.host)
            .collect::<Vec<_>>()
            .join(","),
    }
}

fn properties(out: &mut String, inventory: &Inventory, parts: &[Part<'_>], local: bool) {
    if inventory.properties().is_empty() {
        return;
    }
    let chosen: Bits = parts.iter().map(|part| part.position).collect();
    let mut names: Vec<_> = inventory
        .properties()
        .iter()
        .filter(|(name, with)| (local || !name.starts_with('+')) && with.intersects(&chosen))
        .collect();
    if names.is_empty() {
        return;
    }
    names.sort_by(|a, b| a.0.cmp(&b.0));
    out.push_str(r#","properties":{"#);
    for (index, (name, with)) in names.into_iter().enumerate() {
        let positions = with.iter_common([Some(&chosen), None]);
        let ranks: IdSet = positions
            .filter_map(|at| inventory.node(at))
            .map(|node| node.rank)
            .collect();
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(out, r#"{comma}{}:"{ranks}""#, quoted(name));
    }
    out.push('}');
}

/// Returns a finite number as JSON, with the decimal point that the original writes; anything else as 0.0.
fn number(value: f64) -> String {
    serde_json::to_string(&if value.is_finite() { value } else { 0.0 }).unwrap_or_default()
}

/// Returns a JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
