//! What can a guest ask the host? (The imports of `wit/`, nothing else.)

use serde_json::Value;
use wasmtime::component::{
    ComponentNamedList, Linker, LinkerInstance, Lower, Resource, ResourceType, WasmStr,
};
use wasmtime::{Engine, StoreContextMut};

use crate::plugin::{Grant, World};

use super::abi::Level;
use super::pool::pool;
use super::state::{GuestState, Job};

/// Stands for `jobs.job`; the only one alive is the job of the running call.
#[derive(Debug)]
pub(crate) struct JobHandle;

/// Returns the linker with what a world grants.
pub(crate) fn linker(
    engine: &Engine,
    world: World,
    grants: &[Grant],
) -> wasmtime::Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine);
    always(&mut linker)?;
    match world {
        World::Validator | World::Frobnicator => jobs(&mut linker)?,
        World::Scheduler => pool(&mut linker)?,
        World::Jobtap => {
            jobs(&mut linker)?;
            super::tap::link(&mut linker, grants)?;
        }
    }
    Ok(linker)
}

/// Grants log, clock and config.
fn always(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.instance("flux:policy/log@0.1.0")?.func_wrap(
        "write",
        |mut store: StoreContextMut<'_, GuestState>, (level, message): (Level, WasmStr)| {
            let message = message.to_str(&store)?.into_owned();
            store.data_mut().log(level as u8, &message);
            Ok(())
        },
    )?;
    linker
        .instance("flux:policy/clock@0.1.0")?
        .func_wrap("now", |store: StoreContextMut<'_, GuestState>, (): ()| {
            Ok((store.data().now,))
        })?;
    let mut config = linker.instance("flux:policy/config@0.1.0")?;
    config.func_wrap(
        "get",
        |store: StoreContextMut<'_, GuestState>, (path,): (WasmStr,)| {
            let path = path.to_str(&store)?;
            let configuration = &store.data().configuration;
            if path.is_empty() {
                return Ok((Some(configuration.text.to_string()),));
            }
            Ok((at(&configuration.value, &path).map(Value::to_string),))
        },
    )?;
    config.func_wrap("args", |store: StoreContextMut<'_, GuestState>, (): ()| {
        Ok((store.data().args.to_string(),))
    })?;
    // types has no functions; it is there for its records
    linker.instance("flux:policy/types@0.1.0")?;
    Ok(())
}

/// Returns the value at a dotted path.
fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, key| value.get(key))
}

/// Grants jobs: the values of the job of the call.
fn jobs(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let mut jobs = linker.instance("flux:policy/jobs@0.1.0")?;
    jobs.resource("job", ResourceType::host::<JobHandle>(), |_, _| Ok(()))?;
    getter(&mut jobs, "[method]job.id", |job| job.job.id)?;
    getter(&mut jobs, "[method]job.userid", |job| job.job.userid)?;
    getter(&mut jobs, "[method]job.rolemask", |job| job.rolemask)?;
    getter(&mut jobs, "[method]job.urgency", |job| job.job.urgency)?;
    getter(&mut jobs, "[method]job.flags", |job| job.job.flags)?;
    getter(&mut jobs, "[method]job.state", |job| job.job.state)?;
    getter(&mut jobs, "[method]job.priority", |job| {
        job.job
            .priority
            .map_or(-1, |priority| i64::try_from(priority).unwrap_or(i64::MAX))
    })?;
    getter(&mut jobs, "[method]job.t-submit", |job| job.job.t_submit)?;
    getter(&mut jobs, "[method]job.resources", |job| job.job.r.clone())?;
    getter(&mut jobs, "[method]job.result", |job| job.job.result)?;
    getter(&mut jobs, "[method]job.ended-by", |job| {
        job.job.ended_by.name().to_owned()
    })?;
    getter(&mut jobs, "[method]job.jobspec", |job| job.job.jobspec.clone())?;
    jobs.func_wrap(
        "[method]job.attribute",
        |store: StoreContextMut<'_, GuestState>, (handle, path): (Resource<JobHandle>, WasmStr)| {
            let path = path.to_str(&store)?;
            let value = crate::tap::value_at(&job(&store, &handle)?.job.jobspec, &path);
            Ok((value.map(str::to_owned),))
        },
    )?;
    jobs.func_wrap(
        "[method]job.posted",
        |store: StoreContextMut<'_, GuestState>, (handle, event): (Resource<JobHandle>, WasmStr)| {
            let event = event.to_str(&store)?;
            Ok((job(&store, &handle)?.job.posted.has(&event),))
        },
    )?;
    Ok(())
}

/// Adds a method that returns something of a job.
fn getter<R>(
    jobs: &mut LinkerInstance<'_, GuestState>,
    name: &str,
    get: fn(&Job) -> R,
) -> wasmtime::Result<()>
where
    (R,): ComponentNamedList + Lower + 'static,
{
    jobs.func_wrap(
        name,
        move |store: StoreContextMut<'_, GuestState>, (handle,): (Resource<JobHandle>,)| {
            Ok((get(job(&store, &handle)?),))
        },
    )
}

/// Handle of the job that a call is about, and of another job in it.
pub(crate) const THE_JOB: u32 = 0;
/// See [`THE_JOB`].
pub(crate) const OTHER_JOB: u32 = 1;

/// Returns a job of the running call; a guest cannot hold one beyond it.
fn job<'a>(
    store: &'a StoreContextMut<'_, GuestState>,
    handle: &Resource<JobHandle>,
) -> wasmtime::Result<&'a Job> {
    let data = store.data();
    let job = if handle.rep() == OTHER_JOB {
        &data.target
    } else {
        &data.job
    };
    job.as_ref()
        .ok_or_else(|| wasmtime::Error::msg("no job in this call"))
}
