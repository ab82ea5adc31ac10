//! Which engine runs all guests, and who moves its clock?

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use wasmtime::Engine;

use crate::engine;
use crate::error::PolicyError;

/// How often a running guest is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// After so many ticks without a call the ticker sleeps until the next.
const IDLE_TICKS_MAX: u32 = 2;

/// The engine of this process with its ticker.
pub(crate) struct Runtime {
    pub(crate) engine: Engine,
    /// Calls begun and ended so far; odd differences mean that one runs.
    begun: AtomicU64,
    ended: AtomicU64,
    asleep: Mutex<bool>,
    rouse: Condvar,
}

impl Runtime {
    /// Returns the runtime, made on first use.
    pub(crate) fn get() -> Result<&'static Runtime, PolicyError> {
        static RUNTIME: OnceLock<Runtime> = OnceLock::new();
        static MAKING: Mutex<()> = Mutex::new(());
        if let Some(runtime) = RUNTIME.get() {
            return Ok(runtime);
        }
        let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = RUNTIME.get() {
            return Ok(runtime);
        }
        let engine = Engine::new(&engine::config()).map_err(PolicyError::Engine)?;
        let runtime = RUNTIME.get_or_init(|| Runtime {
            engine,
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            asleep: Mutex::new(false),
            rouse: Condvar::new(),
        });
        let builder = thread::Builder::new().name("flux-policy-clk".to_owned());
        // lives as long as the process, asleep while no guest runs
        drop(builder.spawn(|| runtime.tick()).map_err(PolicyError::Thread)?);
        Ok(runtime)
    }

    /// Says that a guest starts to run; the ticker runs until the value is dropped.
    pub(crate) fn running(&'static self) -> Running {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let mut asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut *asleep) {
            self.rouse.notify_one();
        }
        Running(self)
    }

    /// Moves the epoch each tick while a guest runs or ran just now.
    fn tick(&self) {
        let mut seen = 0;
        let mut idle_ticks = 0;
        let mut asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let begun = self.begun.load(Ordering::SeqCst);
            let running = begun != self.ended.load(Ordering::SeqCst);
            idle_ticks = if running || begun != seen {
                0
            } else {
                idle_ticks + 1
            };
            seen = begun;
            if idle_ticks >= IDLE_TICKS_MAX {
                *asleep = true;
                asleep = self
                    .rouse
                    .wait_while(asleep, |asleep| *asleep)
                    .unwrap_or_else(PoisonError::into_inner);
                idle_ticks = 0;
            }
            asleep = self
                .rouse
                .wait_timeout(asleep, TICK)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            self.engine.increment_epoch();
        }
    }
}

/// Held while a guest runs.
pub(crate) struct Running(&'static Runtime);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}
