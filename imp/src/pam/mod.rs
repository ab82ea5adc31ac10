//! How is a user's session opened and closed? RFC 15 and flux-security: service `flux`, no authentication, no account check.

pub mod sys;

use std::ffi::CString;

use crate::limits::Limits;

/// Name of the stack: `/etc/pam.d/flux`.
const SERVICE: &std::ffi::CStr = c"flux";

/// An open session. It must be closed with [`close`](Session::close); dropping it closes it too.
#[derive(Debug)]
pub struct Session {
    handle: sys::Handle,
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
        let own = Limits::current().map_err(|err| format!("pam: cannot read limits: {err}"))?;
        let failed = |failure: sys::Failure| format!("pam: {}: {}", failure.call, failure.why);
        let mut session = Session {
            handle: sys::Handle::start(SERVICE, &user, &caller).map_err(failed)?,
            open: false,
            limits: own,
        };
        session.handle.establish().map_err(failed)?;
        if let Err(failure) = session.handle.open() {
            // The session is not there, but the credentials are.
            drop(session.handle.delete());
            return Err(failed(failure));
        }
        session.open = true;
        match session.handle.user() {
            Ok(now) if now == user => {}
            Ok(_) => return Err("pam: a module changed the user".to_owned()),
            Err(failure) => return Err(failed(failure)),
        }
        session.limits = Limits::current().map_err(|err| format!("pam: cannot read limits: {err}"))?;
        own.restore();
        Ok(session)
    }

    /// Closes the session and takes the credentials away; returns what failed.
    pub fn close(&mut self) -> Vec<String> {
        if !std::mem::take(&mut self.open) {
            return Vec::new();
        }
        let steps = [self.handle.close(), self.handle.delete()];
        let failures = steps.into_iter().filter_map(Result::err);
        failures
            .map(|failure| format!("pam: {}: {}", failure.call, failure.why))
            .collect()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.close();
    }
}
