//! Which calls go to one plugin alone, or to all without an order that matters?

use std::sync::Arc;

use wasmtime::Store;

use crate::guest::{GuestState, Refusal as Refused, TapFunctions};

use super::job::TapJob;
use super::message::{Effect, TapCall, Verdict};
use super::plugin::Called;
use super::stack::{Stack, failure, refusal, the_job};

impl Stack {
    /// Calls that have no order among plugins.
    pub(super) fn plain(
        &mut self,
        now: f64,
        job: &Arc<TapJob>,
        call: TapCall,
        only: Option<&str>,
        effects: &mut Vec<Effect>,
    ) -> Verdict {
        match call {
            TapCall::Destroy => {
                self.notify("destroy", "job.destroy", now, job, only, effects, |store, tap| {
                    Some(tap.destroy.as_ref()?.call(store, (the_job(),)))
                })
            }
            TapCall::Added => {
                self.notify(
                    "added",
                    "job.inactive-add",
                    now,
                    job,
                    only,
                    effects,
                    |store, tap| Some(tap.added.as_ref()?.call(store, (the_job(),))),
                );
            }
            TapCall::Removed => {
                let id = job.id;
                self.notify(
                    "removed",
                    "job.inactive-remove",
                    now,
                    job,
                    only,
                    effects,
                    |store, tap| Some(tap.removed.as_ref()?.call(store, (id,))),
                );
            }
            TapCall::Known { jobs } => {
                self.notify("known", "job.known", now, job, only, effects, |store, tap| {
                    Some(tap.known.as_ref()?.call(store, (jobs.clone(),)))
                });
            }
            TapCall::Expired { key } => {
                return self.one("expired", now, job, only, effects, |store, tap| {
                    Some(
                        tap.expired
                            .as_ref()?
                            .call(store, (key,))
                            .map(|()| Ok(Verdict::None)),
                    )
                });
            }
            TapCall::Exited {
                token,
                status,
                details,
            } => {
                let id = job.id;
                return self.one("exited", now, job, only, effects, |store, tap| {
                    let exited = tap.exited.as_ref()?;
                    Some(
                        exited
                            .call(store, (token, id, status, details))
                            .map(|()| Ok(Verdict::None)),
                    )
                });
            }
            TapCall::LookedUp { token, found } => {
                return self.one("looked-up", now, job, only, effects, |store, tap| {
                    let looked_up = tap.looked_up.as_ref()?;
                    let job = found.then(the_job);
                    Some(looked_up.call(store, (token, job)).map(|()| Ok(Verdict::None)))
                });
            }
            TapCall::Request {
                method,
                payload,
                userid,
                rolemask,
            } => {
                return self.one("request", now, job, only, effects, |store, tap| {
                    let request = tap.request.as_ref()?;
                    let answer = request.call(store, (method, payload, userid, rolemask));
                    Some(answer.map(|(answer,)| answer.map(Verdict::Response)))
                });
            }
            TapCall::Query => {
                return self.one("query", now, job, only, effects, |store, tap| {
                    let query = tap.query.as_ref()?;
                    Some(query.call(store, ()).map(|(text,)| Ok(Verdict::Response(text))))
                });
            }
            _ => {}
        }
        Verdict::None
    }

    /// Calls one plugin for an answer.
    fn one(
        &mut self,
        function: &'static str,
        now: f64,
        job: &Arc<TapJob>,
        only: Option<&str>,
        effects: &mut Vec<Effect>,
        run: impl FnOnce(
            &mut Store<GuestState>,
            &TapFunctions,
        ) -> Option<wasmtime::Result<Result<Verdict, Refused>>>,
    ) -> Verdict {
        let Some(index) = self.plugins.iter().position(|plugin| only == Some(&*plugin.name)) else {
            return Verdict::None;
        };
        let Some(plugin) = self.plugins.get_mut(index) else {
            return Verdict::None;
        };
        let called = plugin.call(function, now, job, None, effects, run);
        plugin.take_logs(&mut self.logs);
        match called {
            Called::Answer(Ok(verdict)) => verdict,
            Called::Answer(Err(refused)) => Verdict::Refused(refusal(plugin, refused)),
            Called::Absent => Verdict::None,
            Called::Failed(error) => {
                let refusal = failure(plugin, &error);
                self.report(index, job, &error);
                Verdict::Refused(refusal)
            }
        }
    }
}
