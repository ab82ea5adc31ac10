//! Which resource limits are there by flux-core's names, and how are they read and set?

use std::io;

use crate::sys;

/// No limit; in job specifications it is written -1.
pub const INFINITY: u64 = libc::RLIM_INFINITY;

/// A resource that `setrlimit(2)` limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource(u32);

const NAMES: &[(&str, u32)] = &[
    ("cpu", libc::RLIMIT_CPU),
    ("fsize", libc::RLIMIT_FSIZE),
    ("data", libc::RLIMIT_DATA),
    ("stack", libc::RLIMIT_STACK),
    ("core", libc::RLIMIT_CORE),
    ("rss", libc::RLIMIT_RSS),
    ("nproc", libc::RLIMIT_NPROC),
    ("nofile", libc::RLIMIT_NOFILE),
    ("memlock", libc::RLIMIT_MEMLOCK),
    ("as", libc::RLIMIT_AS),
    ("locks", libc::RLIMIT_LOCKS),
    ("sigpending", libc::RLIMIT_SIGPENDING),
    ("msgqueue", libc::RLIMIT_MSGQUEUE),
    ("nice", libc::RLIMIT_NICE),
    ("rtprio", libc::RLIMIT_RTPRIO),
    ("rttime", libc::RLIMIT_RTTIME),
    ("ofile", libc::RLIMIT_NOFILE),
];

impl Resource {
    /// Returns the resource with the name that the `rlimit` shell option uses ("nofile", "core", ...).
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, resource)| Resource(*resource))
    }
}

/// The limits of one resource; the unit is the resource's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What is enforced.
    pub soft: u64,
    /// What an unprivileged process may raise the soft limit to.
    pub hard: u64,
}

/// Returns the limits of the calling process.
///
/// # Errors
/// Those of `getrlimit(2)`.
pub fn get(resource: Resource) -> io::Result<Limit> {
    let (soft, hard) = sys::rlimit::get(resource.0)?;
    Ok(Limit { soft, hard })
}

/// Sets the limits of the calling process; children inherit them.
///
/// # Errors
/// EPERM when the hard limit would rise without privilege, EINVAL when soft exceeds hard.
pub fn set(resource: Resource, limit: Limit) -> io::Result<()> {
    sys::rlimit::set(resource.0, limit.soft, limit.hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_and_a_limit_sets_to_itself() {
        let core = Resource::from_name("core").unwrap();
        let limit = get(core).unwrap();
        set(core, limit).unwrap();
        assert_eq!(get(core).unwrap(), limit);
        assert_eq!(Resource::from_name("nope"), None);
        assert_eq!(Resource::from_name("ofile"), Resource::from_name("nofile"));
    }
}
