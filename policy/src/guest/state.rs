//! What does the host keep beside a guest's memory?

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use wasmtime::{ResourceLimiter, StoreLimits, StoreLimitsBuilder, UpdateDeadline};

use crate::host::LogRecord;
use crate::plugin::Limits;
use crate::sched::SchedSlot;

use super::log_gate::{LogGate, MESSAGE_BYTES_MAX, cut_line};
use super::tap::TapSlot;
use crate::tap::TapJob;

/// Most entries of a guest's tables; function tables of large guests have some thousands.
const TABLE_ELEMENTS_MAX: usize = 100_000;

/// The configuration that plugins see.
#[derive(Debug, Default)]
pub(crate) struct Configuration {
    /// JSON text of the whole object.
    pub(crate) text: Arc<str>,
    /// The same, parsed.
    pub(crate) value: Value,
}

/// A job as a guest sees it.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Its roles at submission; what follows from the user id later.
    pub(crate) rolemask: u32,
    pub(crate) job: Arc<TapJob>,
}

/// Bounds a store, and says how much it holds.
pub(crate) struct Bounded {
    limits: StoreLimits,
    /// Memory and tables so far.
    pub(crate) bytes: usize,
}

impl ResourceLimiter for Bounded {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let grown = self.limits.memory_growing(current, desired, maximum)?;
        if grown {
            self.bytes += desired.saturating_sub(current);
        }
        Ok(grown)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.limits.table_growing(current, desired, maximum)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.limits.memory_grow_failed(error)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.limits.table_grow_failed(error)
    }

    fn instances(&self) -> usize {
        self.limits.instances()
    }

    fn tables(&self) -> usize {
        self.limits.tables()
    }

    fn memories(&self) -> usize {
        self.limits.memories()
    }
}

/// Data of a guest's store.
pub(crate) struct GuestState {
    pub(crate) plugin: Arc<str>,
    pub(crate) limits: Bounded,
    pub(crate) configuration: Arc<Configuration>,
    pub(crate) args: Arc<str>,
    /// Time of the event that is handled.
    pub(crate) now: f64,
    /// The job of the call, while it lasts.
    pub(crate) job: Option<Job>,
    /// Another job that the call is about, while it lasts.
    pub(crate) target: Option<Job>,
    /// What a jobtap plugin asks for in the call.
    pub(crate) tap: TapSlot,
    /// The scheduler's trusted side, lent for the length of a call.
    pub(crate) sched: SchedSlot,
    pub(crate) logs: Vec<LogRecord>,
    gate: LogGate,
    deadline: Duration,
    /// CPU time of the thread when the call was first looked at.
    started: Option<Duration>,
}

/// The error that ends a call which took too long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeadlineExceeded(pub(crate) Duration);

impl fmt::Display for DeadlineExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exceeded its deadline of {} ms", self.0.as_millis())
    }
}

impl std::error::Error for DeadlineExceeded {}

impl GuestState {
    pub(crate) fn new(
        plugin: Arc<str>,
        args: Arc<str>,
        limits: &Limits,
        configuration: Arc<Configuration>,
        now: f64,
    ) -> GuestState {
        let store_limits = StoreLimitsBuilder::new()
            .memory_size(limits.memory_bytes_max)
            .table_elements(TABLE_ELEMENTS_MAX)
            .trap_on_grow_failure(true)
            .build();
        GuestState {
            plugin,
            limits: Bounded {
                limits: store_limits,
                bytes: 0,
            },
            configuration,
            args,
            now,
            job: None,
            target: None,
            tap: TapSlot::default(),
            sched: SchedSlot::default(),
            logs: Vec::new(),
            gate: LogGate::new(limits.log_rate),
            deadline: limits.deadline,
            started: None,
        }
    }

    /// Prepares for a call at `now`.
    pub(crate) fn begin(&mut self, now: f64) {
        self.now = now;
        self.started = None;
        if let Some(dropped) = self.gate.take_dropped(now) {
            let message = format!("{dropped} log messages dropped: too many in a second");
            self.logs.push(LogRecord {
                plugin: self.plugin.clone(),
                level: 4,
                message,
            });
        }
    }

    /// Decides at a tick whether the call may go on. What counts is the thread's CPU time, so that a busy machine does not end calls.
    pub(crate) fn on_tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        let cpu = thread_cpu_time();
        let started = *self.started.get_or_insert(cpu);
        if cpu.saturating_sub(started) >= self.deadline {
            return Err(DeadlineExceeded(self.deadline).into());
        }
        Ok(UpdateDeadline::Continue(1))
    }

    /// Takes a message of the guest for the broker's log.
    pub(crate) fn log(&mut self, level: u8, message: &str) {
        if self.gate.pass(self.now) {
            let message = cut_line(message, MESSAGE_BYTES_MAX);
            self.logs.push(LogRecord {
                plugin: self.plugin.clone(),
                level,
                message,
            });
        }
    }
}

impl fmt::Debug for GuestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestState")
            .field("plugin", &self.plugin)
            .finish_non_exhaustive()
    }
}

/// Returns the CPU time of this thread; zero when the kernel does not tell, and then no deadline is ever reached by it.
fn thread_cpu_time() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_or(Duration::ZERO, Duration::from)
}
