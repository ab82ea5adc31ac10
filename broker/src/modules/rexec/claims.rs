//! Which shells run on this node, whoever started them? A directory of symbolic links, one for each shell that
//! outlives its broker.
//!
//! A link is named after the job. The shell makes it before it starts anything; its target is the shell's identity
//! ([`flux_process::Identity`]). A broker that looks for a shell and finds no link makes one that names nobody, so
//! that a shell which is late does not start after the job was given up. Both are one step of the file system.

use flux_formats::jobid::JobId;
use flux_process::{Identity, PidFd};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

/// Target of a link that names nobody.
const NOBODY: &str = "nobody";

/// What a link says.
#[derive(Debug)]
pub(super) enum Claim {
    /// A shell that runs.
    Running(Identity, PidFd),
    /// A shell that has ended.
    Ended(Identity),
    /// No shell: none may start.
    Nobody,
}

/// The directory.
#[derive(Debug, Default)]
pub(super) struct Claims {
    dir: PathBuf,
    made: bool,
}

impl Claims {
    /// Returns the claims of a broker with this run directory.
    pub(super) fn new(rundir: &str, rank: u32) -> Self {
        Claims {
            dir: Path::new(rundir).join(format!("shells-{rank}")),
            made: false,
        }
    }

    /// Returns where the shell of a job makes its claim, making the directory the first time.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub(super) fn path(&mut self, id: JobId) -> io::Result<PathBuf> {
        if !self.made {
            match std::fs::DirBuilder::new().mode(0o700).create(&self.dir) {
                Err(err) if err.kind() != io::ErrorKind::AlreadyExists => return Err(err),
                _ => self.made = true,
            }
        }
        Ok(self.link(id))
    }

    fn link(&self, id: JobId) -> PathBuf {
        self.dir.join(id.0.to_string())
    }

    /// Returns the jobs that there are claims for.
    pub(super) fn jobs(&self) -> Vec<JobId> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut jobs: Vec<JobId> = entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(JobId))
            .collect();
        jobs.sort_unstable();
        jobs
    }

    /// Returns what is known of a job's shell, and forbids it to start when there is none.
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub(super) fn find(&mut self, id: JobId) -> io::Result<Claim> {
        let path = self.path(id)?;
        loop {
            match std::fs::read_link(&path) {
                Ok(target) => return Self::read(target.to_str().unwrap_or(NOBODY)),
                Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
                Err(_) => {}
            }
            match symlink(NOBODY, &path) {
                Ok(()) => return Ok(Claim::Nobody),
                // the shell was faster
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
                Err(err) => return Err(err),
            }
        }
    }

    fn read(target: &str) -> io::Result<Claim> {
        let Ok(identity) = target.parse::<Identity>() else {
            return Ok(Claim::Nobody);
        };
        Ok(match identity.open()? {
            Some(pidfd) => Claim::Running(identity, pidfd),
            None => Claim::Ended(identity),
        })
    }

    /// Removes the directory when nothing is in it.
    pub(super) fn close(&mut self) {
        self.made = false;
        // it is not there, or shells need it
        drop(std::fs::remove_dir(&self.dir));
    }

    /// Forgets a shell that has ended. A claim that is not there is none to forget.
    pub(super) fn remove(&self, id: JobId) {
        let path = self.link(id);
        if let Err(err) = std::fs::remove_file(&path)
            && err.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), err = %err, "claim of a shell not removed");
        }
    }
}

/// Returns true for a process that belongs to the job: its environment says so. One whose environment cannot be read
/// is another user's, and not ours to judge.
pub(super) fn is_of_job(pid: u32, id: JobId) -> bool {
    let wanted = format!("FLUX_KVS_NAMESPACE={}", id.guest_namespace());
    std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
        environ
            .split(|byte| *byte == 0)
            .any(|entry| entry == wanted.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_are_found_or_forbidden() {
        let dir = tempfile::tempdir().unwrap();
        let mut claims = Claims::new(dir.path().to_str().unwrap(), 3);
        assert!(claims.jobs().is_empty());
        assert!(matches!(claims.find(JobId(7)).unwrap(), Claim::Nobody));
        // a shell that comes now finds the place taken
        let path = claims.path(JobId(7)).unwrap();
        assert_eq!(path, dir.path().join("shells-3/7"));
        let late = symlink("1:2:3", &path).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::AlreadyExists);
        let own = Identity::own().unwrap();
        symlink(own.to_string(), claims.path(JobId(8)).unwrap()).unwrap();
        assert!(matches!(claims.find(JobId(8)).unwrap(), Claim::Running(found, _) if found == own));
        let before = Identity {
            boot_id: "earlier".into(),
            ..own
        };
        symlink(before.to_string(), claims.path(JobId(9)).unwrap()).unwrap();
        assert!(matches!(claims.find(JobId(9)).unwrap(), Claim::Ended(found) if found == before));
        assert_eq!(claims.jobs(), [JobId(7), JobId(8), JobId(9)]);
        claims.remove(JobId(8));
        claims.remove(JobId(8));
        assert_eq!(claims.jobs(), [JobId(7), JobId(9)]);
    }

    #[test]
    fn processes_of_a_job_carry_its_namespace() {
        let mut command = flux_process::Command::new("sleep");
        command.arg("1000");
        command.env([("FLUX_KVS_NAMESPACE", JobId(5).guest_namespace())]);
        let child = command.spawn().unwrap();
        // the parent goes on a moment before the kernel shows the new environment
        let began = std::time::Instant::now();
        while !is_of_job(child.pid(), JobId(5)) {
            assert!(began.elapsed().as_secs() < 10);
        }
        assert!(!is_of_job(child.pid(), JobId(6)));
        child.send_signal(flux_process::Signal::SIGKILL).unwrap();
        child.wait().unwrap();
    }
}
