//! What do the records of `wit/` look like in Rust? Names, order and types must be those of the interface; loading a component checks it.

use wasmtime::component::{ComponentType, Lift, Lower, flags};

use crate::pool::{Counts as PoolCounts, Placement};

/// `log.level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "values come from guests")]
pub(crate) enum Level {
    #[component(name = "emerg")]
    Emerg,
    #[component(name = "alert")]
    Alert,
    #[component(name = "crit")]
    Crit,
    #[component(name = "err")]
    Err,
    #[component(name = "warning")]
    Warning,
    #[component(name = "notice")]
    Notice,
    #[component(name = "info")]
    Info,
    #[component(name = "debug")]
    Debug,
}

/// `types.refusal`.
#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Refusal {
    pub(crate) errnum: u32,
    pub(crate) text: String,
}

/// `course.answer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum Priority {
    #[component(name = "pass")]
    Pass,
    #[component(name = "unavailable")]
    Unavailable,
    #[component(name = "value")]
    Value(u64),
}

/// `pool.failure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
pub(crate) enum Failure {
    #[component(name = "busy")]
    Busy,
    #[component(name = "not-pending")]
    NotPending,
    #[component(name = "budget")]
    Budget,
    #[component(name = "unavailable")]
    Unavailable,
}

/// `pool.placement`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "values come from guests")]
pub(crate) enum Placed {
    #[component(name = "configured")]
    Configured,
    #[component(name = "worstfit")]
    Worstfit,
    #[component(name = "first")]
    First,
    #[component(name = "firstnodex")]
    Firstnodex,
    #[component(name = "low")]
    Low,
    #[component(name = "high")]
    High,
    #[component(name = "lonode")]
    Lonode,
    #[component(name = "hinode")]
    Hinode,
    #[component(name = "lonodex")]
    Lonodex,
    #[component(name = "hinodex")]
    Hinodex,
}

impl Placed {
    /// Returns the placement; none for the configured one.
    pub(crate) fn placement(self) -> Option<Placement> {
        Some(match self {
            Placed::Configured => return None,
            Placed::Worstfit => Placement::Worstfit,
            Placed::First => Placement::First,
            Placed::Firstnodex => Placement::Firstnodex,
            Placed::Low => Placement::Low,
            Placed::High => Placement::High,
            Placed::Lonode => Placement::Lonode,
            Placed::Hinode => Placement::Hinode,
            Placed::Lonodex => Placement::Lonodex,
            Placed::Hinodex => Placement::Hinodex,
        })
    }
}

/// `pool.counts`.
#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct Counts {
    #[component(name = "nodes-up")]
    pub(crate) nodes_up: u32,
    #[component(name = "cores-free")]
    pub(crate) cores_free: u64,
    #[component(name = "gpus-free")]
    pub(crate) gpus_free: u64,
}

impl From<PoolCounts> for Counts {
    fn from(counts: PoolCounts) -> Self {
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        Counts {
            nodes_up: u32::try_from(counts.nodes_up).unwrap_or(u32::MAX),
            cores_free: wide(counts.cores_free),
            gpus_free: wide(counts.gpus_free),
        }
    }
}

/// `scheduling.pending`.
#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct Pending {
    pub(crate) id: u64,
    pub(crate) priority: u64,
    pub(crate) userid: u32,
    #[component(name = "t-submit")]
    pub(crate) t_submit: f64,
    pub(crate) nnodes: u32,
    pub(crate) nslots: u32,
    #[component(name = "cores-per-slot")]
    pub(crate) cores_per_slot: u32,
    #[component(name = "gpus-per-slot")]
    pub(crate) gpus_per_slot: u32,
    pub(crate) exclusive: bool,
    pub(crate) duration: f64,
    pub(crate) queue: u32,
    pub(crate) class: u32,
}

flags! {
    Changes {
        #[component(name = "queue")]
        const QUEUE;
        #[component(name = "resources")]
        const RESOURCES;
    }
}
