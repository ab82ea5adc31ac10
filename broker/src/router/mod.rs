//! Which way does a request go? A pure decision over the tree and the local services (RFC 3, RFC 6).

use crate::overlay::topology::Topology;
use flux_formats::msg::NODEID_ANY;

/// Where a request goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To the service on this rank.
    Local,
    /// Up the tree.
    Parent,
    /// Down the tree through the child of this rank.
    Child(u32),
    /// ENOSYS: nobody here or above serves it.
    NoService,
    /// EHOSTUNREACH: no way to that rank now.
    Unreachable,
}

/// Decides where a request goes.
///
/// `upstream` is the request's flag: on its own rank (`nodeid`) it skips the local service; on any other
/// rank it is treated as [`NODEID_ANY`]. `provided` tells whether the service is registered here.
pub fn decide(
    topology: &Topology,
    nodeid: u32,
    upstream: bool,
    provided: bool,
    has_parent: bool,
) -> Decision {
    let up = || {
        if topology.rank() == 0 {
            Decision::NoService
        } else if has_parent {
            Decision::Parent
        } else {
            Decision::Unreachable
        }
    };
    if upstream && nodeid == topology.rank() {
        // beyond rank 0 there is no broker, whatever the service
        return if topology.rank() == 0 {
            Decision::Unreachable
        } else {
            up()
        };
    }
    if nodeid == NODEID_ANY || upstream {
        return if provided { Decision::Local } else { up() };
    }
    if nodeid == topology.rank() {
        return if provided {
            Decision::Local
        } else {
            Decision::NoService
        };
    }
    if nodeid >= topology.size() {
        return Decision::Unreachable;
    }
    match topology.child_toward(nodeid) {
        Some(child) => Decision::Child(child),
        None if topology.rank() != 0 && has_parent => Decision::Parent,
        None => Decision::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(rank: u32) -> Topology {
        Topology::kary(2, rank, 7).unwrap()
    }

    #[test]
    fn any_is_local_else_up_else_enosys() {
        assert_eq!(decide(&tree(1), NODEID_ANY, false, true, true), Decision::Local);
        assert_eq!(decide(&tree(1), NODEID_ANY, false, false, true), Decision::Parent);
        assert_eq!(
            decide(&tree(1), NODEID_ANY, false, false, false),
            Decision::Unreachable
        );
        assert_eq!(
            decide(&tree(0), NODEID_ANY, false, false, false),
            Decision::NoService
        );
    }

    #[test]
    fn rank_goes_down_up_or_is_local() {
        assert_eq!(decide(&tree(1), 1, false, true, true), Decision::Local);
        assert_eq!(decide(&tree(1), 1, false, false, true), Decision::NoService);
        assert_eq!(decide(&tree(0), 5, false, false, false), Decision::Child(2));
        assert_eq!(decide(&tree(1), 4, false, false, true), Decision::Child(4));
        assert_eq!(decide(&tree(1), 6, false, false, true), Decision::Parent);
        assert_eq!(decide(&tree(0), 7, false, true, false), Decision::Unreachable);
    }

    #[test]
    fn upstream_skips_the_sender_and_is_any_above() {
        assert_eq!(decide(&tree(1), 1, true, true, true), Decision::Parent);
        assert_eq!(decide(&tree(0), 1, true, true, true), Decision::Local);
        assert_eq!(decide(&tree(0), 0, true, true, true), Decision::Unreachable);
    }
}
