//! The border to libpam: what it calls, and the calls that it is asked for.

#![expect(unsafe_code, reason = "an interface in C; every block says why it is sound")]

use std::ffi::{CStr, c_char, c_int};

use crate::{Answer, decide, guard};

/// `PAM_IGNORE`: this module says nothing.
const IGNORE: c_int = 25;

/// `pam_handle_t`
#[repr(C)]
#[derive(Debug)]
pub struct Handle([u8; 0]);

#[link(name = "libpam.so.0", kind = "dylib", modifiers = "+verbatim")]
unsafe extern "C" {
    fn pam_get_user(handle: *mut Handle, user: *mut *const c_char, prompt: *const c_char) -> c_int;
}

/// Called by libpam for `account` lines.
///
/// # Safety
/// `handle` and `words` are libpam's, as its interface says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_acct_mgmt(
    handle: *mut Handle,
    _flags: c_int,
    count: c_int,
    words: *const *const c_char,
) -> c_int {
    guard(|| {
        let mut list = Vec::new();
        for at in 0..usize::try_from(count).unwrap_or(0) {
            // SAFETY: libpam passes `count` pointers.
            let place = unsafe { words.add(at) };
            // SAFETY: a place inside of libpam's array.
            let word = unsafe { *place };
            if !word.is_null() {
                // SAFETY: a text with NUL that lives during the call.
                list.push(unsafe { CStr::from_ptr(word) }.to_string_lossy().into_owned());
            }
        }
        let mut name = std::ptr::null();
        // SAFETY: the handle is live during the call, `name` is writable.
        let status = unsafe { pam_get_user(handle, &raw mut name, std::ptr::null()) };
        if status != 0 || name.is_null() {
            return Answer::SystemError;
        }
        // SAFETY: not null, so a text with NUL that belongs to the handle.
        decide(uid_of(unsafe { CStr::from_ptr(name) }), &list)
    })
}

/// Called for `auth` lines that name the module by mistake; has no opinion.
#[unsafe(no_mangle)]
pub extern "C" fn pam_sm_setcred(
    _handle: *mut Handle,
    _flags: c_int,
    _count: c_int,
    _words: *const *const c_char,
) -> c_int {
    IGNORE
}

/// Looks up a user.
fn uid_of(name: &CStr) -> Option<u32> {
    let mut room = vec![0; 64 << 10];
    // SAFETY: all bytes zero is a valid `passwd` of null pointers.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: `room` is writable for its length; `entry` and `found` are writable; `name` ends with NUL.
    let error = unsafe {
        libc::getpwnam_r(
            name.as_ptr(),
            &raw mut entry,
            room.as_mut_ptr(),
            room.len(),
            &raw mut found,
        )
    };
    (error == 0 && !found.is_null()).then_some(entry.pw_uid)
}
