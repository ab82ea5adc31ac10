//! On which CPUs do the tasks run? (shell option `cpu-affinity`: on, off, per-task, map:LIST, dry-run, verbose)
//!
//! R names cores by their index on the host. The kernel names CPUs, of which a core with hyperthreads has several;
//! the table comes from sysfs, so that no topology library is needed.

use std::collections::BTreeMap;
use std::fs::read_to_string;
use std::path::Path;

use flux_formats::idset::IdSet;
use flux_process::affinity::{allowed_cpus, set_allowed_cpus};

use crate::ctx::Ctx;
use crate::log::log;
use crate::options::{OptionError, Options};

/// Where the kernel describes its CPUs.
const SYSFS_CPUS: &str = "/sys/devices/system/cpu";

/// What an affinity option asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    /// All tasks share the job's resources.
    On,
    /// Nothing is restricted.
    Off,
    /// Each task gets its share.
    PerTask,
    /// Sets given by the user; the last one is for all further tasks.
    Map(Vec<IdSet>),
}

/// Reads an affinity option; several words are separated by commas.
///
/// # Errors
/// [`OptionError`].
pub(crate) fn mode(options: &Options, name: &str) -> Result<Mode, OptionError> {
    let Some(text) = options.text(name)? else {
        return Ok(Mode::On);
    };
    if let Some(list) = text.strip_prefix("map:") {
        let sets: Option<Vec<IdSet>> = list.split(';').map(|set| set.trim().parse().ok()).collect();
        return sets.map(Mode::Map).ok_or(OptionError {
            name: name.to_owned(),
            value: text,
        });
    }
    let mut mode = Mode::On;
    for word in text.split(',') {
        mode = match word.trim() {
            "on" | "1" | "" => mode,
            "verbose" | "dry-run" => mode,
            "off" | "0" => Mode::Off,
            "per-task" => Mode::PerTask,
            _ => {
                return Err(OptionError {
                    name: name.to_owned(),
                    value: text,
                });
            }
        };
    }
    Ok(mode)
}

/// Deals a set out in contiguous shares, the first ones larger by one when it does not divide. With fewer ids than
/// shares, ids are used again.
pub(crate) fn split(set: &IdSet, shares: usize) -> Vec<IdSet> {
    let ids: Vec<u32> = set.iter().collect();
    if ids.is_empty() || shares == 0 {
        return vec![set.clone(); shares];
    }
    if ids.len() < shares {
        return (0..shares)
            .filter_map(|share| ids.get(share % ids.len()).copied())
            .map(IdSet::from)
            .collect();
    }
    let (each, extra) = (ids.len() / shares, ids.len() % shares);
    let mut rest = ids.as_slice();
    (0..shares)
        .map(|share| {
            let (mine, others) = rest.split_at(each + usize::from(share < extra));
            rest = others;
            mine.iter().copied().collect()
        })
        .collect()
}

/// The CPUs of this shell's tasks.
#[derive(Debug)]
pub(crate) struct Affinity {
    /// CPUs for each local task; a single entry is for all.
    per_task: Vec<Vec<u32>>,
    /// What the shell was allowed before.
    shell: Vec<u32>,
}

impl Affinity {
    /// Reads the option and the host; `None` when nothing is to be restricted.
    ///
    /// # Errors
    /// [`OptionError`].
    pub(crate) fn new(ctx: &mut Ctx) -> Result<Option<Self>, OptionError> {
        let mode = mode(&ctx.info.options, "cpu-affinity")?;
        if mode == Mode::Off {
            log!(ctx, Debug, "affinity", "disabled due to cpu-affinity=off");
            return Ok(None);
        }
        let Some(cores) = ctx.info.node().map(|node| node.cores.clone()) else {
            return Ok(None);
        };
        let shell = match allowed_cpus() {
            Ok(cpus) => cpus,
            Err(error) => {
                log!(
                    ctx,
                    Error,
                    "affinity",
                    "sched_getaffinity: {}",
                    crate::errno_text(&error)
                );
                return Ok(None);
            }
        };
        let table = core_table(Path::new(SYSFS_CPUS), &shell);
        let sets = match mode {
            Mode::PerTask => split(&cores, ctx.info.local_tasks.len()),
            Mode::Map(sets) => sets,
            Mode::On | Mode::Off => vec![cores],
        };
        let mut per_task = Vec::with_capacity(sets.len());
        for set in &sets {
            match cpus_of(&table, set, &shell) {
                Some(cpus) => per_task.push(cpus),
                None => {
                    log!(
                        ctx,
                        Warn,
                        "affinity",
                        "cores {set} are not available on this host, binding is off"
                    );
                    return Ok(None);
                }
            }
        }
        let dry_run = ctx
            .info
            .options
            .text("cpu-affinity")?
            .is_some_and(|text| text.contains("dry-run"));
        let everything = matches!(per_task.as_slice(), [only] if *only == shell);
        Ok((!dry_run && !everything).then_some(Affinity { per_task, shell }))
    }

    /// Restricts the shell to a task's CPUs, which the task inherits.
    pub(crate) fn enter(&self, ctx: &mut Ctx, local_id: u32) {
        let index = usize::try_from(local_id).unwrap_or(usize::MAX);
        let Some(cpus) = self.per_task.get(index).or_else(|| self.per_task.last()) else {
            return;
        };
        if let Err(error) = set_allowed_cpus(cpus) {
            log!(
                ctx,
                Error,
                "affinity",
                "sched_setaffinity: {}",
                crate::errno_text(&error)
            );
        }
    }

    /// Gives the shell back what it had: it must be able to run beside its tasks.
    pub(crate) fn leave(&self) {
        // It was allowed a moment ago; if it no longer is, the shell runs where its last task does.
        let _restored = set_allowed_cpus(&self.shell);
    }
}

/// The CPUs of each core of the host, by core index.
type CoreTable = Vec<Vec<u32>>;

/// Reads the host's cores: each core's CPUs, ordered by package, then by the core's first CPU.
fn core_table(sysfs: &Path, allowed: &[u32]) -> CoreTable {
    let read = |path: &str| read_to_string(sysfs.join(path)).ok();
    let online: Option<IdSet> = read("online").and_then(|text| text.trim().parse().ok());
    let online = online.unwrap_or_else(|| allowed.iter().copied().collect());
    if read("smt/active").is_none_or(|text| text.trim() == "0") {
        return online.iter().map(|cpu| vec![cpu]).collect();
    }
    let mut cores: BTreeMap<(u32, u32), Vec<u32>> = BTreeMap::new();
    for cpu in online.iter() {
        let number = |name: &str| read(&format!("cpu{cpu}/topology/{name}"));
        let package = number("physical_package_id")
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0);
        let siblings: Option<IdSet> =
            number("thread_siblings_list").and_then(|text| text.trim().parse().ok());
        let first = siblings.and_then(|siblings| siblings.first()).unwrap_or(cpu);
        cores.entry((package, first)).or_default().push(cpu);
    }
    cores.into_values().collect()
}

/// Returns the CPUs of cores, ascending: by index on the host when all of them are allowed there, else by index
/// among the allowed ones, as a topology counts that was read inside a container.
fn cpus_of(table: &CoreTable, cores: &IdSet, allowed: &[u32]) -> Option<Vec<u32>> {
    let is_allowed = |cpu: &u32| allowed.binary_search(cpu).is_ok();
    let pick = |from: &[&Vec<u32>]| -> Option<Vec<u32>> {
        let mut cpus = Vec::new();
        for core in cores.iter() {
            let all = from.get(usize::try_from(core).ok()?)?;
            let before = cpus.len();
            cpus.extend(all.iter().copied().filter(is_allowed));
            if cpus.len() == before {
                return None;
            }
        }
        cpus.sort_unstable();
        (!cpus.is_empty()).then_some(cpus)
    };
    let host: Vec<&Vec<u32>> = table.iter().collect();
    let mine: Vec<&Vec<u32>> = table.iter().filter(|cpus| cpus.iter().any(is_allowed)).collect();
    pick(&host).or_else(|| pick(&mine))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> IdSet {
        text.parse().unwrap()
    }

    fn modes(value: serde_json::Value) -> Result<Mode, OptionError> {
        mode(
            &Options::new([("a".to_owned(), value)].into_iter().collect()),
            "a",
        )
    }

    #[test]
    fn the_option_in_every_form() {
        assert_eq!(modes("off".into()), Ok(Mode::Off));
        assert_eq!(modes(1.into()), Ok(Mode::On));
        assert_eq!(modes("per-task,verbose".into()), Ok(Mode::PerTask));
        assert_eq!(
            modes("map:0-1;2".into()),
            Ok(Mode::Map(vec![set("0-1"), set("2")]))
        );
        assert!(modes("sideways".into()).is_err());
        assert!(modes("map:x".into()).is_err());
    }

    #[test]
    fn shares_are_contiguous_and_even() {
        let shares = |ids: &str, n| {
            split(&set(ids), n)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(shares("0-3", 2), ["0-1", "2-3"]);
        assert_eq!(shares("0-4", 2), ["0-2", "3-4"]);
        assert_eq!(shares("4,7", 3), ["4", "7", "4"]);
        assert_eq!(shares("", 2), ["", ""]);
    }

    #[test]
    fn hyperthreads_belong_to_their_core() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("online", "0-3\n");
        write("smt/active", "1\n");
        for (cpu, siblings) in [(0, "0,2"), (1, "1,3"), (2, "0,2"), (3, "1,3")] {
            write(&format!("cpu{cpu}/topology/physical_package_id"), "0\n");
            write(&format!("cpu{cpu}/topology/thread_siblings_list"), siblings);
        }
        let table = core_table(dir.path(), &[0, 1, 2, 3]);
        assert_eq!(table, [vec![0, 2], vec![1, 3]]);
        assert_eq!(cpus_of(&table, &set("1"), &[0, 1, 2, 3]), Some(vec![1, 3]));
        assert_eq!(
            cpus_of(&table, &set("0-1"), &[0, 1, 2, 3]),
            Some(vec![0, 1, 2, 3])
        );
        assert_eq!(cpus_of(&table, &set("2"), &[0, 1, 2, 3]), None);
        assert_eq!(
            cpus_of(&table, &set("0"), &[1, 3]),
            Some(vec![1, 3]),
            "index among the allowed"
        );
        write("smt/active", "0\n");
        assert_eq!(core_table(dir.path(), &[0]).len(), 4);
    }
}
