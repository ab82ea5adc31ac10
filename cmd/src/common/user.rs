//! Who is a user id, and which id has a user?

use std::collections::HashMap;

use nix::unistd::{Uid, User};

use super::error::{CmdError, fail};

/// The user id that stands for every user in requests.
pub(crate) const USERID_ALL: u32 = 0xffff_ffff;

/// Returns the real user id of this process.
pub(crate) fn own() -> u32 {
    Uid::current().as_raw()
}

/// Looks names of users up, each once.
#[derive(Debug, Default)]
pub(crate) struct Names {
    known: HashMap<u32, String>,
}

impl Names {
    /// Returns the name of a user, or the number as text when there is none.
    pub(crate) fn get(&mut self, uid: u32) -> &str {
        self.known.entry(uid).or_insert_with(|| name(uid))
    }
}

/// Returns the name of a user, or the number as text when there is none.
pub(crate) fn name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

/// Reads a user given as name, number or `all`.
///
/// # Errors
/// `unknown user: TEXT`.
pub(crate) fn parse(text: &str) -> Result<u32, CmdError> {
    if text == "all" {
        return Ok(USERID_ALL);
    }
    if let Ok(Some(user)) = User::from_name(text) {
        return Ok(user.uid.as_raw());
    }
    text.parse().or_else(|_| fail(format!("unknown user: {text}")))
}
