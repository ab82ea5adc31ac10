//! How are resource limits read and set?
#![expect(unsafe_code, reason = "getrlimit and setrlimit")]

use std::io;

use super::check;

pub(crate) fn get(resource: u32) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is writable.
    check(unsafe { libc::getrlimit(resource, &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

pub(crate) fn set(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: `limit` is readable.
    check(unsafe { libc::setrlimit(resource, &raw const limit) }).map(drop)
}
