//! How well is a subtree? Each broker's view of its children, combined into its own status.

/// Status of the subtree at a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubtreeStatus {
    /// Not known yet.
    Unknown = 0,
    /// Online, and so is everyone below.
    Full = 1,
    /// Online, some below are offline or partial.
    Partial = 2,
    /// Online, some below are lost or degraded.
    Degraded = 3,
    /// Gone without a goodbye.
    Lost = 4,
    /// Not there yet, or left in good order.
    Offline = 5,
}

impl SubtreeStatus {
    /// Returns the word of `flux overlay status`.
    pub fn name(self) -> &'static str {
        match self {
            SubtreeStatus::Unknown => "unknown",
            SubtreeStatus::Full => "full",
            SubtreeStatus::Partial => "partial",
            SubtreeStatus::Degraded => "degraded",
            SubtreeStatus::Lost => "lost",
            SubtreeStatus::Offline => "offline",
        }
    }

    /// Returns the status of a control message's number.
    pub fn from_wire(value: u32) -> Self {
        match value {
            1 => SubtreeStatus::Full,
            2 => SubtreeStatus::Partial,
            3 => SubtreeStatus::Degraded,
            4 => SubtreeStatus::Lost,
            5 => SubtreeStatus::Offline,
            _ => SubtreeStatus::Unknown,
        }
    }

    /// Returns true when the broker itself is there.
    pub fn is_online(self) -> bool {
        matches!(
            self,
            SubtreeStatus::Full | SubtreeStatus::Partial | SubtreeStatus::Degraded
        )
    }

    /// Combines the children's statuses into the parent's own.
    pub fn combine(children: impl Iterator<Item = SubtreeStatus>) -> Self {
        let mut status = SubtreeStatus::Full;
        for child in children {
            match child {
                SubtreeStatus::Degraded | SubtreeStatus::Lost => return SubtreeStatus::Degraded,
                SubtreeStatus::Partial | SubtreeStatus::Offline | SubtreeStatus::Unknown => {
                    status = SubtreeStatus::Partial;
                }
                SubtreeStatus::Full => {}
            }
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::SubtreeStatus::{self, *};

    #[test]
    fn the_worst_child_decides() {
        let of = |list: &[SubtreeStatus]| SubtreeStatus::combine(list.iter().copied());
        assert_eq!(of(&[]), Full);
        assert_eq!(of(&[Full, Full]), Full);
        assert_eq!(of(&[Full, Offline]), Partial);
        assert_eq!(of(&[Partial, Full]), Partial);
        assert_eq!(of(&[Offline, Lost]), Degraded);
        assert_eq!(of(&[Degraded]), Degraded);
    }

    #[test]
    fn wire_numbers_round_trip() {
        for n in 0..6 {
            assert_eq!(SubtreeStatus::from_wire(n) as u32, n);
        }
        assert_eq!(SubtreeStatus::from_wire(99), Unknown);
    }
}
