//! Which GPUs may a task see? (shell option `gpu-affinity`: on, off, per-task, map:LIST)

use flux_formats::idset::IdSet;

use crate::ctx::Ctx;
use crate::env::Env;
use crate::options::OptionError;
use crate::plugins::affinity::{self, Mode};

/// The choice for this shell's tasks.
#[derive(Debug)]
pub(crate) struct GpuBind {
    /// GPUs for each local task; a single entry is for all.
    per_task: Vec<IdSet>,
}

impl GpuBind {
    /// Reads the option; `None` when it is off.
    ///
    /// # Errors
    /// [`OptionError`].
    pub(crate) fn new(ctx: &Ctx) -> Result<Option<Self>, OptionError> {
        let gpus = ctx.info.node().map(|node| node.gpus.clone()).unwrap_or_default();
        let ntasks = ctx.info.local_tasks.len();
        let per_task = match affinity::mode(&ctx.info.options, "gpu-affinity")? {
            Mode::Off => return Ok(None),
            Mode::On => vec![gpus],
            Mode::PerTask => affinity::split(&gpus, ntasks),
            Mode::Map(sets) => sets,
        };
        Ok(Some(GpuBind { per_task }))
    }

    /// Sets the variables of a task.
    pub(crate) fn apply(&self, local_id: u32, env: &mut Env) {
        let index = usize::try_from(local_id).unwrap_or(usize::MAX);
        let set = self.per_task.get(index).or_else(|| self.per_task.last());
        // Without GPUs an id that no device has hides those that the node may have.
        let ids = match set {
            Some(set) if !set.is_empty() => set.iter().map(|id| id.to_string()).collect::<Vec<_>>().join(","),
            _ => "-1".to_owned(),
        };
        env.set("CUDA_VISIBLE_DEVICES", ids);
        env.set("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
    }
}
