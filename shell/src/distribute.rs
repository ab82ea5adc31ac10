//! How many tasks does each node get?

/// The request needs more than R holds.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("cannot distribute {ntasks} tasks with {cores} cores each over the resources of the job")]
pub(crate) struct DistributeError {
    /// Tasks wanted.
    pub(crate) ntasks: u32,
    /// Cores of each wanted.
    pub(crate) cores: u32,
}

/// Distributes `ntasks` over nodes with these numbers of cores: always to the node with most free slots, of equal
/// ones to the first.
///
/// # Errors
/// [`DistributeError`] when there are fewer slots than tasks.
pub(crate) fn distribute(
    cores: &[u32],
    ntasks: u32,
    cores_per_slot: u32,
) -> Result<Vec<u32>, DistributeError> {
    let slots: Vec<u32> = cores
        .iter()
        .map(|cores| cores.checked_div(cores_per_slot).unwrap_or(0))
        .collect();
    let total: u64 = slots.iter().map(|slots| u64::from(*slots)).sum();
    if total < u64::from(ntasks) {
        return Err(DistributeError {
            ntasks,
            cores: cores_per_slot,
        });
    }
    // Taking slots from the fullest first means levelling from the top: find the level that is left.
    let taken = |level: u32| {
        slots
            .iter()
            .map(|slots| u64::from(slots.saturating_sub(level)))
            .sum::<u64>()
    };
    let (mut low, mut high) = (0, slots.iter().copied().max().unwrap_or(0));
    while low < high {
        let middle = low + (high - low) / 2;
        if taken(middle) <= u64::from(ntasks) {
            high = middle
        } else {
            low = middle + 1
        }
    }
    let level = low;
    let mut rest = u64::from(ntasks) - taken(level);
    let counts = slots.iter().map(|slots| {
        let mut count = slots.saturating_sub(level);
        if rest > 0 && *slots >= level && level > 0 {
            rest -= 1;
            count += 1;
        }
        count
    });
    Ok(counts.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn free_nodes_come_first() {
        assert_eq!(distribute(&[2, 2], 4, 1), Ok(vec![2, 2]));
        assert_eq!(distribute(&[2, 2], 3, 1), Ok(vec![2, 1]));
        assert_eq!(distribute(&[2, 2, 2, 2], 4, 1), Ok(vec![1, 1, 1, 1]));
        assert_eq!(distribute(&[4, 2], 3, 1), Ok(vec![3, 0]));
        assert_eq!(distribute(&[4, 2], 4, 1), Ok(vec![3, 1]));
        assert_eq!(distribute(&[5, 4], 4, 2), Ok(vec![2, 2]));
        assert_eq!(
            distribute(&[2], 3, 1),
            Err(DistributeError { ntasks: 3, cores: 1 })
        );
        assert_eq!(
            distribute(&[2], 1, 0),
            Err(DistributeError { ntasks: 1, cores: 0 })
        );
    }

    proptest! {
        #[test]
        fn all_are_placed_and_never_too_many(
            cores in prop::collection::vec(0_u32..9, 1..6),
            per in 1_u32..4,
            ntasks in 0_u32..20,
        ) {
            let slots: u32 = cores.iter().map(|cores| cores / per).sum();
            match distribute(&cores, ntasks, per) {
                Ok(counts) => {
                    prop_assert_eq!(counts.iter().sum::<u32>(), ntasks);
                    for (count, cores) in counts.iter().zip(&cores) {
                        prop_assert!(count * per <= *cores);
                    }
                }
                Err(_) => prop_assert!(slots < ntasks),
            }
        }
    }
}
