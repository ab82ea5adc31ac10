//! Who is this process? Users, groups, capabilities, limits.

use std::io;

use super::{check, demand};

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

type GetIds = unsafe extern "C" fn(*mut u32, *mut u32, *mut u32) -> libc::c_int;

fn ids(get: GetIds) -> io::Result<Ids> {
    let (mut real, mut effective, mut saved) = (0, 0, 0);
    // SAFETY: `get` is one of the two calls below, which want three writable numbers.
    check(unsafe { get(&raw mut real, &raw mut effective, &raw mut saved) })?;
    Ok(Ids {
        real,
        effective,
        saved,
    })
}

/// Returns the user ids.
pub fn user_ids() -> io::Result<Ids> {
    ids(libc::getresuid)
}

/// Returns the group ids.
pub fn group_ids() -> io::Result<Ids> {
    ids(libc::getresgid)
}

/// Sets real, effective and saved user. Allocates nothing.
fn set_user(uid: u32) -> io::Result<()> {
    // SAFETY: takes numbers only; the process has one thread.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Sets real, effective and saved group. Allocates nothing.
fn set_group(gid: u32) -> io::Result<()> {
    // SAFETY: takes numbers only; the process has one thread.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// Sets the supplementary groups. Allocates nothing.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the kernel reads `len` numbers from the slice.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Fails unless the supplementary groups are those of a list in ascending order, as the kernel keeps them; `room` must be longer
/// than the list. Allocates nothing.
pub fn groups_are(wanted: &[u32], room: &mut [u32]) -> io::Result<()> {
    // SAFETY: the kernel writes at most `len` numbers.
    let count = check(unsafe { libc::syscall(libc::SYS_getgroups, room.len(), room.as_mut_ptr()) })?;
    let have = usize::try_from(count).ok().and_then(|count| room.get(..count));
    demand(have == Some(wanted), libc::EPERM)
}

/// Becomes root in every respect; the caller is root in effect. Allocates nothing.
pub fn become_root() -> io::Result<()> {
    set_groups(&[])?;
    set_group(0)?;
    set_user(0)
}

/// Becomes a user for good: gives up root, every capability, and the way back. Allocates nothing.
pub fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    set_group(gid)?;
    set_user(uid)?;
    clear_capabilities()?;
    prove_no_way_back(uid, gid)
}

/// Fails unless neither root nor any capability can be had back. Allocates nothing.
///
/// Whoever is `uid` and `gid` already must not be root.
fn prove_no_way_back(uid: u32, gid: u32) -> io::Result<()> {
    let all = |ids: Ids, id| ids.real == id && ids.effective == id && ids.saved == id;
    // SAFETY: -1 changes nothing; the answer is the current id.
    let fsuid = unsafe { libc::syscall(libc::SYS_setfsuid, u32::MAX) };
    // SAFETY: as above.
    let fsgid = unsafe { libc::syscall(libc::SYS_setfsgid, u32::MAX) };
    let gone = uid != 0
        && all(user_ids()?, uid)
        && all(group_ids()?, gid)
        && fsuid == i64::from(uid)
        && fsgid == i64::from(gid)
        // Each of these must fail; success would prove that privilege is still there.
        && set_user(0).is_err()
        && set_groups(&[]).is_err()
        && (gid == 0 || set_group(0).is_err())
        && capabilities_are_empty();
    demand(gone, libc::EPERM)
}

/// `struct __user_cap_header_struct`: `_LINUX_CAPABILITY_VERSION_3`, and this process.
const CAP_HEADER: [u32; 2] = [0x2008_0522, 0];
/// Two words each of effective, permitted and inheritable capabilities: none.
const NO_CAPABILITIES: [u32; 6] = [0; 6];

fn capabilities_are_empty() -> bool {
    let (mut header, mut have) = (CAP_HEADER, [u32::MAX; 6]);
    // SAFETY: version 3 writes six words.
    let result = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), have.as_mut_ptr()) };
    result == 0 && have == NO_CAPABILITIES
}

/// Gives up every capability, the inheritable and ambient ones too. Allocates nothing.
fn clear_capabilities() -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) })?;
    let (mut header, none) = (CAP_HEADER, NO_CAPABILITIES);
    // SAFETY: version 3 reads six words.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), none.as_ptr()) }).map(drop)
}

/// A soft and a hard limit.
pub use libc::rlimit as Limit;

/// No limit.
pub const UNLIMITED: u64 = libc::RLIM_INFINITY;

/// The limits that are carried to a job, in the kernel's numbering.
pub const LIMIT_COUNT: u32 = 16;

/// Returns a limit by number (`libc::RLIMIT_*`). Allocates nothing.
pub fn limit(resource: u32) -> io::Result<Limit> {
    // SAFETY: all bytes zero is a valid `struct rlimit`.
    let mut limit: Limit = unsafe { std::mem::zeroed() };
    // SAFETY: `limit` is writable.
    check(unsafe { libc::getrlimit(resource, &raw mut limit) })?;
    Ok(limit)
}

/// Sets a limit by number. Allocates nothing.
pub fn set_limit(resource: u32, limit: Limit) -> io::Result<()> {
    // SAFETY: `limit` is readable.
    check(unsafe { libc::setrlimit(resource, &raw const limit) }).map(drop)
}
