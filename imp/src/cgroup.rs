//! How are all processes of a job ended, whatever they do? They live in a control group that only root may change.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::fd::{filesystem, mkdirat, openat, rmdirat};
use crate::sys::process::own_pid;

/// `CGROUP2_SUPER_MAGIC`, `PROC_SUPER_MAGIC`
const CGROUP2: i64 = 0x6367_7270;
const PROC: i64 = 0x9fa0;
/// Where the hierarchy of version 2 is: alone, or beside version 1.
const ROOTS: [&std::ffi::CStr; 2] = [c"/sys/fs/cgroup", c"/sys/fs/cgroup/unified"];
/// Most bytes of `/proc/self/cgroup`.
const TEXT_MAX: u64 = 64 << 10;

/// A group that holds one job's processes; made, and removed, by this process.
#[derive(Debug)]
pub struct Cgroup {
    parent: OwnedFd,
    name: CString,
    leaf: OwnedFd,
}

impl Cgroup {
    /// Makes a group of root's below the one that this process is in.
    ///
    /// # Errors
    /// Why there is none.
    pub fn create(jobid: &str) -> Result<Self, String> {
        let parent = own_group()?;
        let pid = own_pid();
        let jobid: String = jobid.chars().filter(char::is_ascii_alphanumeric).collect();
        let name = CString::new(format!("flux-imp-{jobid}-{pid}")).unwrap_or_default();
        let failed = |what: &str, err: std::io::Error| format!("cannot {what} a control group: {err}");
        // It must not be there: a group that somebody else has made is not ours, whatever its name.
        mkdirat(parent.as_fd(), &name, 0o755).map_err(|err| failed("make", err))?;
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let leaf = openat(Some(parent.as_fd()), &name, flags, 0).map_err(|err| failed("open", err));
        let leaf = leaf.inspect_err(|_| drop(rmdirat(parent.as_fd(), &name)))?;
        let group = Cgroup { parent, name, leaf };
        // Linux 5.14; without it a job that forks faster than it is killed would win.
        match openat(Some(group.leaf.as_fd()), c"cgroup.kill", libc::O_WRONLY, 0) {
            Ok(_) => Ok(group),
            Err(err) => {
                group.remove();
                Err(failed("kill", err))
            }
        }
    }

    /// Returns the open directory.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.leaf.as_fd()
    }

    /// Ends every process in the group.
    pub fn kill(&self) {
        if let Ok(file) = openat(Some(self.leaf.as_fd()), c"cgroup.kill", libc::O_WRONLY, 0) {
            drop(File::from(file).write_all(b"1"));
        }
    }

    /// Returns false when no process is left in it.
    pub fn is_populated(&self) -> bool {
        let mut text = String::new();
        let read = openat(Some(self.leaf.as_fd()), c"cgroup.events", libc::O_RDONLY, 0)
            .and_then(|file| File::from(file).take(TEXT_MAX).read_to_string(&mut text));
        read.is_err() || !text.lines().any(|line| line == "populated 0")
    }

    /// Removes the group; false while it holds anything.
    pub fn remove(&self) -> bool {
        rmdirat(self.parent.as_fd(), &self.name).is_ok()
    }
}

/// Opens the group that this process is in.
fn own_group() -> Result<OwnedFd, String> {
    let failed = |what: &'static str| move |err: std::io::Error| format!("{what}: {err}");
    let proc = openat(None, c"/proc/self/cgroup", libc::O_RDONLY, 0).map_err(failed("/proc/self/cgroup"))?;
    if filesystem(proc.as_fd()).map_err(failed("/proc"))? != PROC {
        return Err("/proc is not what it should be".to_owned());
    }
    let mut text = String::new();
    File::from(proc)
        .take(TEXT_MAX)
        .read_to_string(&mut text)
        .map_err(failed("/proc/self/cgroup"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let path = path.ok_or("control groups version 2 are not there")?;
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let mut at = ROOTS
        .iter()
        .filter_map(|root| openat(None, root, flags, 0).ok())
        .find(|fd| filesystem(fd.as_fd()).is_ok_and(|kind| kind == CGROUP2))
        .ok_or("no control group file system is mounted at /sys/fs/cgroup")?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        if name == ".." {
            return Err("its control group is outside of its namespace".to_owned());
        }
        let name = CString::new(name).map_err(|_| "its control group has a NUL in its name".to_owned())?;
        at = openat(Some(at.as_fd()), &name, flags, 0).map_err(failed("its control group"))?;
    }
    Ok(at)
}
