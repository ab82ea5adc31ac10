//! How is what a plugin says written in one line? As the SDK's stand-in for the broker writes it.

use flux_policy::{Action, Priority, Verdict};

/// Returns a wish as a line; none for what changes nothing that others see.
pub(super) fn of_action(action: &Action) -> Option<String> {
    Some(match action {
        Action::DependencyAdd { job, description } => format!("dependency-add {job} {description}"),
        Action::DependencyRemove { job, description } => format!("dependency-remove {job} {description}"),
        Action::Prioritize { job, priority } => format!("prioritize {job} {priority}"),
        Action::Reprioritize { job } => format!("reprioritize {job}"),
        Action::ReprioritizeAll => "reprioritize-all".to_owned(),
        Action::Annotate { job, annotations } => format!("annotate {job} {annotations}"),
        Action::Raise {
            job,
            kind,
            severity,
            note,
        } => format!("raise {job} {kind} {severity} {note}"),
        Action::SetFlag { job, flag } => format!("set-flag {job} {flag}"),
        Action::Post { job, name, context } => format!("post {job} {name} {context}").trim_end().to_owned(),
        Action::UpdateJobspec { job, updates } => format!("update-jobspec {job} {updates}"),
        Action::Subscribe { job } => format!("subscribe {job}"),
        Action::Unsubscribe { job } => format!("unsubscribe {job}"),
        Action::PrologStart { job, description } => format!("prolog-start {job} {description}"),
        Action::PrologFinish {
            job,
            description,
            status,
        } => format!("prolog-finish {job} {description} {status}"),
        Action::EpilogStart { job, description } => format!("epilog-start {job} {description}"),
        Action::EpilogFinish {
            job,
            description,
            status,
        } => format!("epilog-finish {job} {description} {status}"),
        Action::LookUp { job, .. } => format!("look-up {job}"),
        Action::SetTimer { key, at } => format!("timer {key} {at}"),
        Action::CancelTimer { key } => format!("timer-cancel {key}"),
        Action::Spawn { job, command, .. } => format!("spawn {job} {}", command.join(" ")),
        Action::Kill { token, signum } => format!("kill {token} {signum}"),
        Action::SetResources { job, r } => format!("set-resources {job} {r}"),
        Action::SaveState { .. } => return None,
    })
}

/// Returns an answer as lines.
pub(super) fn of_verdict(id: u64, verdict: &Verdict) -> Vec<String> {
    let priority = |priority: &Priority| match priority {
        Priority::Pass => Vec::new(),
        Priority::Unavailable => vec![format!("priority {id} unavailable")],
        Priority::Value(value) => vec![format!("priority {id} {value}")],
    };
    match verdict {
        Verdict::None => Vec::new(),
        Verdict::Admitted(admitted) => admitted.priority.as_ref().map_or_else(Vec::new, priority),
        Verdict::Priority(said) => priority(said),
        Verdict::Refused(refusal) => vec![format!("refused {}: {}", refusal.errnum, refusal.text)],
        Verdict::Updated { updates, validated } => {
            let mut lines: Vec<String> = updates.iter().map(|text| format!("updates {text}")).collect();
            lines.extend(validated.then(|| "validated".to_owned()));
            lines
        }
        Verdict::Response(text) => vec![format!("response {text}").trim_end().to_owned()],
    }
}
