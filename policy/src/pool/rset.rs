//! How is a choice of resources written as R (RFC 20) and as the one-line summary?
//!
//! Key order, grouping and spelling are those of flux-core's scheduler.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

use flux_formats::hostlist::Hostlist;
use flux_formats::idset::IdSet;
use serde_json::{Number, Value};
use smallvec::{SmallVec, smallvec};

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
    groups: &[Group],
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
            group.ranks, group.cores
        );
        if !group.gpus.is_empty() {
            let _ = write!(out, r#","gpu":"{}""#, group.gpus);
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
    out.push_str(r#","nodelist":["#);
    if !parts.is_empty() {
        push_quoted(&mut out, &nodelist(parts));
    }
    out.push(']');
    properties(&mut out, inventory, parts, local_properties);
    out.push_str("}}");
    out
}

/// Returns the summary, for example `rank[0-1]/core[0-3],gpu0 rank2/core0`.
fn write_summary(groups: &[Group]) -> String {
    let mut out = String::with_capacity(64);
    for (index, group) in groups.iter().enumerate() {
        let space = if index == 0 { "" } else { " " };
        let _ = write!(
            out,
            "{space}rank{}/core{}",
            group.ranks.bracketed(),
            group.cores.bracketed()
        );
        if !group.gpus.is_empty() {
            let _ = write!(out, ",gpu{}", group.gpus.bracketed());
        }
    }
    out
}

/// Ranks that have the same cores and GPUs.
struct Group {
    ranks: IdSet,
    cores: IdSet,
    gpus: IdSet,
}

impl Group {
    fn of(part: &Part<'_>) -> Group {
        let ids = |bits: &Bits| bits.iter().filter_map(|id| u32::try_from(id).ok()).collect();
        Group {
            ranks: IdSet::from(part.node.rank),
            cores: ids(part.cores),
            gpus: ids(part.gpus),
        }
    }
}

/// Groups ranks by equal children, ordered by their lowest rank.
fn group(parts: &[Part<'_>]) -> SmallVec<[Group; 1]> {
    if let [only] = parts {
        return smallvec![Group::of(only)];
    }
    let mut groups: SmallVec<[Group; 1]> = SmallVec::new();
    let mut index: HashMap<(&[u64], &[u64]), usize> = HashMap::new();
    let mut last = None;
    for part in parts {
        let key = (part.cores.key(), part.gpus.key());
        // neighbours are mostly alike
        let at = match last {
            Some((same, at)) if same == key => at,
            _ => *index.entry(key).or_insert(groups.len()),
        };
        match groups.get_mut(at) {
            Some(group) => group.ranks.extend([part.node.rank]),
            None => groups.push(Group::of(part)),
        }
        last = Some((key, at));
    }
    groups
}

/// Returns the hosts of the parts as one hostlist.
fn nodelist<'a>(parts: &[Part<'a>]) -> Cow<'a, str> {
    if let [only] = parts {
        return Cow::Borrowed(&only.node.host);
    }
    let mut list = Hostlist::default();
    let pushed = parts.iter().try_for_each(|part| list.push(&part.node.host));
    match pushed {
        Ok(()) => list.to_string().into(),
        // a host name that no hostlist can hold is written as it is
        Err(_) => parts
            .iter()
            .map(|part| &*part.node.host)
            .collect::<Vec<_>>()
            .join(",")
            .into(),
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
        if index > 0 {
            out.push(',');
        }
        push_quoted(out, name);
        let _ = write!(out, r#":"{ranks}""#);
    }
    out.push('}');
}

/// Returns a finite number as JSON, with the decimal point that the original writes; anything else as 0.0.
fn number(value: f64) -> Number {
    let finite = if value.is_finite() { value } else { 0.0 };
    Number::from_f64(finite).unwrap_or_else(|| Number::from(0))
}

/// Appends a JSON string; nearly all are made of characters that stand for themselves.
pub(crate) fn push_quoted(out: &mut String, text: &str) {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        out.extend(["\"", text, "\""]);
    } else {
        let _ = write!(out, "{}", Value::from(text));
    }
}
