//! Does a submission pass, and with which jobspec?

use std::sync::Arc;

use flux_formats::errno::EIO;
use wasmtime::Store;
use wasmtime::component::Resource;

use crate::error::PolicyError;
use crate::guest::{self, Function, Functions, Guest, GuestState};
use crate::plugin::OnFailure;
use crate::tap::TapJob;

use super::message::{Accepted, IngestJob, Refusal};
use super::room::Room;
use super::thread::one_line;

/// Runs all frobnicators, each on the result of the one before, then all validators.
pub(super) fn run(room: &mut Room, now: f64, job: &IngestJob) -> Result<Accepted, Refusal> {
    let mut jobspec = job.jobspec.clone();
    for index in 0..room.frobnicators.len() {
        let Some(guest) = room.frobnicators.get_mut(index) else {
            continue;
        };
        let result = frobnicate(guest, now, view(job, &jobspec));
        if let Some(Some(changed)) = settle(room, index, false, result)? {
            jobspec = Arc::from(changed);
        }
    }
    let validators = if job.novalidate { 0 } else { room.validators.len() };
    for index in 0..validators {
        let Some(guest) = room.validators.get_mut(index) else {
            continue;
        };
        let result = validate(guest, now, view(job, &jobspec));
        settle(room, index, true, result)?;
    }
    let changed = !Arc::ptr_eq(&jobspec, &job.jobspec);
    Ok(Accepted { jobspec, changed })
}

fn view(job: &IngestJob, jobspec: &Arc<str>) -> guest::Job {
    guest::Job {
        rolemask: job.rolemask,
        job: Arc::new(TapJob {
            userid: job.userid,
            urgency: job.urgency,
            flags: job.flags,
            jobspec: jobspec.clone(),
            ..TapJob::default()
        }),
    }
}

type Called<R> = Result<Result<R, guest::Refusal>, PolicyError>;

fn frobnicate(guest: &mut Guest, now: f64, job: guest::Job) -> Called<Option<String>> {
    with_job(
        guest,
        "frobnicate",
        now,
        job,
        |store, functions| match &functions.world {
            Function::Frobnicate(function) => Ok(function.call(store, (Resource::new_borrow(0),))?.0),
            _ => Ok(Ok(None)),
        },
    )
}

fn validate(guest: &mut Guest, now: f64, job: guest::Job) -> Called<()> {
    with_job(guest, "validate", now, job, |store, functions| {
        match &functions.world {
            Function::Validate(function) => Ok(function.call(store, (Resource::new_borrow(0),))?.0),
            _ => Ok(Ok(())),
        }
    })
}

/// Calls the guest while it can see the job.
fn with_job<R>(
    guest: &mut Guest,
    function: &'static str,
    now: f64,
    job: guest::Job,
    call: impl FnOnce(&mut Store<GuestState>, &Functions) -> wasmtime::Result<Result<R, guest::Refusal>>,
) -> Called<R> {
    guest.call(function, now, |store, functions| {
        store.data_mut().job = Some(job);
        let result = call(store, functions);
        store.data_mut().job = None;
        result
    })
}

/// Makes of a call's end what it means for the submission; none is a failure that the site said to pass over.
fn settle<R>(
    room: &mut Room,
    index: usize,
    validator: bool,
    result: Called<R>,
) -> Result<Option<R>, Refusal> {
    room.collect(index, validator);
    let guests = if validator {
        &room.validators
    } else {
        &room.frobnicators
    };
    let Some((name, on_failure)) = guests
        .get(index)
        .map(|guest| (guest.name().clone(), guest.spec().on_failure))
    else {
        return Ok(None);
    };
    match result {
        Ok(Ok(answer)) => Ok(Some(answer)),
        Ok(Err(refusal)) => {
            let refusal = refusal.tidy();
            Err(Refusal {
                plugin: name,
                errnum: refusal.errnum,
                text: refusal.text,
            })
        }
        Err(error) => {
            room.report(&name, &error);
            match on_failure {
                OnFailure::Open => Ok(None),
                OnFailure::Closed => Err(Refusal {
                    plugin: name,
                    errnum: EIO,
                    text: one_line(&error),
                }),
            }
        }
    }
}
