//! How is the content carried from one run of the instance to the next as an archive? With the attributes
//! `content.dump` at the end and `content.restore` at the start: offline garbage collection, and portable state.
//!
//! `auto` means the directory `dump` in the state directory, where the link `RESTORE` names the archive to load.

use super::program;
use super::service::Lifecycle;
use crate::attrs::Attrs;
use crate::service::Cx;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Values larger than this are left out of a restore.
const SIZE_LIMIT: &str = "100M";

/// An archive, and the link by which it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    file: PathBuf,
    link: Option<PathBuf>,
}

fn auto_dir(attrs: &Attrs) -> PathBuf {
    Path::new(attrs.get("statedir").unwrap_or(".")).join("dump")
}

/// Returns what `content.restore` asks to load, when it is there.
pub(super) fn source(attrs: &Attrs) -> Option<Source> {
    match attrs.get("content.restore").filter(|value| !value.is_empty())? {
        "auto" => {
            let link = auto_dir(attrs).join("RESTORE");
            let file = std::fs::canonicalize(&link).ok()?;
            Some(Source {
                file,
                link: Some(link),
            })
        }
        path => Some(Source {
            file: path.into(),
            link: None,
        }),
    }
}

impl Lifecycle {
    /// Loads the archive that `content.restore` names into the content store, which is empty, before the KVS starts.
    pub(super) fn restore_content(
        &mut self,
        cx: &mut Cx<'_>,
        then: impl FnOnce(&mut Lifecycle, &mut Cx<'_>, bool) + 'static,
    ) {
        let Some(Source { file, link }) = self.restore.take() else {
            then(self, cx, true);
            return;
        };
        cx.log(6, "broker", &format!("restoring content from {}", file.display()));
        let size = format!("--size-limit={SIZE_LIMIT}");
        let words = ["restore", "--sd-notify", "--quiet", "--checkpoint", &size];
        let run = program::run(cx, flux_command(&words, &file));
        cx.spawn(run, move |me: &mut Lifecycle, cx, result| {
            let ok = matches!(result, Ok(0));
            if ok {
                // gone already is as good
                drop(link.map(std::fs::remove_file));
            } else {
                cx.log(
                    3,
                    "broker",
                    &format!("flux restore {}: {result:?}", file.display()),
                );
            }
            then(me, cx, ok);
        });
    }

    /// Writes the archive that `content.dump` names, after the KVS has stored everything.
    pub(super) fn dump_content(
        &mut self,
        cx: &mut Cx<'_>,
        then: impl FnOnce(&mut Lifecycle, &mut Cx<'_>) + 'static,
    ) {
        let wanted = cx.attrs.get("content.dump").filter(|value| !value.is_empty());
        let Some(wanted) = wanted.filter(|_| cx.rank() == 0 && !cx.provides("kvs")) else {
            then(self, cx);
            return;
        };
        let (file, link) = if wanted == "auto" {
            let dir = auto_dir(&cx.attrs);
            if let Err(err) = std::fs::create_dir_all(&dir) {
                cx.log(3, "broker", &format!("content.dump: {}: {err}", dir.display()));
                self.fail_quietly();
                then(self, cx);
                return;
            }
            let name = format!("{}.tgz", stamp());
            (dir.join(&name), Some((dir.join("RESTORE"), name)))
        } else {
            (PathBuf::from(wanted), None)
        };
        cx.log(6, "broker", &format!("dumping content to {}", file.display()));
        let words = [
            "dump",
            "--sd-notify",
            "--quiet",
            "--ignore-failed-read",
            "--no-cache",
            "--maxreqs=128",
            "--checkpoint",
        ];
        let run = program::run(cx, flux_command(&words, &file));
        cx.spawn(run, move |me: &mut Lifecycle, cx, result| {
            let done = match (result, link) {
                (Ok(0), Some((link, name))) => {
                    // an older dump was not loaded: the new one takes its place
                    drop(std::fs::remove_file(&link));
                    std::os::unix::fs::symlink(name, &link)
                        .map_err(|err| format!("{}: {err}", link.display()))
                }
                (Ok(0), None) => Ok(()),
                (other, _) => Err(format!("flux dump {}: {other:?}", file.display())),
            };
            if let Err(text) = done {
                cx.log(3, "broker", &text);
                me.fail_quietly();
            }
            then(me, cx);
        });
    }

    /// Makes the broker's exit code tell that something went wrong, unless it does already.
    fn fail_quietly(&mut self) {
        if self.exit_code == 0 {
            self.exit_code = 1;
        }
    }
}

/// Returns the command line of this build's `flux`.
fn flux_command(words: &[&str], file: &Path) -> Vec<String> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join("flux")))
        .filter(|path| path.is_file());
    let flux = beside.map_or_else(|| "flux".to_owned(), |path| path.display().to_string());
    let mut argv = vec![flux];
    argv.extend(words.iter().map(|word| (*word).to_owned()));
    argv.push(file.display().to_string());
    argv
}

/// Returns the time in UTC as `YYYYMMDD_HHMMSS`.
fn stamp() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    date(since.as_secs())
}

fn date(secs: u64) -> String {
    let (day, rest) = (secs / 86_400, secs % 86_400);
    // years begin in March here, so that the leap day is the last one
    let days = day + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}{month:02}{day:02}_{:02}{:02}{:02}",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), "19700101_000000");
        assert_eq!(date(951_826_800), "20000229_122000");
    }

    #[test]
    fn sources() {
        let dir = tempfile::tempdir().unwrap();
        let mut attrs = Attrs::new();
        assert_eq!(source(&attrs), None);
        attrs.set_internal("content.restore", "auto");
        attrs.set_internal("statedir", dir.path().display().to_string());
        assert_eq!(source(&attrs), None);
        std::fs::create_dir(dir.path().join("dump")).unwrap();
        std::fs::write(dir.path().join("dump/x.tgz"), "").unwrap();
        std::os::unix::fs::symlink("x.tgz", dir.path().join("dump/RESTORE")).unwrap();
        let found = source(&attrs).unwrap();
        assert!(found.file.ends_with("dump/x.tgz") && found.link.is_some());
        attrs.set_internal("content.restore", "/a/b.tar");
        assert_eq!(source(&attrs).unwrap().file, Path::new("/a/b.tar"));
    }
}
