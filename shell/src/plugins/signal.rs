//! Which signals reach the tasks: those sent to the shell, `flux job kill`, and the warning before the job's end?

use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flux_process::Signal;
use flux_process::signal::SignalFd;
use serde::Deserialize;

use crate::ctx::Ctx;
use crate::log::log;
use crate::options::OptionError;

/// Signals to the shell that go on to its tasks. The shell itself leaves when they have ended.
const FORWARDED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGALRM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];
/// Warning signal when the option names none.
const SIGNUM_DEFAULT: Signal = Signal::SIGUSR1;
/// Time before the end when the option names none.
const TIMELEFT_DEFAULT: Duration = Duration::from_secs(60);

/// Opens the descriptor that receives the forwarded signals.
///
/// # Errors
/// Those of `signalfd(2)`.
pub(crate) fn receive() -> io::Result<SignalFd> {
    SignalFd::new(&FORWARDED)
}

/// Returns the signal that a `shell-ID.kill` event asks for.
pub(crate) fn of_kill_event(event: &flux_client::Message) -> Option<Signal> {
    #[derive(Deserialize)]
    struct Kill {
        signum: i32,
    }
    event
        .payload_json::<Kill>()
        .ok()
        .and_then(|kill| Signal::new(kill.signum))
}

/// The warning before the end of the allocation (`--signal=SIG@TIME`).
#[derive(Debug)]
pub(crate) struct Warning {
    signal: Signal,
    timeleft: Duration,
    deadline: Option<Instant>,
}

impl Warning {
    /// Reads the option; `None` when it is not set.
    ///
    /// # Errors
    /// [`OptionError`].
    pub(crate) fn new(ctx: &mut Ctx) -> Result<Option<Self>, OptionError> {
        let options = &ctx.info.options;
        if options.get("signal").is_none() {
            return Ok(None);
        }
        let signal = match options.number("signal.signum") {
            Ok(None) => SIGNUM_DEFAULT,
            Ok(Some(number)) => {
                let signal = i32::try_from(number).ok().and_then(Signal::new);
                signal.ok_or(OptionError {
                    name: "signal.signum".to_owned(),
                    value: number.to_string(),
                })?
            }
            Err(error) => return Err(error),
        };
        let timeleft = options
            .duration("signal.timeleft")?
            .flatten()
            .unwrap_or(TIMELEFT_DEFAULT);
        let mut warning = Warning {
            signal,
            timeleft,
            deadline: None,
        };
        warning.set_expiration(ctx, ctx.info.expiration);
        Ok(Some(warning))
    }

    /// Takes a (new) end of the allocation, in seconds since the epoch; 0 means never.
    pub(crate) fn set_expiration(&mut self, ctx: &mut Ctx, expiration: f64) {
        self.deadline = None;
        if expiration <= 0.0 {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let left = Duration::try_from_secs_f64(expiration)
            .unwrap_or(Duration::MAX)
            .saturating_sub(now);
        let wait = left.saturating_sub(self.timeleft);
        self.deadline = Instant::now().checked_add(wait);
        let name = self.name();
        log!(
            ctx,
            Debug,
            "signal",
            "Will send {name} to job in {}",
            flux_formats::fsd::Fsd::from(wait)
        );
    }

    fn name(&self) -> String {
        self.signal
            .name()
            .map_or_else(|| self.signal.number().to_string(), str::to_owned)
    }

    /// Returns when the warning is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns the signal once when it is due, and says so in the job's output.
    pub(crate) fn expire(&mut self, ctx: &mut Ctx, now: Instant) -> Option<Signal> {
        self.deadline.take_if(|deadline| *deadline <= now)?;
        let (name, left) = (self.name(), self.timeleft.as_secs_f64());
        log!(
            ctx,
            Notice,
            "signal",
            "job will expire in {left:.1}s, sending {name} to job"
        );
        Some(self.signal)
    }
}
