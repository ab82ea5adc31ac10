//! Which state is the broker in, and what event moves it on? A pure table (flux-core: broker/state_machine.c).
//!
//! ```text
//! load-builtins ─> join ─> config-sync ─> init ─> quorum ─> run ─> cleanup ─> shutdown ─> finalize
//!        │           └─fail─────┴──fail───┴─fail──┴─fail────┼───────────────────┘            │
//!        │                                                  (panic)                       goodbye
//!        └──────────────────────── builtins-fail ──────────> unload-builtins <───────────────┘
//!                                                                  └─> exit
//! ```

/// The states, with the integers of `state-machine.monitor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Starting what every broker has.
    LoadBuiltins = 0,
    /// Waiting for the parent.
    Join = 1,
    /// Taking the leader's configuration.
    ConfigSync = 2,
    /// Running rc1.
    Init = 3,
    /// Waiting for enough brokers.
    Quorum = 4,
    /// The initial program runs.
    Run = 5,
    /// Ending jobs.
    Cleanup = 6,
    /// Waiting for the children to leave.
    Shutdown = 7,
    /// Running rc3.
    Finalize = 8,
    /// Leaving the parent.
    Goodbye = 9,
    /// Stopping what every broker has.
    UnloadBuiltins = 10,
    /// Done.
    Exit = 11,
}

impl State {
    /// Returns the name in logs and answers.
    pub fn name(self) -> &'static str {
        match self {
            State::LoadBuiltins => "load-builtins",
            State::Join => "join",
            State::ConfigSync => "config-sync",
            State::Init => "init",
            State::Quorum => "quorum",
            State::Run => "run",
            State::Cleanup => "cleanup",
            State::Shutdown => "shutdown",
            State::Finalize => "finalize",
            State::Goodbye => "goodbye",
            State::UnloadBuiltins => "unload-builtins",
            State::Exit => "exit",
        }
    }
}

const RULES: &[(&str, State, State)] = &[
    ("builtins-success", State::LoadBuiltins, State::Join),
    ("builtins-fail", State::LoadBuiltins, State::UnloadBuiltins),
    ("parent-ready", State::Join, State::ConfigSync),
    ("parent-none", State::Join, State::ConfigSync),
    ("parent-fail", State::Join, State::Shutdown),
    ("sync-success", State::ConfigSync, State::Init),
    ("sync-none", State::ConfigSync, State::Init),
    ("sync-fail", State::ConfigSync, State::Shutdown),
    ("rc1-success", State::Init, State::Quorum),
    ("rc1-none", State::Init, State::Quorum),
    ("rc1-ignorefail", State::Init, State::Quorum),
    ("rc1-fail", State::Init, State::Shutdown),
    ("panic", State::Init, State::Shutdown),
    ("shutdown", State::Init, State::Shutdown),
    ("quorum-full", State::Quorum, State::Run),
    ("quorum-fail", State::Quorum, State::Shutdown),
    ("shutdown", State::Quorum, State::Shutdown),
    ("parent-fail", State::Quorum, State::Shutdown),
    ("panic", State::Quorum, State::Shutdown),
    ("rc2-success", State::Run, State::Cleanup),
    ("rc2-fail", State::Run, State::Cleanup),
    ("shutdown", State::Run, State::Cleanup),
    ("parent-fail", State::Run, State::Cleanup),
    ("panic", State::Run, State::Shutdown),
    ("rc2-none", State::Run, State::Run),
    ("cleanup-success", State::Cleanup, State::Shutdown),
    ("cleanup-none", State::Cleanup, State::Shutdown),
    ("cleanup-fail", State::Cleanup, State::Shutdown),
    ("children-complete", State::Shutdown, State::Finalize),
    ("children-none", State::Shutdown, State::Finalize),
    ("children-timeout", State::Shutdown, State::Finalize),
    ("rc3-success", State::Finalize, State::Goodbye),
    ("rc3-none", State::Finalize, State::Goodbye),
    ("rc3-fail", State::Finalize, State::Goodbye),
    ("goodbye", State::Goodbye, State::UnloadBuiltins),
    ("builtins-done", State::UnloadBuiltins, State::Exit),
    ("builtins-unload-fail", State::UnloadBuiltins, State::Exit),
];

/// Returns the state that `event` leads to, `None` when it means nothing in this state.
///
/// A shutdown while joining or syncing goes to `shutdown` like a failed parent does.
pub fn next(state: State, event: &str) -> Option<State> {
    let rule = RULES
        .iter()
        .find(|(name, from, _)| *name == event && *from == state);
    match rule {
        Some((_, _, to)) => Some(*to),
        None if event == "shutdown" && matches!(state, State::Join | State::ConfigSync) => {
            Some(State::Shutdown)
        }
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_life() {
        let events = [
            ("builtins-success", State::Join),
            ("parent-none", State::ConfigSync),
            ("sync-none", State::Init),
            ("rc1-success", State::Quorum),
            ("quorum-full", State::Run),
            ("rc2-success", State::Cleanup),
            ("cleanup-success", State::Shutdown),
            ("children-none", State::Finalize),
            ("rc3-success", State::Goodbye),
            ("goodbye", State::UnloadBuiltins),
            ("builtins-done", State::Exit),
        ];
        let mut state = State::LoadBuiltins;
        for (event, want) in events {
            state = next(state, event).unwrap();
            assert_eq!(state, want);
        }
    }

    #[test]
    fn every_rule_moves_forward_and_exit_is_reached_from_everywhere() {
        for (event, from, to) in RULES {
            assert!(
                to > from || (event, from, to) == (&"rc2-none", &State::Run, &State::Run),
                "{event}"
            );
        }
        for (_, start, _) in RULES {
            let mut seen = vec![*start];
            let mut at = 0;
            while at < seen.len() {
                let here = seen[at];
                let reached = RULES
                    .iter()
                    .filter(|(_, from, _)| *from == here)
                    .map(|(_, _, to)| *to);
                let fresh: Vec<State> = reached.filter(|to| !seen.contains(to)).collect();
                seen.extend(fresh);
                at += 1;
            }
            assert!(seen.contains(&State::Exit), "{start:?}");
        }
    }

    #[test]
    fn events_out_of_place_mean_nothing() {
        assert_eq!(next(State::Cleanup, "shutdown"), None);
        assert_eq!(next(State::Run, "rc1-success"), None);
        assert_eq!(next(State::Join, "shutdown"), Some(State::Shutdown));
    }
}
