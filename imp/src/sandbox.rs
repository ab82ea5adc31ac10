//! As whom does the IMP let untrusted code look at untrusted data? As a user that nobody else is.

use std::io;

use crate::sys::cred::{clear_capabilities, no_way_back, set_group, set_groups, set_user};
use crate::sys::process::{die_with, own_parent, set_undumpable};

/// A user and group id that belongs to nobody: it lies in a range that is never assigned (systemd: "UIDs and GIDs").
const NOBODY_ELSE: u32 = 1_978_335_721;

/// Gives up all privilege, in a child.
///
/// # Errors
/// What a system call returned; the child must end then.
pub fn enter() -> io::Result<()> {
    let parent = own_parent();
    set_groups(&[])?;
    set_group(NOBODY_ELSE)?;
    set_user(NOBODY_ELSE)?;
    clear_capabilities()?;
    set_undumpable()?;
    die_with(parent)?;
    if no_way_back(NOBODY_ELSE, NOBODY_ELSE) {
        Ok(())
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}
