//! In which state is a job, and what does an event do to it? (RFC 21, one table.)
//!
//! ```text
//!                 validate        depend          priority          alloc         finish        clean
//!   submit ─> NEW ───────> DEPEND ──────> PRIORITY ───────> SCHED ───────> RUN ───────> CLEANUP ─────> INACTIVE
//!              │              │             │  ▲              │ │           │            ▲
//!   invalidate │              │             │  └──────────────┘ │           │            │
//!              ▼              │             │   urgency,        │           │            │
//!          (forgotten)        │             │   jobspec-update, │           │            │
//!                             │             │   flux-restart    │           │            │
//!                             └─────────────┴───────────────────┴───────────┴────────────┘
//!                                              exception, severity 0
//! ```
//!
//! Every other event leaves the state as it is.

/// State of a job; the value is its bit on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Submitted, not yet accepted.
    New = 1,
    /// Waits for dependencies.
    Depend = 2,
    /// Waits for a priority.
    Priority = 4,
    /// Waits for resources.
    Sched = 8,
    /// Has resources.
    Run = 16,
    /// Ended or failed; resources are given back.
    Cleanup = 32,
    /// Done.
    Inactive = 64,
}

/// Mask of RUN and CLEANUP (RFC 21 virtual state RUNNING).
pub const RUNNING: u32 = 48;
/// Mask of all states but INACTIVE that a client may name.
pub const ACTIVE: u32 = 62;

impl State {
    /// All states in order of a job's life.
    pub const ALL: [State; 7] = [
        State::New,
        State::Depend,
        State::Priority,
        State::Sched,
        State::Run,
        State::Cleanup,
        State::Inactive,
    ];

    /// Returns the bit of the wire.
    pub const fn bit(self) -> u32 {
        self as u32
    }

    /// Returns true in RUN and CLEANUP.
    pub const fn is_running(self) -> bool {
        self.bit() & RUNNING != 0
    }

    /// Returns the name of RFC 21.
    pub const fn name(self) -> &'static str {
        match self {
            State::New => "NEW",
            State::Depend => "DEPEND",
            State::Priority => "PRIORITY",
            State::Sched => "SCHED",
            State::Run => "RUN",
            State::Cleanup => "CLEANUP",
            State::Inactive => "INACTIVE",
        }
    }
}

/// What kind of event it is, as far as states are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `submit`
    Submit,
    /// `validate`
    Validate,
    /// `invalidate`
    Invalidate,
    /// `depend`
    Depend,
    /// `priority`
    Priority,
    /// `urgency`
    Urgency,
    /// `jobspec-update`
    JobspecUpdate,
    /// `flux-restart`
    FluxRestart,
    /// `alloc`
    Alloc,
    /// `finish`
    Finish,
    /// `free`
    Free,
    /// `clean`
    Clean,
    /// `exception` of severity 0
    Fatal,
    /// Any other event.
    Other,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 14] = [
        Kind::Submit,
        Kind::Validate,
        Kind::Invalidate,
        Kind::Depend,
        Kind::Priority,
        Kind::Urgency,
        Kind::JobspecUpdate,
        Kind::FluxRestart,
        Kind::Alloc,
        Kind::Finish,
        Kind::Free,
        Kind::Clean,
        Kind::Fatal,
        Kind::Other,
    ];
}

/// An event may not happen in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {kind:?} is not possible in state {}", .state.name())]
pub struct IllegalEvent {
    /// The job's state.
    pub state: State,
    /// The event.
    pub kind: Kind,
}

/// The transitions of RFC 21: (state, event, next state). A pair that is in neither table is illegal.
const TRANSITIONS: &[(State, Kind, State)] = &[
    (State::New, Kind::Submit, State::New),
    (State::New, Kind::Validate, State::Depend),
    (State::New, Kind::Invalidate, State::Inactive),
    (State::Depend, Kind::Depend, State::Priority),
    (State::Depend, Kind::Fatal, State::Cleanup),
    (State::Priority, Kind::Priority, State::Sched),
    (State::Priority, Kind::Fatal, State::Cleanup),
    (State::Sched, Kind::Priority, State::Sched),
    (State::Sched, Kind::Urgency, State::Priority),
    (State::Sched, Kind::JobspecUpdate, State::Priority),
    (State::Sched, Kind::FluxRestart, State::Priority),
    (State::Sched, Kind::Alloc, State::Run),
    (State::Sched, Kind::Fatal, State::Cleanup),
    (State::Run, Kind::Finish, State::Cleanup),
    (State::Run, Kind::Fatal, State::Cleanup),
    (State::Cleanup, Kind::Finish, State::Cleanup),
    (State::Cleanup, Kind::Fatal, State::Cleanup),
    (State::Cleanup, Kind::Free, State::Cleanup),
    (State::Cleanup, Kind::Clean, State::Inactive),
];

/// Events that change values of a job but not its state, and the states in which they may happen.
const STATELESS: &[(Kind, &[State])] = &[
    (
        Kind::Urgency,
        &[
            State::New,
            State::Depend,
            State::Priority,
            State::Run,
            State::Cleanup,
        ],
    ),
    (
        Kind::JobspecUpdate,
        &[
            State::New,
            State::Depend,
            State::Priority,
            State::Run,
            State::Cleanup,
        ],
    ),
    (
        Kind::FluxRestart,
        &[
            State::New,
            State::Depend,
            State::Priority,
            State::Run,
            State::Cleanup,
        ],
    ),
    (
        Kind::Other,
        &[
            State::New,
            State::Depend,
            State::Priority,
            State::Sched,
            State::Run,
            State::Cleanup,
        ],
    ),
];

/// Returns the state after an event.
///
/// # Errors
/// [`IllegalEvent`] when RFC 21 does not allow the event in this state; the job must not change then.
pub fn next(state: State, kind: Kind) -> Result<State, IllegalEvent> {
    let found = TRANSITIONS
        .iter()
        .find(|(from, event, _)| *from == state && *event == kind);
    if let Some((_, _, to)) = found {
        return Ok(*to);
    }
    let stays = STATELESS
        .iter()
        .any(|(event, states)| *event == kind && states.contains(&state));
    if stays {
        Ok(state)
    } else {
        Err(IllegalEvent { state, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The RFC's table written the other way round: for each state, every event and what it does.
    #[test]
    fn the_table_and_rfc_21_agree() {
        for state in State::ALL {
            for kind in Kind::ALL {
                let expected = match (state, kind) {
                    (State::Inactive, _) => None,
                    (_, Kind::Other) => Some(state),
                    (State::New, Kind::Submit) => Some(State::New),
                    (State::New, Kind::Validate) => Some(State::Depend),
                    (State::New, Kind::Invalidate) => Some(State::Inactive),
                    (State::Depend, Kind::Depend) => Some(State::Priority),
                    (State::Priority | State::Sched, Kind::Priority) => Some(State::Sched),
                    (State::Sched, Kind::Urgency | Kind::JobspecUpdate | Kind::FluxRestart) => {
                        Some(State::Priority)
                    }
                    (_, Kind::Urgency | Kind::JobspecUpdate | Kind::FluxRestart) => Some(state),
                    (State::Sched, Kind::Alloc) => Some(State::Run),
                    (State::Run | State::Cleanup, Kind::Finish) => Some(State::Cleanup),
                    // RFC 21: "a severity 0 exception … the job transitions to CLEANUP"; never in NEW
                    (State::New, Kind::Fatal) => None,
                    (_, Kind::Fatal) => Some(State::Cleanup),
                    (State::Cleanup, Kind::Free) => Some(State::Cleanup),
                    (State::Cleanup, Kind::Clean) => Some(State::Inactive),
                    _ => None,
                };
                assert_eq!(next(state, kind).ok(), expected, "{state:?} {kind:?}");
            }
        }
    }

    #[test]
    fn no_duplicate_rows_and_masks() {
        for (index, (from, kind, _)) in TRANSITIONS.iter().enumerate() {
            assert!(
                !TRANSITIONS
                    .iter()
                    .skip(index + 1)
                    .any(|(f, k, _)| f == from && k == kind)
            );
        }
        assert_eq!(RUNNING, State::Run.bit() | State::Cleanup.bit());
        let active: u32 = State::ALL.iter().map(|s| s.bit()).sum();
        assert_eq!(ACTIVE, active - State::New.bit() - State::Inactive.bit());
        assert!(
            next(State::Run, Kind::Alloc)
                .unwrap_err()
                .to_string()
                .contains("RUN")
        );
    }
}
