//! How are all processes of a job ended, whatever they do? They live in a control group that only root may change.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};

use crate::refusal::demand;
use crate::sys::fd::{filesystem, mkdirat, openat, rmdirat};

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
    parent: File,
    name: CString,
    /// The open directory.
    pub leaf: File,
}

impl Cgroup {
    /// Makes a group of root's below the one that this process is in.
    ///
    /// # Errors
    /// Why there is none.
    pub fn create(jobid: &str) -> Result<Self, String> {
        let parent = own_group()?;
        let pid = std::process::id();
        let jobid: String = jobid.chars().filter(char::is_ascii_alphanumeric).collect();
        let name = CString::new(format!("flux-imp-{jobid}-{pid}")).unwrap_or_default();
        let failed = |what: &str, err: std::io::Error| format!("cannot {what} a control group: {err}");
        // It must not be there: a group that somebody else has made is not ours, whatever its name.
        mkdirat(&parent, &name, 0o755).map_err(|err| failed("make", err))?;
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let leaf = openat(Some(&parent), &name, flags, 0);
        let leaf = leaf.inspect_err(|_| drop(rmdirat(&parent, &name)));
        let leaf = leaf.map_err(|err| failed("open", err))?;
        // Linux 5.14; without it a job that forks faster than it is killed would win.
        let kill = openat(Some(&leaf), c"cgroup.kill", libc::O_WRONLY, 0);
        let group = Cgroup { parent, name, leaf };
        kill.map(|_| group).map_err(|err| failed("kill", err))
    }

    /// Ends every process in the group.
    pub fn kill(&self) {
        if let Ok(file) = openat(Some(&self.leaf), c"cgroup.kill", libc::O_WRONLY, 0) {
            drop((&file).write_all(b"1"));
        }
    }

    /// Removes the group; false while it holds any process.
    pub fn remove(&self) -> bool {
        rmdirat(&self.parent, &self.name).is_ok()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Whatever went wrong, an empty group does not stay.
        self.remove();
    }
}

/// Opens the group that this process is in.
fn own_group() -> Result<File, String> {
    let failed = |what: &'static str| move |err: std::io::Error| format!("{what}: {err}");
    let proc = File::open("/proc/self/cgroup").map_err(failed("/proc/self/cgroup"))?;
    let kind = filesystem(&proc).map_err(failed("/proc"))?;
    demand(kind == PROC, "/proc is not what it should be")?;
    let mut text = String::new();
    proc.take(TEXT_MAX)
        .read_to_string(&mut text)
        .map_err(failed("/proc/self/cgroup"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let path = path.ok_or("control groups version 2 are not there")?;
    let inside = path.split('/').all(|name| name != "..");
    demand(inside, "its control group is outside of its namespace")?;
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let root = ROOTS
        .iter()
        .filter_map(|root| openat(None, root, flags, 0).ok())
        .find(|root| filesystem(root).is_ok_and(|kind| kind == CGROUP2))
        .ok_or("no control group file system is mounted at /sys/fs/cgroup")?;
    // The kernel has named it, and this kind of file system has no links.
    let path = CString::new(format!("./{path}")).unwrap_or_default();
    openat(Some(&root), &path, flags, 0).map_err(failed("its control group"))
}
