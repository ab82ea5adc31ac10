//! rc1: the crontabs of the directory that attribute `cron.directory` names become cron entries.

use super::service::Lifecycle;
use crate::modules::cron::Cron;
use crate::service::Cx;
use flux_formats::rpc::cron::{CreateRequest, crontab};
use std::path::{Path, PathBuf};

/// An entry with the file that it stands in.
type Line = (PathBuf, CreateRequest);

impl Lifecycle {
    /// Creates the entries of all crontabs, then goes on. A crontab that cannot be used fails rc1, as in flux-core.
    pub(super) fn load_crontabs(
        &mut self,
        cx: &mut Cx<'_>,
        then: impl FnOnce(&mut Lifecycle, &mut Cx<'_>) + 'static,
    ) {
        let dir = cx.attrs.get("cron.directory").filter(|_| cx.rank() == 0);
        let (lines, errors) = dir.map(|dir| read(Path::new(dir))).unwrap_or_default();
        self.report(cx, errors);
        if lines.is_empty() || !cx.provides("cron") {
            then(self, cx);
            return;
        }
        let me = cx.slot();
        cx.to::<Cron>("cron", move |cron, cx| {
            let created = lines.into_iter().filter_map(|(file, request)| {
                let command = request.command.clone();
                let err = cron.create(cx, request).err()?;
                Some(format!("{}: '{command}': {err}", file.display()))
            });
            let errors = created.collect();
            cx.to_slot::<Lifecycle>(me, move |me, cx| {
                me.report(cx, errors);
                then(me, cx);
            });
        });
    }

    fn report(&mut self, cx: &mut Cx<'_>, errors: Vec<String>) {
        for text in errors {
            self.rc1_failed = true;
            cx.log(3, "broker", &format!("rc1: crontab {text}"));
        }
    }
}

/// Reads the files of a directory in order of their names; a directory that does not exist has none.
fn read(dir: &Path) -> (Vec<Line>, Vec<String>) {
    let (mut lines, mut errors) = (Vec::new(), Vec::new());
    let Ok(list) = std::fs::read_dir(dir) else {
        return (lines, errors);
    };
    let mut files: Vec<PathBuf> = list
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    for file in files {
        let name = file.display();
        match std::fs::read_to_string(&file) {
            Ok(text) => match crontab(&text) {
                Ok(entries) => lines.extend(entries.into_iter().map(|entry| (file.clone(), entry))),
                Err(err) => errors.push(format!("{name}: {err}")),
            },
            Err(err) => errors.push(format!("{name}: {err}")),
        }
    }
    (lines, errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_in_order_and_errors_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b"), "0 0 * * * second\n").unwrap();
        std::fs::write(dir.path().join("a"), "0 0 * * * first\n").unwrap();
        std::fs::write(dir.path().join("c"), "0 0 * *\n").unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        let (lines, errors) = read(dir.path());
        let commands: Vec<_> = lines.iter().map(|(_, entry)| entry.command.as_str()).collect();
        assert_eq!(commands, ["first", "second"]);
        assert!(errors[0].contains("/c: line 1: '0 0 * *'"), "{errors:?}");
        assert_eq!(read(Path::new("/nonexistent")), (Vec::new(), Vec::new()));
    }
}
