//! On which CPUs may this process and its future children run?

use std::io;

use crate::sys;

/// Returns the CPUs that the calling thread may run on, ascending.
///
/// # Errors
/// EINVAL when the kernel knows more than 8192 CPUs.
pub fn allowed_cpus() -> io::Result<Vec<u32>> {
    sys::affinity::get()
}

/// Restricts the calling thread and its future children to `cpus`.
///
/// # Errors
/// EINVAL when none of them is allowed by the cpuset.
pub fn set_allowed_cpus(cpus: &[u32]) -> io::Result<()> {
    sys::affinity::set(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_sets_to_itself() {
        let cpus = allowed_cpus().unwrap();
        assert!(!cpus.is_empty());
        set_allowed_cpus(&cpus[..1]).unwrap();
        assert_eq!(allowed_cpus().unwrap(), cpus[..1]);
        set_allowed_cpus(&cpus).unwrap();
    }
}
