//! How is a program started with exactly the environment, directory, descriptors and group it shall have?

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::pidfd::PidFd;
use crate::signal::{self, Signal};
use crate::status::WaitStatus;
use crate::sys;
use crate::sys::spawn::{Action, Placement};

/// Searched when the child's environment has no PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Which process group the child starts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProcessGroup {
    /// That of the caller.
    #[default]
    Inherit,
    /// A new one, named after the child, so that it can be signalled as a whole.
    Own,
    /// A new session (and group), without a controlling terminal.
    Session,
}

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The working directory cannot be entered.
    #[error("{}", .path.display())]
    Cwd {
        /// The directory.
        path: PathBuf,
        /// What chdir gave.
        #[source]
        source: io::Error,
    },
    /// The program cannot be found or executed.
    #[error("{program}")]
    Exec {
        /// The program as it was given.
        program: String,
        /// ENOENT when it was not found, EACCES when it is not executable, and so on.
        #[source]
        source: io::Error,
    },
    /// An argument, variable or path holds a NUL.
    #[error("{what} contains a NUL byte")]
    Nul {
        /// Which kind of string.
        what: &'static str,
    },
    /// The system has no room for another process or descriptor.
    #[error("no resources for another process")]
    Resources(#[source] io::Error),
}

impl SpawnError {
    /// Returns the error number that describes the failure.
    pub fn errnum(&self) -> i32 {
        match self {
            SpawnError::Cwd { source, .. }
            | SpawnError::Exec { source, .. }
            | SpawnError::Resources(source) => source.raw_os_error().unwrap_or(libc::EIO),
            SpawnError::Nul { .. } => libc::EINVAL,
        }
    }

    /// Returns the exit code that a POSIX shell gives: 127 not found, 126 not executable, else 1.
    pub fn exit_code(&self) -> i32 {
        match self {
            SpawnError::Exec { source, .. } if source.raw_os_error() == Some(libc::ENOENT) => 127,
            SpawnError::Exec { .. } => 126,
            _ => 1,
        }
    }
}

/// A program to start.
///
/// The child gets an empty signal mask, default signal dispositions, descriptors 0, 1 and 2 of the caller
/// unless mapped, every mapped descriptor, and nothing else that is close-on-exec.
#[derive(Debug)]
pub struct Command {
    program: OsString,
    args: Vec<OsString>,
    env: Option<Vec<(OsString, OsString)>>,
    block: Option<EnvBlock>,
    cwd: Option<PathBuf>,
    fds: Vec<(RawFd, OwnedFd)>,
    null: Vec<RawFd>,
    group: ProcessGroup,
    tty: Option<CString>,
}

/// Environment variables that many children get, encoded once.
#[derive(Clone, Debug)]
pub struct EnvBlock(Rc<[CString]>);

impl EnvBlock {
    /// Returns a block of these variables.
    ///
    /// # Errors
    /// [`SpawnError::Nul`].
    pub fn new<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, SpawnError> {
        let entry = |(name, value): (K, V)| variable(name.as_ref(), value.as_ref());
        variables
            .into_iter()
            .map(entry)
            .collect::<Result<_, _>>()
            .map(EnvBlock)
    }

    /// Returns the last value of a variable.
    fn get(&self, name: &str) -> Option<&OsStr> {
        let mut entries = self.0.iter().rev().map(|entry| entry.as_bytes());
        entries
            .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
            .map(OsStr::from_bytes)
    }
}

/// Returns `NAME=VALUE`.
fn variable(name: &OsStr, value: &OsStr) -> Result<CString, SpawnError> {
    let mut bytes = Vec::with_capacity(name.len() + value.len() + 2);
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(b'=');
    bytes.extend_from_slice(value.as_bytes());
    CString::new(bytes).map_err(|_| SpawnError::Nul {
        what: "environment variable",
    })
}

/// A started program.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    pidfd: PidFd,
}

impl Command {
    /// Returns a command for `program`, which is also its argument 0. Without a slash it is searched in the
    /// PATH of the child's environment.
    pub fn new(program: impl Into<OsString>) -> Self {
        let program = program.into();
        Command {
            args: vec![program.clone()],
            program,
            env: None,
            block: None,
            cwd: None,
            fds: Vec::new(),
            null: Vec::new(),
            group: ProcessGroup::default(),
            tty: None,
        }
    }

    /// Appends one argument.
    pub fn arg(&mut self, arg: impl Into<OsString>) -> &mut Self {
        self.args.push(arg.into());
        self
    }

    /// Appends arguments.
    pub fn args<S: Into<OsString>>(&mut self, args: impl IntoIterator<Item = S>) -> &mut Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Gives the child exactly these variables; without this call it gets those of the caller.
    pub fn env<K: Into<OsString>, V: Into<OsString>>(
        &mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> &mut Self {
        self.env = Some(
            variables
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        );
        self
    }

    /// Gives the child the variables of a block, and those of [`Command::env`] after them.
    pub fn env_block(&mut self, block: &EnvBlock) -> &mut Self {
        self.block = Some(block.clone());
        self
    }

    /// Starts the child in `path`.
    pub fn cwd(&mut self, path: impl Into<PathBuf>) -> &mut Self {
        self.cwd = Some(path.into());
        self
    }

    /// Gives the child `fd` as number `target`; the caller's copy closes with the command.
    pub fn fd(&mut self, target: RawFd, fd: impl Into<OwnedFd>) -> &mut Self {
        self.fds.push((target, fd.into()));
        self
    }

    /// Gives the child /dev/null as number `target`.
    pub fn null(&mut self, target: RawFd) -> &mut Self {
        self.null.push(target);
        self
    }

    /// Chooses the process group.
    pub fn group(&mut self, group: ProcessGroup) -> &mut Self {
        self.group = group;
        self
    }

    /// Makes the child leader of a new session whose controlling terminal, and descriptors 0, 1 and 2, is the
    /// device `path` (see [`crate::pty::Pty::slave_path`]).
    pub fn controlling_tty(&mut self, path: impl Into<CString>) -> &mut Self {
        self.tty = Some(path.into());
        self
    }

    /// Starts the program.
    ///
    /// # Errors
    /// [`SpawnError`]; nothing has been started then.
    pub fn spawn(self) -> Result<Child, SpawnError> {
        let argv = c_strings(&self.args, "argument")?;
        let own = self.own_variables()?;
        let shared = self.block.iter().flat_map(|block| block.0.iter());
        let env: Vec<&CStr> = shared.chain(&own).map(CString::as_c_str).collect();
        let path = self.resolve()?;
        let path = c_string(path.as_os_str(), "program")?;
        let cwd = self
            .cwd
            .as_deref()
            .map(|path| c_string(path.as_os_str(), "directory"))
            .transpose()?;
        let lifted = self.lift_fds().map_err(SpawnError::Resources)?;
        let mut actions = Vec::with_capacity(self.fds.len() + 5);
        if let Some(tty) = &self.tty {
            // The first terminal that a session leader opens becomes its controlling terminal.
            actions.push(Action::Open {
                fd: 0,
                path: tty,
                flags: libc::O_RDWR,
            });
            actions.push(Action::Dup { from: 0, to: 1 });
            actions.push(Action::Dup { from: 0, to: 2 });
        }
        actions.extend(lifted.iter().map(|(target, fd)| Action::Dup {
            from: fd.as_raw_fd(),
            to: *target,
        }));
        for target in &self.null {
            actions.push(Action::Open {
                fd: *target,
                path: c"/dev/null",
                flags: libc::O_RDWR,
            });
        }
        if let Some(cwd) = &cwd {
            actions.push(Action::Chdir(cwd));
        }
        let placement = match self.group {
            _ if self.tty.is_some() => Placement::Session,
            ProcessGroup::Inherit => Placement::Inherit,
            ProcessGroup::Own => Placement::Group(0),
            ProcessGroup::Session => Placement::Session,
        };
        let mut started = sys::spawn::spawn(&path, &argv, &env, &actions, placement);
        if started
            .as_ref()
            .is_err_and(|error| error.raw_os_error() == Some(libc::ENOEXEC))
        {
            // A script without "#!" goes to the shell, as execvp(3) does.
            let mut script_argv = vec![c"/bin/sh".to_owned(), path];
            script_argv.extend(argv.into_iter().skip(1));
            started = sys::spawn::spawn(c"/bin/sh", &script_argv, &env, &actions, placement);
        }
        let pid = started.map_err(|source| self.explain(source))?;
        let pid = u32::try_from(pid).map_err(|_| SpawnError::Resources(io::ErrorKind::Other.into()))?;
        let pidfd = PidFd::open(pid).map_err(SpawnError::Resources)?;
        Ok(Child { pid, pidfd })
    }

    /// Returns the mapped descriptors, those copied upwards whose number is some mapping's target.
    fn lift_fds(&self) -> io::Result<Vec<(RawFd, LiftedFd<'_>)>> {
        let targets = self
            .fds
            .iter()
            .map(|(target, _)| *target)
            .chain(self.null.iter().copied());
        let floor = targets.max().unwrap_or(2).max(2) + 1;
        self.fds
            .iter()
            .map(|(target, fd)| {
                let lifted = if fd.as_raw_fd() >= floor {
                    LiftedFd::Borrowed(fd)
                } else {
                    LiftedFd::Copy(sys::fd::dup_above(fd.as_fd(), floor)?)
                };
                Ok((*target, lifted))
            })
            .collect()
    }

    /// Returns the variables beside those of a block.
    fn own_variables(&self) -> Result<Vec<CString>, SpawnError> {
        match &self.env {
            Some(env) => env.iter().map(|(name, value)| variable(name, value)).collect(),
            None if self.block.is_some() => Ok(Vec::new()),
            None => std::env::vars_os()
                .map(|(name, value)| variable(&name, &value))
                .collect(),
        }
    }

    fn path_variable(&self) -> OsString {
        let own = self.env.iter().flatten().rev().find(|(name, _)| name == "PATH");
        let path = match (own, &self.block, &self.env) {
            (Some((_, value)), _, _) => Some(value.clone()),
            (None, Some(block), _) => block.get("PATH").map(OsStr::to_owned),
            (None, None, Some(_)) => None,
            (None, None, None) => std::env::var_os("PATH"),
        };
        path.unwrap_or_else(|| DEFAULT_PATH.into())
    }

    /// Finds the program as `execvp` would in the child: relative path elements count from its directory.
    fn resolve(&self) -> Result<PathBuf, SpawnError> {
        let error = |errnum| self.exec_error(io::Error::from_raw_os_error(errnum));
        if self.program.is_empty() {
            return Err(error(libc::ENOENT));
        }
        if self.program.as_bytes().contains(&b'/') {
            return Ok(PathBuf::from(&self.program));
        }
        let mut denied = false;
        for directory in self.path_variable().as_bytes().split(|byte| *byte == b':') {
            let directory = if directory.is_empty() { b"." } else { directory };
            let candidate = Path::new(OsStr::from_bytes(directory)).join(&self.program);
            let seen_from_here = match &self.cwd {
                Some(cwd) => cwd.join(&candidate),
                None => candidate.clone(),
            };
            match executable(&seen_from_here) {
                Some(true) => return Ok(candidate),
                Some(false) => denied = true,
                None => {}
            }
        }
        Err(error(if denied { libc::EACCES } else { libc::ENOENT }))
    }

    fn exec_error(&self, source: io::Error) -> SpawnError {
        SpawnError::Exec {
            program: self.program.to_string_lossy().into_owned(),
            source,
        }
    }

    /// Says which step failed; posix_spawn tells only the error number.
    fn explain(&self, source: io::Error) -> SpawnError {
        if let Some(cwd) = &self.cwd
            && let Err(error) = std::fs::read_dir(cwd).map(drop)
            && error.kind() != io::ErrorKind::PermissionDenied
        {
            return SpawnError::Cwd {
                path: cwd.clone(),
                source: error,
            };
        }
        match source.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => SpawnError::Resources(source),
            _ => self.exec_error(source),
        }
    }
}

/// A descriptor for the child: the caller's own, or a copy at a higher number.
enum LiftedFd<'a> {
    Borrowed(&'a OwnedFd),
    Copy(OwnedFd),
}

impl AsRawFd for LiftedFd<'_> {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            LiftedFd::Borrowed(fd) => fd.as_raw_fd(),
            LiftedFd::Copy(fd) => fd.as_raw_fd(),
        }
    }
}

impl Child {
    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the descriptor to poll and wait on.
    pub fn pidfd(&self) -> &PidFd {
        &self.pidfd
    }

    /// Sends a signal to the process.
    ///
    /// # Errors
    /// As [`PidFd::send_signal`].
    pub fn send_signal(&self, signal: Signal) -> io::Result<()> {
        self.pidfd.send_signal(signal)
    }

    /// Sends a signal to the process group that the child leads; only after [`ProcessGroup::Own`] or
    /// [`ProcessGroup::Session`], and only while the child has not been waited for.
    ///
    /// # Errors
    /// As [`signal::kill_group`].
    pub fn kill_group(&self, signal: Signal) -> io::Result<()> {
        signal::kill_group(self.pid, signal)
    }

    /// Blocks until the child has ended and reaps it.
    ///
    /// # Errors
    /// As [`PidFd::wait`].
    pub fn wait(&self) -> io::Result<WaitStatus> {
        self.pidfd.wait()
    }

    /// Splits into process id and descriptor.
    pub fn into_parts(self) -> (u32, PidFd) {
        (self.pid, self.pidfd)
    }
}

/// Returns whether a regular file at `path` may be executed by somebody, `None` when there is none.
fn executable(path: &Path) -> Option<bool> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path).ok()?;
    metadata
        .is_file()
        .then(|| metadata.permissions().mode() & 0o111 != 0)
}

fn c_string(text: &OsStr, what: &'static str) -> Result<CString, SpawnError> {
    CString::new(text.to_os_string().into_vec()).map_err(|_| SpawnError::Nul { what })
}

fn c_strings(texts: &[OsString], what: &'static str) -> Result<Vec<CString>, SpawnError> {
    texts.iter().map(|text| c_string(text, what)).collect()
}

#[cfg(test)]
#[path = "spawn_tests.rs"]
mod tests;
