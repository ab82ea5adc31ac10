//! What can a scheduler ask the host? (The interface `pool`.)

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType, WasmStr};

use super::abi::{Counts, Failure, Placed};
use super::state::GuestState;

/// Stands for `pool.plan`; its number is that of the plan in the pool.
#[derive(Debug)]
pub(crate) struct PlanHandle;

/// Grants pool: allocations and plans through the trusted side.
pub(super) fn pool(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let mut pool = linker.instance("flux:policy/pool@0.1.0")?;
    pool.resource("plan", ResourceType::host::<PlanHandle>(), |mut store, plan| {
        store.data_mut().sched.undo(plan);
        Ok(())
    })?;
    pool.func_wrap(
        "[method]plan.start",
        |store: StoreContextMut<'_, GuestState>, (plan,): (Resource<PlanHandle>,)| {
            Ok((store.data().sched.start(plan.rep()),))
        },
    )?;
    pool.func_wrap(
        "[method]plan.renew",
        |mut store: StoreContextMut<'_, GuestState>, (plan,): (Resource<PlanHandle>,)| {
            Ok((store.data_mut().sched.renew(plan.rep()),))
        },
    )?;
    pool.func_wrap(
        "allocate",
        |mut store: StoreContextMut<'_, GuestState>, (id,): (u64,)| {
            let answer: Result<(), Failure> = store.data_mut().sched.allocate(id, None);
            Ok((answer,))
        },
    )?;
    pool.func_wrap(
        "allocate-placed",
        |mut store: StoreContextMut<'_, GuestState>, (id, placed): (u64, Placed)| {
            Ok((store.data_mut().sched.allocate(id, placed.placement()),))
        },
    )?;
    pool.func_wrap("count", |store: StoreContextMut<'_, GuestState>, (): ()| {
        Ok((Counts::from(store.data().sched.counts()),))
    })?;
    pool.func_wrap(
        "query",
        |mut store: StoreContextMut<'_, GuestState>, (constraint,): (WasmStr,)| {
            let constraint = constraint.to_str(&store)?.into_owned();
            let answer = store.data_mut().sched.query(&constraint);
            Ok((answer.map(Counts::from),))
        },
    )?;
    pool.func_wrap(
        "earliest",
        |mut store: StoreContextMut<'_, GuestState>, (id, after): (u64, f64)| {
            Ok((store.data_mut().sched.earliest(id, after),))
        },
    )?;
    pool.func_wrap(
        "reserve",
        |mut store: StoreContextMut<'_, GuestState>, (id, at): (u64, Option<f64>)| {
            let answer = store.data_mut().sched.reserve(id, at);
            Ok((answer.map(Resource::<PlanHandle>::new_own),))
        },
    )?;
    pool.func_wrap(
        "queue-name",
        |store: StoreContextMut<'_, GuestState>, (number,): (u32,)| {
            Ok((store.data().sched.queue_name(number),))
        },
    )?;
    Ok(())
}
