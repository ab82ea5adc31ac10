//! Which of several possible nodes, cores and GPUs does a job get? (The match policies of Fluxion, and flux-core's own order.)

use std::fmt;
use std::str::FromStr;

/// A match policy by its name in `sched-fluxion-resource.match-policy`, or [`Placement::Worstfit`], which is what `sched-simple` does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Placement {
    /// Nodes with most free cores first, lowest cores of each.
    #[default]
    Worstfit,
    /// The first nodes that fit, in order of rank.
    First,
    /// As `first`, whole nodes.
    Firstnodex,
    /// Lowest nodes, lowest cores.
    Low,
    /// Highest nodes, highest cores.
    High,
    /// Lowest nodes, lowest cores.
    Lonode,
    /// Highest nodes, highest cores.
    Hinode,
    /// As `lonode`, whole nodes.
    Lonodex,
    /// As `hinode`, whole nodes.
    Hinodex,
}

/// All names, as configurations have them.
const NAMES: &[(&str, Placement)] = &[
    ("worstfit", Placement::Worstfit),
    ("first", Placement::First),
    ("firstnodex", Placement::Firstnodex),
    ("low", Placement::Low),
    ("high", Placement::High),
    ("lonode", Placement::Lonode),
    ("hinode", Placement::Hinode),
    ("lonodex", Placement::Lonodex),
    ("hinodex", Placement::Hinodex),
];

/// In which order nodes are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    MostFree,
    Ascending,
    Descending,
}

impl Placement {
    pub(super) fn order(self) -> Order {
        match self {
            Placement::Worstfit => Order::MostFree,
            Placement::High | Placement::Hinode | Placement::Hinodex => Order::Descending,
            _ => Order::Ascending,
        }
    }

    /// Returns true when nodes are given whole.
    pub fn is_exclusive(self) -> bool {
        matches!(
            self,
            Placement::Firstnodex | Placement::Lonodex | Placement::Hinodex
        )
    }
}

/// The name is none of the match policies.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown match policy '{0}'; known are {list}", list = names())]
pub struct UnknownPlacement(String);

impl FromStr for Placement {
    type Err = UnknownPlacement;

    fn from_str(name: &str) -> Result<Placement, UnknownPlacement> {
        let known = NAMES.iter().find(|(known, _)| *known == name);
        known
            .map(|(_, placement)| *placement)
            .ok_or_else(|| UnknownPlacement(name.to_owned()))
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = NAMES.iter().find(|(_, placement)| placement == self);
        f.write_str(known.map_or("", |(name, _)| name))
    }
}

fn names() -> String {
    NAMES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}
