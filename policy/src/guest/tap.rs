//! What does a jobtap plugin export, and what may it ask for?

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmtime::component::{
    ComponentExportIndex, Instance, Linker, LinkerInstance, Resource, TypedFunc, WasmStr,
};
use wasmtime::{Store, StoreContextMut};

use crate::plugin::Grant;
use crate::tap::Action;

use super::abi::{Priority, Refusal};
use super::imports::JobHandle;
use super::state::GuestState;

/// Wishes that one call may have.
const ACTIONS_MAX: usize = 10_000;
/// Bytes of all keys and values of a plugin's state.
const STATE_BYTES_MAX: usize = 64 << 10;
/// Longest text of one wish, in bytes.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// The interfaces of the world, their functions, and whether they may be missing; [`TapFunctions::of`] goes by this order.
pub(super) const NAMES: &[(&str, &[&str], bool)] = &[
    ("flux:policy/callbacks@0.1.0", &["init"], false),
    (
        "flux:policy/admission@0.1.0",
        &["create", "validate", "dependency", "new-job", "destroy"],
        true,
    ),
    ("flux:policy/course@0.1.0", &["state", "event", "priority"], true),
    ("flux:policy/updates@0.1.0", &["update"], true),
    ("flux:policy/archive@0.1.0", &["added", "removed"], true),
    ("flux:policy/roster@0.1.0", &["known"], true),
    (
        "flux:policy/wakeups@0.1.0",
        &["expired", "exited", "looked-up"],
        true,
    ),
    ("flux:policy/requests@0.1.0", &["request", "query"], true),
];

type Job = Resource<JobHandle>;
type Verdict = (Result<(), Refusal>,);
type Function<P, R> = Option<TypedFunc<P, R>>;

/// The functions of a jobtap plugin; what is missing is never called.
pub(crate) struct TapFunctions {
    pub(crate) init: TypedFunc<(), (Vec<String>,)>,
    pub(crate) create: Function<(Job, bool), Verdict>,
    pub(crate) validate: Function<(Job,), Verdict>,
    pub(crate) dependency: Function<(Job, String, String, Option<Job>, bool), Verdict>,
    pub(crate) new_job: Function<(Job, bool), ()>,
    pub(crate) destroy: Function<(Job,), ()>,
    pub(crate) state: Function<(Job, &'static str), ()>,
    pub(crate) event: Function<(Job, String, String), ()>,
    pub(crate) priority: Function<(Job,), (Priority,)>,
    #[expect(clippy::type_complexity, reason = "the signature of wit")]
    pub(crate) update: Function<(Job, String, String, u32, u32), (Result<Vec<(String, String)>, Refusal>,)>,
    pub(crate) added: Function<(Job,), ()>,
    pub(crate) removed: Function<(u64,), ()>,
    #[expect(clippy::type_complexity, reason = "the signature of wit")]
    pub(crate) known: Function<(Arc<[(u64, u32)]>,), ()>,
    pub(crate) expired: Function<(String,), ()>,
    #[expect(clippy::type_complexity, reason = "the signature of wit")]
    pub(crate) exited: Function<(u64, u64, i32, Vec<(String, String)>), ()>,
    pub(crate) looked_up: Function<(u64, Option<Job>), ()>,
    #[expect(clippy::type_complexity, reason = "the signature of wit")]
    pub(crate) request: Function<(String, String, u32, u32), (Result<String, Refusal>,)>,
    pub(crate) query: Function<(), (String,)>,
}

impl TapFunctions {
    /// Finds the functions of an instance; `exports` is in the order of [`NAMES`].
    pub(super) fn of(
        instance: &Instance,
        store: &mut Store<GuestState>,
        exports: &[Option<ComponentExportIndex>],
    ) -> wasmtime::Result<TapFunctions> {
        let mut next = exports.iter();
        macro_rules! optional {
            () => {
                match next.next().copied().flatten() {
                    Some(index) => Some(instance.get_typed_func(&mut *store, index)?),
                    None => None,
                }
            };
        }
        let init: Function<(), (Vec<String>,)> = optional!();
        Ok(TapFunctions {
            init: init.ok_or_else(|| wasmtime::Error::msg("a function is missing"))?,
            create: optional!(),
            validate: optional!(),
            dependency: optional!(),
            new_job: optional!(),
            destroy: optional!(),
            state: optional!(),
            event: optional!(),
            priority: optional!(),
            update: optional!(),
            added: optional!(),
            removed: optional!(),
            known: optional!(),
            expired: optional!(),
            exited: optional!(),
            looked_up: optional!(),
            request: optional!(),
            query: optional!(),
        })
    }
}

/// What a plugin asked for in a call, and its state while the call lasts.
#[derive(Debug, Default)]
pub(crate) struct TapSlot {
    pub(crate) actions: Vec<Action>,
    /// The plugin's state with what the call wrote.
    pub(crate) values: BTreeMap<String, String>,
    /// The call wrote.
    pub(crate) dirty: bool,
    /// Number of the last token.
    pub(crate) last_token: u64,
}

impl TapSlot {
    fn push(&mut self, action: Action) -> wasmtime::Result<()> {
        if self.actions.len() >= ACTIONS_MAX {
            return Err(wasmtime::Error::msg("too many actions in a call"));
        }
        self.actions.push(action);
        Ok(())
    }

    fn token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }

    fn set(&mut self, key: String, value: Option<String>) -> wasmtime::Result<()> {
        self.dirty = true;
        match value {
            Some(value) => drop(self.values.insert(key, value)),
            None => drop(self.values.remove(&key)),
        }
        let bytes: usize = self
            .values
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        if bytes > STATE_BYTES_MAX {
            return Err(wasmtime::Error::msg("the plugin's state exceeds 64 KiB"));
        }
        Ok(())
    }
}

type Context<'a> = StoreContextMut<'a, GuestState>;

fn text(store: &Context<'_>, text: &WasmStr) -> wasmtime::Result<String> {
    let text = text.to_str(store)?;
    if text.len() > TEXT_BYTES_MAX {
        return Err(wasmtime::Error::msg("text of more than 1 MiB"));
    }
    Ok(text.into_owned())
}

/// Grants what every jobtap plugin has, and what the site grants this one.
pub(super) fn link(linker: &mut Linker<GuestState>, grants: &[Grant]) -> wasmtime::Result<()> {
    actions(&mut linker.instance("flux:policy/actions@0.1.0")?)?;
    timers(&mut linker.instance("flux:policy/timer@0.1.0")?)?;
    state(&mut linker.instance("flux:policy/state@0.1.0")?)?;
    if grants.contains(&Grant::Exec) {
        exec(&mut linker.instance("flux:policy/exec@0.1.0")?)?;
    }
    if grants.contains(&Grant::Bypass) {
        let mut bypass = linker.instance("flux:policy/bypass@0.1.0")?;
        described(&mut bypass, "set-resources", |job, r| Action::SetResources {
            job,
            r,
        })?;
    }
    Ok(())
}

/// Adds a function of a job alone.
fn plain(
    instance: &mut LinkerInstance<'_, GuestState>,
    name: &str,
    action: fn(u64) -> Action,
) -> wasmtime::Result<()> {
    instance.func_wrap(name, move |mut store: Context<'_>, (job,): (u64,)| {
        store.data_mut().tap.push(action(job))
    })
}

/// Adds a function of a job and a text.
fn described(
    instance: &mut LinkerInstance<'_, GuestState>,
    name: &str,
    action: fn(u64, String) -> Action,
) -> wasmtime::Result<()> {
    instance.func_wrap(
        name,
        move |mut store: Context<'_>, (job, what): (u64, WasmStr)| {
            let what = text(&store, &what)?;
            store.data_mut().tap.push(action(job, what))
        },
    )
}

/// Adds a function of a job, a description and a status.
fn finished(
    instance: &mut LinkerInstance<'_, GuestState>,
    name: &str,
    action: fn(u64, String, i32) -> Action,
) -> wasmtime::Result<()> {
    instance.func_wrap(
        name,
        move |mut store: Context<'_>, (job, what, status): (u64, WasmStr, i32)| {
            let what = text(&store, &what)?;
            store.data_mut().tap.push(action(job, what, status))
        },
    )
}

fn actions(instance: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    described(instance, "dependency-add", |job, description| {
        Action::DependencyAdd { job, description }
    })?;
    described(instance, "dependency-remove", |job, description| {
        Action::DependencyRemove { job, description }
    })?;
    described(instance, "annotate", |job, annotations| Action::Annotate {
        job,
        annotations,
    })?;
    described(instance, "set-flag", |job, flag| Action::SetFlag { job, flag })?;
    described(instance, "update-jobspec", |job, updates| Action::UpdateJobspec {
        job,
        updates,
    })?;
    described(instance, "prolog-start", |job, description| Action::PrologStart {
        job,
        description,
    })?;
    described(instance, "epilog-start", |job, description| Action::EpilogStart {
        job,
        description,
    })?;
    finished(instance, "prolog-finish", |job, description, status| {
        Action::PrologFinish {
            job,
            description,
            status,
        }
    })?;
    finished(instance, "epilog-finish", |job, description, status| {
        Action::EpilogFinish {
            job,
            description,
            status,
        }
    })?;
    plain(instance, "reprioritize", |job| Action::Reprioritize { job })?;
    plain(instance, "subscribe", |job| Action::Subscribe { job })?;
    plain(instance, "unsubscribe", |job| Action::Unsubscribe { job })?;
    instance.func_wrap("reprioritize-all", |mut store: Context<'_>, (): ()| {
        store.data_mut().tap.push(Action::ReprioritizeAll)
    })?;
    instance.func_wrap(
        "prioritize",
        |mut store: Context<'_>, (job, priority): (u64, u64)| {
            store.data_mut().tap.push(Action::Prioritize { job, priority })
        },
    )?;
    instance.func_wrap(
        "raise",
        |mut store: Context<'_>, (job, kind, severity, note): (u64, WasmStr, u8, WasmStr)| {
            let (kind, note) = (text(&store, &kind)?, text(&store, &note)?);
            store.data_mut().tap.push(Action::Raise {
                job,
                kind,
                severity,
                note,
            })
        },
    )?;
    instance.func_wrap(
        "post",
        |mut store: Context<'_>, (job, name, context): (u64, WasmStr, WasmStr)| {
            let (name, context) = (text(&store, &name)?, text(&store, &context)?);
            store.data_mut().tap.push(Action::Post { job, name, context })
        },
    )?;
    instance.func_wrap("look-up", |mut store: Context<'_>, (job,): (u64,)| {
        let slot = &mut store.data_mut().tap;
        let token = slot.token();
        slot.push(Action::LookUp { token, job })?;
        Ok((token,))
    })?;
    Ok(())
}

fn timers(instance: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    instance.func_wrap("set", |mut store: Context<'_>, (key, at): (WasmStr, f64)| {
        let key = text(&store, &key)?;
        store.data_mut().tap.push(Action::SetTimer { key, at })
    })?;
    instance.func_wrap("cancel", |mut store: Context<'_>, (key,): (WasmStr,)| {
        let key = text(&store, &key)?;
        store.data_mut().tap.push(Action::CancelTimer { key })
    })
}

fn state(instance: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    instance.func_wrap("get", |store: Context<'_>, (key,): (WasmStr,)| {
        let key = key.to_str(&store)?;
        Ok((store.data().tap.values.get(key.as_ref()).cloned(),))
    })?;
    instance.func_wrap(
        "set",
        |mut store: Context<'_>, (key, value): (WasmStr, WasmStr)| {
            let (key, value) = (text(&store, &key)?, text(&store, &value)?);
            store.data_mut().tap.set(key, Some(value))
        },
    )?;
    instance.func_wrap("remove", |mut store: Context<'_>, (key,): (WasmStr,)| {
        let key = text(&store, &key)?;
        store.data_mut().tap.set(key, None)
    })?;
    instance.func_wrap("keys", |store: Context<'_>, (): ()| {
        Ok((store.data().tap.values.keys().cloned().collect::<Vec<_>>(),))
    })
}

fn exec(instance: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    instance.func_wrap(
        "spawn",
        |mut store: Context<'_>, (job, command, options): (u64, Vec<String>, Vec<(String, String)>)| {
            let slot = &mut store.data_mut().tap;
            let token = slot.token();
            slot.push(Action::Spawn {
                token,
                job,
                command,
                options,
            })?;
            Ok((token,))
        },
    )?;
    instance.func_wrap("kill", |mut store: Context<'_>, (token, signum): (u64, u32)| {
        store.data_mut().tap.push(Action::Kill { token, signum })
    })
}
