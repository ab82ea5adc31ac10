//! How is a user's session opened and closed? RFC 15 and flux-security: service `flux`, no authentication, no account check.

pub mod sys;

use std::ffi::CString;

use self::sys::{CLOSE, DELETE, ESTABLISH, Handle, OPEN};
use crate::limits::Limits;
use crate::refusal::demand;

/// Name of the stack: `/etc/pam.d/flux`.
const SERVICE: &std::ffi::CStr = c"flux";

/// An open session. It must be closed with [`close`](Session::close); dropping it closes it too.
#[derive(Debug)]
pub struct Session {
    handle: Handle,
    open: bool,
    /// The limits that modules have set for the user.
    pub limits: Limits,
}

impl Session {
    /// Opens a session for `user`, asked for by `caller`. The limits that modules set are kept for the user, and this
    /// process goes back to its own as far as it may.
    ///
    /// # Errors
    /// What to log: the call that failed and why. Whatever had been done is undone.
    pub fn open(user: &str, caller: &str) -> Result<Self, String> {
        let text = |name: &str| CString::new(name).map_err(|_| "pam: a name with NUL".to_owned());
        let (user, caller) = (text(user)?, text(caller)?);
        let limits = || Limits::current().map_err(|err| format!("pam: cannot read limits: {err}"));
        let own = limits()?;
        let mut session = Session {
            handle: Handle::start(SERVICE, &user, &caller)?,
            open: false,
            limits: own.clone(),
        };
        session.handle.call(ESTABLISH)?;
        if let Err(failure) = session.handle.call(OPEN) {
            // The session is not there, but the credentials are.
            drop(session.handle.call(DELETE));
            return Err(failure);
        }
        session.open = true;
        let same = session.handle.is_about(&user)?;
        demand(same, "pam: a module changed the user")?;
        session.limits = limits()?;
        own.restore();
        Ok(session)
    }

    /// Closes the session and takes the credentials away; returns what failed.
    pub fn close(&mut self) -> Vec<String> {
        if !std::mem::take(&mut self.open) {
            return Vec::new();
        }
        let steps = [self.handle.call(CLOSE), self.handle.call(DELETE)];
        steps.into_iter().filter_map(Result::err).collect()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.close();
    }
}
