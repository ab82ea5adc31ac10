//! Who is this process? Users, groups, capabilities, limits.

use std::io;

use super::check;

/// Real, effective and saved id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Who called.
    pub real: u32,
    /// Whose rights count.
    pub effective: u32,
    /// To whom the process may go back.
    pub saved: u32,
}

/// Returns the user ids.
pub fn user_ids() -> io::Result<Ids> {
    let (mut real, mut effective, mut saved) = (0, 0, 0);
    // SAFETY: three writable numbers.
    check(unsafe { libc::getresuid(&raw mut real, &raw mut effective, &raw mut saved) })?;
    Ok(Ids {
        real,
        effective,
        saved,
    })
}

/// Returns the group ids.
pub fn group_ids() -> io::Result<Ids> {
    let (mut real, mut effective, mut saved) = (0, 0, 0);
    // SAFETY: three writable numbers.
    check(unsafe { libc::getresgid(&raw mut real, &raw mut effective, &raw mut saved) })?;
    Ok(Ids {
        real,
        effective,
        saved,
    })
}

/// Sets real, effective and saved user. Allocates nothing.
pub fn set_user(uid: u32) -> io::Result<()> {
    // SAFETY: takes numbers only; the process has one thread.
    super::check_long(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Sets real, effective and saved group. Allocates nothing.
pub fn set_group(gid: u32) -> io::Result<()> {
    // SAFETY: takes numbers only; the process has one thread.
    super::check_long(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// Sets the supplementary groups. Allocates nothing.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the kernel reads `len` numbers from the slice.
    super::check_long(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Compares the supplementary groups with a list in ascending order, as the kernel keeps them; `room` must be longer than the
/// list. Allocates nothing.
pub fn groups_are(wanted: &[u32], room: &mut [u32]) -> bool {
    // SAFETY: the kernel writes at most `len` numbers.
    let count = unsafe { libc::syscall(libc::SYS_getgroups, room.len(), room.as_mut_ptr()) };
    let Some(have) = usize::try_from(count).ok().and_then(|count| room.get(..count)) else {
        return false;
    };
    have == wanted
}

/// Returns true when neither root nor any capability can be had back. Allocates nothing.
///
/// Whoever is `uid` and `gid` already must not be root.
pub fn no_way_back(uid: u32, gid: u32) -> bool {
    let all = |ids: Ids, id| ids.real == id && ids.effective == id && ids.saved == id;
    if uid == 0 || !user_ids().is_ok_and(|ids| all(ids, uid)) || !group_ids().is_ok_and(|ids| all(ids, gid)) {
        return false;
    }
    // SAFETY: -1 changes nothing; the answer is the current id.
    let fsuid = unsafe { libc::syscall(libc::SYS_setfsuid, u32::MAX) };
    // SAFETY: as above.
    let fsgid = unsafe { libc::syscall(libc::SYS_setfsgid, u32::MAX) };
    if fsuid != i64::from(uid) || fsgid != i64::from(gid) {
        return false;
    }
    // Each of these must fail; success would prove that privilege is still there.
    if set_user(0).is_ok() || set_groups(&[]).is_ok() || (gid != 0 && set_group(0).is_ok()) {
        return false;
    }
    capabilities_are_empty()
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: two words of each set.
const CAP_VERSION: u32 = 0x2008_0522;

fn capabilities_are_empty() -> bool {
    let mut header = CapHeader {
        version: CAP_VERSION,
        pid: 0,
    };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 writes two elements.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    result == 0 && data == [CapData::default(); 2]
}

/// Gives up every capability, the inheritable and ambient ones too. Allocates nothing.
pub fn clear_capabilities() -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) })?;
    let mut header = CapHeader {
        version: CAP_VERSION,
        pid: 0,
    };
    let data = [CapData::default(); 2];
    // SAFETY: version 3 reads two elements.
    super::check_long(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

/// A soft and a hard limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What is enforced.
    pub soft: u64,
    /// Up to where the owner of the process may raise it.
    pub hard: u64,
}

/// No limit.
pub const UNLIMITED: u64 = libc::RLIM_INFINITY;

/// The limits that are carried to a job, in the kernel's numbering.
pub const LIMIT_COUNT: usize = 16;

/// Returns a limit by number (`libc::RLIMIT_*`). Allocates nothing.
pub fn limit(resource: u32) -> io::Result<Limit> {
    let mut raw = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `raw` is writable.
    check(unsafe { libc::getrlimit(resource, &raw mut raw) })?;
    Ok(Limit {
        soft: raw.rlim_cur,
        hard: raw.rlim_max,
    })
}

/// Sets a limit by number. Allocates nothing.
pub fn set_limit(resource: u32, limit: Limit) -> io::Result<()> {
    let raw = libc::rlimit {
        rlim_cur: limit.soft,
        rlim_max: limit.hard,
    };
    // SAFETY: `raw` is readable.
    check(unsafe { libc::setrlimit(resource, &raw const raw) }).map(drop)
}
