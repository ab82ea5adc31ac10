//! How does a job pass all plugins at its submission, at a replay, and when it is changed?

use std::sync::Arc;

use flux_formats::errno::EINVAL;

use crate::host::Refusal;

use super::job::TapJob;
use super::message::{Action, Admitted, Dependency, Effect};
use super::plugin::Called;
use super::stack::{Stack, failure, other_job, refusal, the_job};

/// State bits.
const DEPEND: u32 = 2;
const PRIORITY: u32 = 4;
/// Urgencies that decide the priority alone.
const FIXED_URGENCIES: [u32; 2] = [0, 31];
/// Grants the owner's role.
const VALIDATED: &str = "validated";
const UPDATES: &str = "updates";

impl Stack {
    /// Create, validate, dependencies, new; then on as far as nothing holds the job.
    pub(super) fn admit(
        &mut self,
        now: f64,
        job: &Arc<TapJob>,
        dependencies: &[Dependency],
        effects: &mut Vec<Effect>,
    ) -> Result<Admitted, Refusal> {
        let admitted = self.admit_early(now, job, dependencies, effects);
        if admitted.is_err() {
            let mut ignored = Vec::new();
            self.notify(
                "destroy",
                "job.destroy",
                now,
                job,
                None,
                &mut ignored,
                |store, tap| Some(tap.destroy.as_ref()?.call(store, (the_job(),))),
            );
        }
        admitted?;
        let early = effects.len();
        let mut states = 0;
        let mut priority = None;
        if effects.iter().all(is_harmless) {
            states |= DEPEND;
            self.state(now, &with_state(job, DEPEND), DEPEND, None, effects);
        }
        if states != 0 && effects.iter().all(is_harmless) {
            states |= PRIORITY;
            let job = with_state(job, PRIORITY);
            self.state(now, &job, PRIORITY, None, effects);
            if effects.iter().all(is_harmless) && !FIXED_URGENCIES.contains(&job.urgency) {
                priority = Some(self.priority(now, &job, effects));
            }
        }
        Ok(Admitted {
            states,
            priority,
            early,
        })
    }

    fn admit_early(
        &mut self,
        now: f64,
        job: &Arc<TapJob>,
        dependencies: &[Dependency],
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        self.ask(
            "create",
            "job.create",
            now,
            job,
            None,
            None,
            effects,
            |store, tap| Some(tap.create.as_ref()?.call(store, (the_job(), false))),
        )?;
        self.ask(
            "validate",
            "job.validate",
            now,
            job,
            None,
            None,
            effects,
            |store, tap| Some(tap.validate.as_ref()?.call(store, (the_job(),))),
        )?;
        for dependency in dependencies {
            if !self.dependency(now, job, dependency, None, false, effects)? {
                return Err(Refusal {
                    plugin: Arc::from("job-manager"),
                    errnum: EINVAL,
                    text: format!("dependency scheme \"{}\" not supported", dependency.scheme),
                });
            }
        }
        self.notify("new-job", "job.new", now, job, None, effects, |store, tap| {
            Some(tap.new_job.as_ref()?.call(store, (the_job(), false)))
        });
        Ok(())
    }

    /// `job.dependency.SCHEME`; returns false when no plugin wants the scheme.
    fn dependency(
        &mut self,
        now: f64,
        job: &Arc<TapJob>,
        dependency: &Dependency,
        only: Option<&str>,
        replay: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<bool, Refusal> {
        let topic = format!("job.dependency.{}", dependency.scheme);
        let target = dependency.target.as_ref();
        self.ask(
            "dependency",
            &topic,
            now,
            job,
            target,
            only,
            effects,
            |store, tap| {
                let function = tap.dependency.as_ref()?;
                let scheme = dependency.scheme.clone();
                let other = target.map(|_| other_job());
                Some(function.call(
                    store,
                    (the_job(), scheme, dependency.entry.clone(), other, replay),
                ))
            },
        )
    }

    /// Tells an active job again: to a plugin that is new, or whose instance is.
    pub(super) fn replay(
        &mut self,
        now: f64,
        job: &Arc<TapJob>,
        dependencies: &[Dependency],
        only: Option<&str>,
        effects: &mut Vec<Effect>,
    ) {
        // what would be a refusal at submission changes nothing for a job that is there
        let _ignored = self.ask(
            "create",
            "job.create",
            now,
            job,
            None,
            only,
            effects,
            |store, tap| Some(tap.create.as_ref()?.call(store, (the_job(), true))),
        );
        self.notify("new-job", "job.new", now, job, only, effects, |store, tap| {
            Some(tap.new_job.as_ref()?.call(store, (the_job(), true)))
        });
        if job.state != DEPEND {
            return;
        }
        for dependency in dependencies {
            let said = self.dependency(now, job, dependency, only, true, effects);
            let problem = match said {
                Ok(known) if known || only.is_some() => continue,
                Ok(_) => format!("dependency scheme \"{}\" not supported", dependency.scheme),
                Err(refusal) => refusal.text,
            };
            effects.push(Effect {
                plugin: Arc::from("job-manager"),
                action: Action::Raise {
                    job: job.id,
                    kind: "dependency".to_owned(),
                    severity: 4,
                    note: format!("{problem} (job may be stuck in DEPEND state)"),
                },
            });
        }
        self.state(now, job, DEPEND, only, effects);
    }

    /// `job.update.KEY` for each key, then `job.validate` unless plugins declared all of them valid. Returns further changes, and whether they did.
    pub(super) fn update(
        &mut self,
        now: f64,
        job: &Arc<TapJob>,
        updates: &[(String, String)],
        updated: Arc<str>,
        who: (u32, u32),
        effects: &mut Vec<Effect>,
    ) -> Result<(Vec<String>, bool), Refusal> {
        let mut further = Vec::new();
        let mut all_valid = true;
        for (key, value) in updates {
            let (mut known, mut valid) = (false, false);
            for (name, text) in self.update_key(now, job, (key, value), who, effects, &mut known)? {
                match name.as_str() {
                    VALIDATED => valid |= text == "true",
                    UPDATES => further.push(text),
                    _ => {}
                }
            }
            if !known {
                return Err(Refusal {
                    plugin: Arc::from("job-manager"),
                    errnum: EINVAL,
                    text: format!("update of {key} not supported"),
                });
            }
            all_valid &= valid;
        }
        if !all_valid {
            let changed = Arc::new(TapJob {
                jobspec: updated,
                ..(**job).clone()
            });
            self.ask(
                "validate",
                "job.validate",
                now,
                &changed,
                None,
                None,
                effects,
                |store, tap| Some(tap.validate.as_ref()?.call(store, (the_job(),))),
            )?;
        }
        Ok((further, all_valid))
    }

    fn update_key(
        &mut self,
        now: f64,
        job: &Arc<TapJob>,
        (key, value): (&str, &str),
        (userid, rolemask): (u32, u32),
        effects: &mut Vec<Effect>,
        known: &mut bool,
    ) -> Result<Vec<(String, String)>, Refusal> {
        let topic = format!("job.update.{key}");
        let mut said = Vec::new();
        for index in 0..self.plugins.len() {
            let Some(plugin) = self.plugins.get_mut(index) else {
                continue;
            };
            if !plugin.wants(&topic, &job.jobspec) {
                continue;
            }
            *known = true;
            let called = plugin.call("update", now, job, None, effects, |store, tap| {
                let update = tap.update.as_ref()?;
                Some(update.call(
                    store,
                    (the_job(), key.to_owned(), value.to_owned(), userid, rolemask),
                ))
            });
            plugin.take_logs(&mut self.logs);
            match called {
                Called::Answer((Ok(answer),)) => said.extend(answer),
                Called::Answer((Err(refused),)) => return Err(refusal(plugin, refused)),
                Called::Absent => {}
                Called::Failed(error) => {
                    let refusal = failure(plugin, &error);
                    self.report(index, job, &error);
                    return Err(refusal);
                }
            }
        }
        Ok(said)
    }
}

/// Returns true for what leaves a new job on its way to SCHED as it is.
fn is_harmless(effect: &Effect) -> bool {
    matches!(
        effect.action,
        Action::Annotate { .. }
            | Action::Subscribe { .. }
            | Action::SetTimer { .. }
            | Action::CancelTimer { .. }
            | Action::SaveState { .. }
            | Action::LookUp { .. }
    )
}

fn with_state(job: &Arc<TapJob>, state: u32) -> Arc<TapJob> {
    Arc::new(TapJob {
        state,
        ..(**job).clone()
    })
}
