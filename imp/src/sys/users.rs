//! Names of users and their groups, from the name service. Only the dropped helper calls this.

use std::ffi::{CStr, CString};
use std::io;

/// Most groups that Linux gives a process.
const GROUPS_MAX: usize = 65536;
/// Most bytes that an entry may take.
const ENTRY_MAX: usize = 1 << 20;

/// A user's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Login name.
    pub name: String,
    /// Primary group.
    pub gid: u32,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// Looks up a user by number; `None` when there is no such user or its texts are not UTF-8.
pub fn by_uid(uid: u32) -> io::Result<Option<Entry>> {
    let mut room = vec![0; 4096];
    loop {
        // SAFETY: all bytes zero is a valid `passwd` of null pointers.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        // SAFETY: `room` is writable for its length; `entry` and `found` are writable.
        let error =
            unsafe { libc::getpwuid_r(uid, &raw mut entry, room.as_mut_ptr(), room.len(), &raw mut found) };
        match error {
            0 if found.is_null() => return Ok(None),
            0 => break Ok(copy(&entry)),
            libc::ERANGE if room.len() < ENTRY_MAX => room.resize(room.len() * 4, 0),
            libc::ENOENT | libc::ESRCH => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

fn copy(entry: &libc::passwd) -> Option<Entry> {
    let text = |pointer: *const libc::c_char| {
        if pointer.is_null() {
            return Some(String::new());
        }
        // SAFETY: a found entry's pointers lead to texts with NUL in the caller's buffer, which still lives.
        let text = unsafe { CStr::from_ptr(pointer) };
        text.to_str().ok().map(str::to_owned)
    };
    Some(Entry {
        name: text(entry.pw_name)?,
        gid: entry.pw_gid,
        home: text(entry.pw_dir)?,
        shell: text(entry.pw_shell)?,
    })
}

/// Returns all groups of a user, the primary one among them.
pub fn groups(name: &str, gid: u32) -> io::Result<Vec<u32>> {
    let name = CString::new(name)?;
    let mut list = vec![0; 64];
    loop {
        let mut count = i32::try_from(list.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: `list` has `count` elements.
        let result = unsafe { libc::getgrouplist(name.as_ptr(), gid, list.as_mut_ptr(), &raw mut count) };
        let count = usize::try_from(count).map_err(|_| io::ErrorKind::InvalidData)?;
        if result != -1 {
            list.truncate(count);
            list.sort_unstable();
            list.dedup();
            return Ok(list);
        }
        if list.len() >= GROUPS_MAX {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        list.resize((list.len() * 4).max(count).min(GROUPS_MAX), 0);
    }
}
