//! In which state can a job be, and how did it end? (RFC 21 states, results, exceptions.)

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name or number that is no state or result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobStateError {
    /// Not a state.
    #[error("unknown job state")]
    State,
    /// Not a result.
    #[error("unknown job result")]
    Result,
}

/// A job state; its number is one bit, as services and filters use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum JobState {
    /// Just submitted; validation pending.
    New = 1,
    /// Waits for dependencies.
    Depend = 2,
    /// Waits for a priority.
    Priority = 4,
    /// Waits for resources.
    Sched = 8,
    /// Holds resources and starts or runs.
    Run = 16,
    /// Ends; its resources are being released.
    Cleanup = 32,
    /// Is history.
    Inactive = 64,
}

impl JobState {
    /// DEPEND, PRIORITY or SCHED.
    pub const PENDING: u32 = 2 | 4 | 8;
    /// RUN or CLEANUP.
    pub const RUNNING: u32 = 16 | 32;
    /// PENDING or RUNNING.
    pub const ACTIVE: u32 = JobState::PENDING | JobState::RUNNING;

    /// All states in the order of a job's life.
    pub const ALL: [JobState; 7] = [
        JobState::New,
        JobState::Depend,
        JobState::Priority,
        JobState::Sched,
        JobState::Run,
        JobState::Cleanup,
        JobState::Inactive,
    ];

    /// Returns the bit.
    pub const fn bit(self) -> u32 {
        match self {
            JobState::New => 1,
            JobState::Depend => 2,
            JobState::Priority => 4,
            JobState::Sched => 8,
            JobState::Run => 16,
            JobState::Cleanup => 32,
            JobState::Inactive => 64,
        }
    }

    /// Returns the state with exactly this bit.
    pub fn from_bit(bit: u32) -> Option<Self> {
        JobState::ALL.into_iter().find(|state| state.bit() == bit)
    }

    /// Returns true when the state's bit is in `mask`.
    pub const fn in_mask(self, mask: u32) -> bool {
        self.bit() & mask != 0
    }

    /// Returns the name in capitals.
    pub const fn name(self) -> &'static str {
        match self {
            JobState::New => "NEW",
            JobState::Depend => "DEPEND",
            JobState::Priority => "PRIORITY",
            JobState::Sched => "SCHED",
            JobState::Run => "RUN",
            JobState::Cleanup => "CLEANUP",
            JobState::Inactive => "INACTIVE",
        }
    }

    /// Returns the letter that tables show.
    pub const fn letter(self) -> char {
        match self {
            JobState::New => 'N',
            JobState::Depend => 'D',
            JobState::Priority => 'P',
            JobState::Sched => 'S',
            JobState::Run => 'R',
            JobState::Cleanup => 'C',
            JobState::Inactive => 'I',
        }
    }

    /// Returns the bits that a state or virtual state of this name stands for, in any case:
    /// name, letter, `pending` (`PD`), `running` (`RU`) or `active` (`A`).
    pub fn mask_from_name(name: &str) -> Option<u32> {
        let upper = name.to_ascii_uppercase();
        match upper.as_str() {
            "PENDING" | "PD" => Some(JobState::PENDING),
            "RUNNING" | "RU" => Some(JobState::RUNNING),
            "ACTIVE" | "A" => Some(JobState::ACTIVE),
            _ => upper.parse().ok().map(JobState::bit),
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for JobState {
    type Err = JobStateError;
    /// Parses a name or letter in any case.
    fn from_str(name: &str) -> Result<Self, JobStateError> {
        let mut letters = name.chars();
        let letter = letters
            .next()
            .filter(|_| letters.next().is_none())
            .map(|c| c.to_ascii_uppercase());
        JobState::ALL
            .into_iter()
            .find(|state| state.name().eq_ignore_ascii_case(name) || Some(state.letter()) == letter)
            .ok_or(JobStateError::State)
    }
}

/// How a job ended; its number is one bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum JobResult {
    /// Ran, and every task exited with 0.
    Completed = 1,
    /// Did not run, or failed.
    Failed = 2,
    /// A `cancel` exception ended it.
    Canceled = 4,
    /// A `timeout` exception ended it.
    Timeout = 8,
}

impl JobResult {
    /// All results.
    pub const ALL: [JobResult; 4] = [
        JobResult::Completed,
        JobResult::Failed,
        JobResult::Canceled,
        JobResult::Timeout,
    ];

    /// Returns the bit.
    pub const fn bit(self) -> u32 {
        match self {
            JobResult::Completed => 1,
            JobResult::Failed => 2,
            JobResult::Canceled => 4,
            JobResult::Timeout => 8,
        }
    }

    /// Returns the result with exactly this bit.
    pub fn from_bit(bit: u32) -> Option<Self> {
        JobResult::ALL.into_iter().find(|result| result.bit() == bit)
    }

    /// Returns the name in capitals.
    pub const fn name(self) -> &'static str {
        match self {
            JobResult::Completed => "COMPLETED",
            JobResult::Failed => "FAILED",
            JobResult::Canceled => "CANCELED",
            JobResult::Timeout => "TIMEOUT",
        }
    }

    /// Returns the abbreviation that tables show.
    pub const fn abbreviation(self) -> &'static str {
        match self {
            JobResult::Completed => "CD",
            JobResult::Failed => "F",
            JobResult::Canceled => "CA",
            JobResult::Timeout => "TO",
        }
    }

    /// Returns how a job ended.
    ///
    /// `wait_status` is that of the `finish` event, `None` for a job that never started; `exception` is the type
    /// of its first fatal exception (severity 0).
    pub fn of(wait_status: Option<i32>, exception: Option<&str>) -> Self {
        match (exception, wait_status) {
            (Some("cancel"), status) if status != Some(0) => JobResult::Canceled,
            (Some("timeout"), status) if status != Some(0) => JobResult::Timeout,
            (_, Some(0)) => JobResult::Completed,
            _ => JobResult::Failed,
        }
    }
}

impl fmt::Display for JobResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for JobResult {
    type Err = JobStateError;
    /// Parses a name or abbreviation in any case.
    fn from_str(name: &str) -> Result<Self, JobStateError> {
        JobResult::ALL
            .into_iter()
            .find(|r| r.name().eq_ignore_ascii_case(name) || r.abbreviation().eq_ignore_ascii_case(name))
            .ok_or(JobStateError::Result)
    }
}

/// Converts a wait status to the exit code that tools report: the exit code, or 128 + signal.
pub const fn exit_code(wait_status: i32) -> i32 {
    let signal = wait_status & 0x7f;
    if signal == 0 {
        (wait_status >> 8) & 0xff
    } else {
        128 + signal
    }
}

/// Highest severity number, the least severe.
pub const SEVERITY_MAX: u8 = 7;

/// The context of an `exception` event (RFC 21).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// Type, e.g. `cancel`, `timeout`, `exec`, `alloc`; no white space.
    #[serde(rename = "type")]
    pub kind: String,
    /// 0 is fatal, 7 a hint.
    pub severity: u8,
    /// Text for people, "" without.
    #[serde(default)]
    pub note: String,
    /// User who raised it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub userid: Option<u32>,
    /// Wait status that the failed job shall report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_status: Option<i32>,
}

/// Why an exception cannot be raised; the texts are those of flux-core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExceptionError {
    /// Severity above 7.
    #[error("invalid exception severity")]
    Severity,
    /// The type is empty or holds white space.
    #[error("invalid exception type")]
    Kind,
}

impl Exception {
    /// Checks what a user asked to raise.
    ///
    /// # Errors
    /// Any [`ExceptionError`].
    pub fn check(severity: i64, kind: &str) -> Result<u8, ExceptionError> {
        let severity = u8::try_from(severity)
            .ok()
            .filter(|&s| s <= SEVERITY_MAX)
            .ok_or(ExceptionError::Severity)?;
        if kind.is_empty() || kind.contains(char::is_whitespace) {
            return Err(ExceptionError::Kind);
        }
        Ok(severity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_rfc_21() {
        let bits: Vec<u32> = JobState::ALL.into_iter().map(JobState::bit).collect();
        assert_eq!(bits, [1, 2, 4, 8, 16, 32, 64]);
        assert_eq!(
            (JobState::PENDING, JobState::RUNNING, JobState::ACTIVE),
            (14, 48, 62)
        );
        for state in JobState::ALL {
            assert_eq!(JobState::from_bit(state.bit()), Some(state));
            assert_eq!(state.name().to_lowercase().parse(), Ok(state));
            assert_eq!(state.letter().to_string().parse(), Ok(state));
            assert_eq!(state.bit(), state as u32);
        }
        assert_eq!(JobState::mask_from_name("pending"), Some(14));
        assert_eq!(JobState::mask_from_name("a"), Some(62));
        assert_eq!(JobState::mask_from_name("run"), Some(16));
        assert_eq!(JobState::mask_from_name("x"), None);
        assert_eq!(JobState::from_bit(3), None);
        for result in JobResult::ALL {
            assert_eq!(JobResult::from_bit(result.bit()), Some(result));
            assert_eq!(result.abbreviation().parse(), Ok(result));
            assert_eq!(result.bit(), result as u32);
        }
    }

    #[test]
    fn results() {
        assert_eq!(JobResult::of(Some(0), None), JobResult::Completed);
        assert_eq!(JobResult::of(Some(256), None), JobResult::Failed);
        assert_eq!(JobResult::of(None, Some("cancel")), JobResult::Canceled);
        assert_eq!(JobResult::of(Some(15), Some("timeout")), JobResult::Timeout);
        assert_eq!(JobResult::of(Some(0), Some("exec")), JobResult::Completed);
        assert_eq!(JobResult::of(None, Some("alloc")), JobResult::Failed);
        assert_eq!(
            (exit_code(0), exit_code(0x7f00), exit_code(15), exit_code(0x8b)),
            (0, 127, 143, 139)
        );
    }

    #[test]
    fn exceptions() {
        assert_eq!(Exception::check(7, "cancel"), Ok(7));
        assert_eq!(Exception::check(8, "cancel"), Err(ExceptionError::Severity));
        assert_eq!(Exception::check(-1, "cancel"), Err(ExceptionError::Severity));
        assert_eq!(Exception::check(0, "a b"), Err(ExceptionError::Kind));
        let json = r#"{"type":"cancel","severity":0,"note":"","userid":0}"#;
        let exception: Exception = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&exception).unwrap(), json);
    }
}
