//! How is the kernel asked? The only place of this crate with `unsafe` beside `pam::sys`; what it offers is safe.

#![expect(unsafe_code, reason = "system calls; every block says why it is sound")]

pub mod bpf;
pub mod cred;
pub mod fd;
pub mod process;
pub mod seal;
pub mod signal;
pub mod users;

use std::ffi::CString;
use std::io;

/// Turns the -1 of a system call into the error it stands for.
fn check<T: PartialEq + From<i8>>(result: T) -> io::Result<T> {
    if result == T::from(-1) {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Goes on only where `condition` holds; otherwise the error is the one of this number. Allocates nothing.
fn demand(condition: bool, otherwise: i32) -> io::Result<()> {
    let error = || io::Error::from_raw_os_error(otherwise);
    condition.then_some(()).ok_or_else(error)
}

/// Compares a name with a shell's pattern: `*`, `?`, `[…]`. Texts with NUL do not match.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (Ok(pattern), Ok(name)) = (CString::new(pattern), CString::new(name)) else {
        return false;
    };
    // SAFETY: both texts end with NUL.
    unsafe { libc::fnmatch(pattern.as_ptr(), name.as_ptr(), 0) == 0 }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        for (pattern, name, want) in [
            ("FLUX_*", "FLUX_JOB", true),
            ("FLUX_*", "XFLUX_JOB", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[ab]c", "bc", true),
            ("*a*b", "xxayyab", true),
            ("*a*b", "xxayya", false),
            ("a**", "a", true),
            ("a", "a\0", false),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
    }
}
