//! What can a guest ask the host? (The imports of `wit/`, nothing else.)

use serde_json::Value;
use wasmtime::component::{Linker, Resource, ResourceType, WasmStr};
use wasmtime::{Engine, StoreContextMut};

use crate::plugin::World;

use super::abi::Level;
use super::pool::pool;
use super::state::{GuestState, Job};

/// Stands for `jobs.job`; the only one alive is the job of the running call.
#[derive(Debug)]
pub(crate) struct JobHandle;

/// Returns the linker with what a world grants.
pub(crate) fn linker(engine: &Engine, world: World) -> wasmtime::Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine);
    always(&mut linker)?;
    match world {
        World::Validator | World::Frobnicator => jobs(&mut linker)?,
        World::Scheduler => pool(&mut linker)?,
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
    jobs.func_wrap(
        "[method]job.id",
        |store: StoreContextMut<'_, GuestState>, (_,): (Resource<JobHandle>,)| Ok((job(&store)?.id,)),
    )?;
    jobs.func_wrap(
        "[method]job.userid",
        |store: StoreContextMut<'_, GuestState>, (_,): (Resource<JobHandle>,)| Ok((job(&store)?.userid,)),
    )?;
    jobs.func_wrap(
        "[method]job.rolemask",
        |store: StoreContextMut<'_, GuestState>, (_,): (Resource<JobHandle>,)| Ok((job(&store)?.rolemask,)),
    )?;
    jobs.func_wrap(
        "[method]job.urgency",
        |store: StoreContextMut<'_, GuestState>, (_,): (Resource<JobHandle>,)| Ok((job(&store)?.urgency,)),
    )?;
    jobs.func_wrap(
        "[method]job.flags",
        |store: StoreContextMut<'_, GuestState>, (_,): (Resource<JobHandle>,)| Ok((job(&store)?.flags,)),
    )?;
    jobs.func_wrap(
        "[method]job.jobspec",
        |store: StoreContextMut<'_, GuestState>, (_,): (Resource<JobHandle>,)| {
            Ok((job(&store)?.jobspec.clone(),))
        },
    )?;
    Ok(())
}

/// Returns the job of the running call; a guest cannot hold one beyond it.
fn job<'a>(store: &'a StoreContextMut<'_, GuestState>) -> wasmtime::Result<&'a Job> {
    store
        .data()
        .job
        .as_ref()
        .ok_or_else(|| wasmtime::Error::msg("no job in this call"))
}
