//! How is an ordered list of hosts held and written? (RFC 29 hostlist.)
//!
//! A [`Hostlist`] keeps ranges, so `node[0-999999]` costs as much as `node0`. Order and repeated hosts are kept.

mod ops;
mod parse;
mod range;

pub use parse::HostlistError;

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::idset::IdSet;
use range::HostRange;

/// Most hosts that operations which look at each host accept (1 Mi).
pub const EXPAND_MAX: u64 = 1 << 20;

/// An ordered list of host names with repetitions (RFC 29).
///
/// Equality compares how the list is held: `foo1,foo2` equals `foo[1-2]`, but spellings with suffixes may hold the
/// same hosts and differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hostlist {
    ranges: Vec<HostRange>,
}

impl Hostlist {
    /// Returns the empty list.
    pub const fn new() -> Self {
        Hostlist { ranges: Vec::new() }
    }

    /// Parses a list and appends it.
    ///
    /// # Errors
    /// Any [`HostlistError`]; the list is then unchanged.
    pub fn append(&mut self, text: &str) -> Result<(), HostlistError> {
        let more: Hostlist = text.parse()?;
        self.append_list(&more);
        Ok(())
    }

    /// Appends one host name, taken as it is.
    ///
    /// # Errors
    /// [`HostlistError::Character`] for names with brackets, commas, white space or non-ASCII characters.
    pub fn push(&mut self, host: &str) -> Result<(), HostlistError> {
        parse::check_name(host)?;
        self.push_host(host);
        Ok(())
    }

    /// Appends another list.
    pub fn append_list(&mut self, other: &Hostlist) {
        self.ranges.reserve(other.ranges.len());
        for range in &other.ranges {
            self.push_range(range.clone());
        }
    }

    fn push_host(&mut self, host: &str) {
        let range = HostRange::single(host, self.ranges.last());
        self.push_range(range);
    }

    /// Appends a range, joined to the last one where it continues it.
    fn push_range(&mut self, range: HostRange) {
        if let Some(last) = self.ranges.last_mut()
            && last.join(&range)
        {
            return;
        }
        self.ranges.push(range);
    }

    /// Returns true without hosts.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Returns the number of hosts, repetitions included.
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(HostRange::count).sum()
    }

    /// Returns the host at `index`.
    pub fn nth(&self, index: u64) -> Option<String> {
        let mut left = index;
        for range in &self.ranges {
            if left < range.count() {
                return Some(range.host(u32::try_from(left).ok()?));
            }
            left -= range.count();
        }
        None
    }

    /// Returns the index of the first occurrence of `host`.
    pub fn find(&self, host: &str) -> Option<u64> {
        let mut before = 0;
        for range in &self.ranges {
            if let Some(offset) = range.find(host) {
                return Some(before + u64::from(offset));
            }
            before += range.count();
        }
        None
    }

    /// Returns true when `host` is in the list.
    pub fn contains(&self, host: &str) -> bool {
        self.ranges.iter().any(|range| range.find(host).is_some())
    }

    /// Returns the hosts in order.
    pub fn iter(&self) -> impl Iterator<Item = String> + '_ {
        self.ranges.iter().flat_map(HostRange::iter)
    }

    /// Returns the hosts at the indices in `ids`, as nodelists are cut by ranks; indices past the end are left out.
    pub fn select(&self, ids: &IdSet) -> Hostlist {
        let mut out = Hostlist::new();
        let mut wanted = ids.ranges().peekable();
        let mut before = 0u64;
        for range in &self.ranges {
            let after = before + range.count();
            while let Some(&(lo, hi)) = wanted.peek() {
                let (from, to) = (u64::from(lo).max(before), (u64::from(hi) + 1).min(after));
                if from < to {
                    out.ranges.reserve(1);
                    out.push_range(range.slice(from - before, to - 1 - before));
                }
                if u64::from(hi) + 1 > after {
                    break;
                }
                wanted.next();
            }
            before = after;
        }
        out
    }
}

impl fmt::Display for Hostlist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.ranges.as_slice();
        let mut first = true;
        while let Some(head) = rest.first() {
            if !first {
                f.write_str(",")?;
            }
            first = false;
            let size = 1 + rest
                .iter()
                .skip(1)
                .take_while(|range| head.groups_with(range))
                .count();
            let (group, tail) = rest.split_at_checked(size).unwrap_or((rest, &[]));
            range::fmt_group(group, f)?;
            rest = tail;
        }
        Ok(())
    }
}

impl FromStr for Hostlist {
    type Err = HostlistError;
    fn from_str(text: &str) -> Result<Self, HostlistError> {
        parse::parse(text)
    }
}

impl Serialize for Hostlist {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hostlist {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Hostlist;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a hostlist string")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Hostlist, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests;
