//! How does the loop wake up in time? The runtime's timers count whole milliseconds and round up, so that one of a
//! millisecond takes two; what is due soon is waited for with a timer of the kernel.

use crate::sys::async_fd::register;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Deadlines farther away than this are left to the runtime: a millisecond more does not matter, and costs no
/// system call.
const NEAR: Duration = Duration::from_millis(20);

/// The kernel's timer as something that is waited for.
struct Clock(TimerFd);

impl AsFd for Clock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Clock {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl From<Clock> for OwnedFd {
    fn from(clock: Clock) -> Self {
        clock.0.into()
    }
}

/// Wakes the loop up at a deadline.
#[derive(Default)]
pub(super) struct Alarm {
    /// `None` until it is needed, and where there is none.
    clock: Option<AsyncFd<Clock>>,
    armed: Option<Instant>,
}

impl Alarm {
    /// Waits until the deadline.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn wait_until(&mut self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left > NEAR || !self.arm(deadline, left) {
            tokio::time::sleep_until(deadline.into()).await;
            return;
        }
        let Some(clock) = &self.clock else { return };
        // an error cannot come from this descriptor; going on means to look at the timers once more
        if let Ok(mut ready) = clock.readable().await {
            ready.clear_ready();
        }
        self.armed = None;
    }

    /// Sets the kernel's timer; returns false when there is none.
    fn arm(&mut self, deadline: Instant, left: Duration) -> bool {
        if self.armed == Some(deadline) {
            return true;
        }
        if self.clock.is_none() {
            let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
            let clock = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(std::io::Error::from);
            self.clock = clock
                .and_then(|clock| register(Clock(clock), Interest::READABLE))
                .ok();
        }
        let Some(clock) = &self.clock else { return false };
        // zero would disarm it
        let left = TimeSpec::from_duration(left.max(Duration::from_nanos(1)));
        let set = clock
            .get_ref()
            .0
            .set(Expiration::OneShot(left), TimerSetTimeFlags::empty());
        self.armed = set.is_ok().then_some(deadline);
        set.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits are never too short, and on a machine that has time for us short ones are not twice as long.
    #[test]
    fn short_waits_are_exact() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut alarm = Alarm::default();
            let mut best = Duration::MAX;
            for _ in 0..200 {
                let start = Instant::now();
                alarm.wait_until(start + Duration::from_millis(1)).await;
                // readiness left over from a cancelled wait may end one early: the loop looks at its timers
                best = best.min(start.elapsed().max(Duration::from_millis(1)));
            }
            assert!(best < Duration::from_micros(1500), "{best:?}");
            let start = Instant::now();
            alarm.wait_until(start + Duration::from_millis(30)).await;
            assert!(start.elapsed() >= Duration::from_millis(30));
            let past = start.checked_sub(Duration::from_millis(5)).unwrap_or(start);
            alarm.wait_until(past).await;
        });
    }

    /// A wait that is given up for something else does not stop the next one.
    #[test]
    fn waits_can_be_given_up() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut alarm = Alarm::default();
            for _ in 0..20 {
                let start = Instant::now();
                tokio::select! {
                    biased;
                    () = tokio::task::yield_now() => {}
                    () = alarm.wait_until(start + Duration::from_millis(2)) => {}
                }
                while start.elapsed() < Duration::from_millis(2) {
                    alarm.wait_until(start + Duration::from_millis(2)).await;
                }
                assert!(start.elapsed() < Duration::from_secs(5));
            }
        });
    }
}
