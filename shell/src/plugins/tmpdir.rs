//! Where may the job's tasks keep temporary files? (`FLUX_JOB_TMPDIR`)

use std::fs::{DirBuilder, remove_dir, remove_dir_all};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::info::JobInfo;

/// A directory that lives as long as the shell.
#[derive(Debug)]
pub(crate) struct TmpDir(PathBuf);

impl TmpDir {
    /// Makes the directory beside the broker's socket, or in TMPDIR, or in /tmp: the first that lets us.
    ///
    /// # Errors
    /// That of /tmp.
    pub(crate) fn create(info: &JobInfo, job_tmpdir: Option<&str>) -> io::Result<Self> {
        let name = format!("jobtmp-{}-{}", info.shell_rank, info.id.f58(true));
        let uri = std::env::var("FLUX_URI").unwrap_or_default();
        let rundir = uri
            .strip_prefix("local://")
            .and_then(|path| Path::new(path).parent());
        let places = rundir
            .into_iter()
            .chain(job_tmpdir.map(Path::new))
            .chain([Path::new("/tmp")]);
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for place in places {
            let path = place.join(&name);
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(TmpDir(path)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Returns the path as text.
    pub(crate) fn path(&self) -> std::borrow::Cow<'_, str> {
        self.0.to_string_lossy()
    }
}

impl Drop for TmpDir {
    /// Removes the directory with what the tasks left in it.
    fn drop(&mut self) {
        if remove_dir(&self.0).is_err() {
            // What cannot be removed stays for the administrator.
            let _removed = remove_dir_all(&self.0);
        }
    }
}
