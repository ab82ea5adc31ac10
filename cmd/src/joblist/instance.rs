//! What goes on in the instances that jobs run? Asked from them directly, many at the same time.

use flux_client::Handle;
use flux_formats::resource_set::{ResourceKind, ResourceSet};

use super::record::Record;
use super::stats::JobStats;
use crate::common::error::CmdError;
use crate::common::format::Cell;
use crate::common::resources::SchedStatus;

/// Threads that ask when nobody says how many.
const THREADS_DEFAULT: usize = 16;

/// What an instance tells about itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Instance {
    stats: JobStats,
    resources: SchedStatus,
}

impl Instance {
    /// Asks the instance at a URI.
    ///
    /// # Errors
    /// When it cannot be reached, or is not ours.
    pub(crate) fn fetch(uri: &str) -> Result<Self, CmdError> {
        let mut handle = Handle::open(Some(uri)).map_err(CmdError::Open)?;
        let rpc = SchedStatus::start(&mut handle)?;
        let stats = JobStats::fetch(&mut handle, None)?;
        let resources = SchedStatus::finish(&mut handle, &rpc)?;
        Ok(Instance { stats, resources })
    }

    /// Returns a field by its name without `instance.`, such as `resources.all.ncores`.
    pub(crate) fn field(&self, name: &str) -> Cell {
        if name == "stats" {
            return self.stats.to_string().into();
        }
        if let Some(name) = name.strip_prefix("stats.") {
            return self.stats.get(name).map_or(Cell::None, number);
        }
        if let Some((state, kind)) = name
            .strip_prefix("resources.")
            .and_then(|rest| rest.split_once('.'))
        {
            let set = self.resources.state(state);
            return match (set, kind_of(kind)) {
                (Some(set), Some(kind)) => number(set.count(kind)),
                _ => Cell::None,
            };
        }
        match name {
            "utilization" => self.share(ResourceKind::Core),
            "gpu_utilization" => self.share(ResourceKind::Gpu),
            "progress" => ratio(self.stats.inactive, self.stats.total),
            _ => Cell::None,
        }
    }

    fn share(&self, kind: ResourceKind) -> Cell {
        let count = |set: &ResourceSet| set.count(kind);
        ratio(count(&self.resources.allocated), count(&self.resources.all))
    }
}

fn kind_of(name: &str) -> Option<ResourceKind> {
    Some(match name {
        "nnodes" => ResourceKind::Node,
        "ncores" => ResourceKind::Core,
        "ngpus" => ResourceKind::Gpu,
        _ => return None,
    })
}

fn number(count: u64) -> Cell {
    Cell::Int(i64::try_from(count).unwrap_or(i64::MAX))
}

#[expect(clippy::cast_precision_loss, reason = "a share for people")]
fn ratio(part: u64, whole: u64) -> Cell {
    if whole == 0 {
        Cell::None
    } else {
        Cell::Float(part as f64 / whole as f64)
    }
}

/// Returns true for names that [`Instance::field`] knows, and the heading of the field.
pub(super) fn heading(name: &str) -> Option<&'static str> {
    if let Some(kind) = name.strip_prefix("stats.") {
        return match kind {
            "total" => Some("NJOBS"),
            kind if JobStats::default().get(kind).is_some() => Some("JOBS"),
            _ => None,
        };
    }
    if let Some((state, kind)) = name
        .strip_prefix("resources.")
        .and_then(|rest| rest.split_once('.'))
    {
        kind_of(kind)?;
        return match (state, kind) {
            ("all", "ncores") => Some("CORES"),
            ("all", "ngpus") => Some("GPUS"),
            ("all", _) => Some("NODES"),
            ("up", _) => Some("UP"),
            ("down", _) => Some("DOWN"),
            ("allocated", _) => Some("USED"),
            ("free", _) => Some("FREE"),
            _ => None,
        };
    }
    match name {
        "stats" => Some("STATS"),
        "utilization" => Some("CORE%"),
        "gpu_utilization" => Some("GPU%"),
        "progress" => Some("PROG"),
        _ => None,
    }
}

/// Asks the instances of all jobs that run one; those that do not answer are left out.
pub(crate) fn fetch_instances(records: &mut [Record], threads: Option<usize>) {
    let mut wanted: Vec<&mut Record> = records
        .iter_mut()
        .filter(|record| record.instance_uri().is_some())
        .collect();
    if wanted.is_empty() {
        return;
    }
    let threads = threads.unwrap_or(THREADS_DEFAULT).clamp(1, wanted.len());
    let share = wanted.len().div_ceil(threads);
    std::thread::scope(|scope| {
        for group in wanted.chunks_mut(share) {
            scope.spawn(move || {
                for record in group {
                    let uri = record.instance_uri();
                    record.instance = uri.and_then(|uri| Instance::fetch(&uri).ok());
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields() {
        let set = |cores: &str| {
            ResourceSet::from_value(&json!({"version": 1, "execution": {"R_lite": [{"rank": "0-1",
                "children": {"core": cores}}], "starttime": 0.0, "expiration": 0.0, "nodelist": ["n[0-1]"]}}))
            .unwrap()
        };
        let instance = Instance {
            stats: JobStats {
                inactive: 3,
                total: 4,
                ..JobStats::default()
            },
            resources: SchedStatus {
                all: set("0-3"),
                allocated: set("0"),
                ..SchedStatus::default()
            },
        };
        assert_eq!(instance.field("progress").plain(), "0.75");
        assert_eq!(instance.field("utilization").plain(), "0.25");
        assert_eq!(instance.field("gpu_utilization").plain(), "");
        assert_eq!(instance.field("resources.free.ncores").plain(), "6");
        assert_eq!(instance.field("stats").plain(), "PD:0 R:0 CD:0 F:0");
        assert_eq!(heading("resources.up.ngpus"), Some("UP"));
        assert_eq!(heading("resources.up.x"), None);
        assert_eq!(heading("stats.nope"), None);
    }
}
