//! How is a program started through `posix_spawn(3)`?
//!
//! posix_spawn shares the parent's memory until exec (CLONE_VM | CLONE_VFORK), so that its cost does not grow
//! with the size of the caller, and reports a failed exec as the call's own error.
#![expect(unsafe_code, reason = "posix_spawn")]

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use super::signal::sigset;

/// Signals that a parent may ignore and that a program expects with their default action.
const RESET_SIGNALS: [i32; 14] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGPIPE,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGCHLD,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGXCPU,
    libc::SIGXFSZ,
];

/// What the child does between its start and exec, in this order.
#[derive(Debug)]
pub(crate) enum Action<'a> {
    /// Changes the working directory.
    Chdir(&'a CStr),
    /// Opens a file at a descriptor number.
    Open { fd: RawFd, path: &'a CStr, flags: i32 },
    /// Copies a descriptor; the copy is not close-on-exec.
    Dup { from: RawFd, to: RawFd },
}

/// Which session and process group the child is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    Inherit,
    /// Group to join; 0 makes a new one named after the child.
    Group(i32),
    Session,
}

struct FileActions(MaybeUninit<libc::posix_spawn_file_actions_t>);

impl FileActions {
    fn new() -> io::Result<Self> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: initialises the object; it does not keep its address.
        errnum(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        Ok(FileActions(actions))
    }

    fn add(&mut self, action: &Action<'_>) -> io::Result<()> {
        let actions = self.0.as_mut_ptr();
        errnum(match action {
            // SAFETY: initialised in `new`; the path is NUL terminated and copied by the call.
            Action::Chdir(path) => unsafe {
                libc::posix_spawn_file_actions_addchdir_np(actions, path.as_ptr())
            },
            // SAFETY: as above.
            Action::Open { fd, path, flags } => unsafe {
                libc::posix_spawn_file_actions_addopen(actions, *fd, path.as_ptr(), *flags, 0)
            },
            // SAFETY: initialised in `new`; the rest are integers.
            Action::Dup { from, to } => unsafe {
                libc::posix_spawn_file_actions_adddup2(actions, *from, *to)
            },
        })
    }
}

impl Drop for FileActions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new` and destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(self.0.as_mut_ptr()) };
    }
}

struct Attributes(MaybeUninit<libc::posix_spawnattr_t>);

impl Attributes {
    fn new(placement: Placement) -> io::Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: initialises the object; it does not keep its address.
        errnum(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        let mut this = Attributes(attributes);
        let mut flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        let attr = this.0.as_mut_ptr();
        let mask = sigset(&[]);
        // SAFETY: both are initialised.
        errnum(unsafe { libc::posix_spawnattr_setsigmask(attr, &raw const mask) })?;
        let defaults = sigset(&RESET_SIGNALS);
        // SAFETY: both are initialised.
        errnum(unsafe { libc::posix_spawnattr_setsigdefault(attr, &raw const defaults) })?;
        match placement {
            Placement::Inherit => {}
            Placement::Session => flags |= i32::from(libc::POSIX_SPAWN_SETSID),
            Placement::Group(group) => {
                flags |= libc::POSIX_SPAWN_SETPGROUP;
                // SAFETY: initialised above.
                errnum(unsafe { libc::posix_spawnattr_setpgroup(attr, group) })?;
            }
        }
        let flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
        // SAFETY: initialised above.
        errnum(unsafe { libc::posix_spawnattr_setflags(attr, flags) })?;
        Ok(this)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `new` and destroyed once.
        unsafe { libc::posix_spawnattr_destroy(self.0.as_mut_ptr()) };
    }
}

fn errnum(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(result))
    }
}

/// Starts `path` and returns the process id.
pub(crate) fn spawn(
    path: &CStr,
    argv: &[CString],
    env: &[&CStr],
    actions: &[Action<'_>],
    placement: Placement,
) -> io::Result<i32> {
    let attributes = Attributes::new(placement)?;
    let mut file_actions = FileActions::new()?;
    for action in actions {
        file_actions.add(action)?;
    }
    let argv = pointers(argv.iter().map(CString::as_c_str));
    let envp = pointers(env.iter().copied());
    let mut pid = 0;
    // SAFETY: `path` and the strings behind `argv` and `envp` are NUL terminated and live through the call;
    // both arrays end with a null pointer and posix_spawn does not write through them; attributes and file
    // actions are initialised.
    errnum(unsafe {
        libc::posix_spawn(
            &raw mut pid,
            path.as_ptr(),
            file_actions.0.as_ptr(),
            attributes.0.as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
        )
    })?;
    Ok(pid)
}

fn pointers<'a>(strings: impl Iterator<Item = &'a CStr>) -> Vec<*mut libc::c_char> {
    strings
        .map(|text| text.as_ptr().cast_mut())
        .chain([std::ptr::null_mut()])
        .collect()
}
