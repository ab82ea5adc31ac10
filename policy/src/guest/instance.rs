//! How is a function of a guest called, and what happens when it goes wrong?

use std::path::Path;
use std::sync::Arc;

use wasmtime::component::{ComponentExportIndex, InstancePre, Resource, TypedFunc};
use wasmtime::{Store, Trap, WasmBacktrace};

use crate::error::PolicyError;
use crate::host::LogRecord;
use crate::load::{self, Code, Manifest};
use crate::plugin::{PluginSpec, World};

use super::abi::{Changes, Pending, Refusal};
use super::imports::{self, JobHandle};
use super::log_gate::cut_line;
use super::runtime::Runtime;
use super::state::{Configuration, DeadlineExceeded, GuestState};
use super::tap::{self, TapFunctions};

/// Longest text of a refusal that is passed on.
const REFUSAL_BYTES_MAX: usize = 4096;
/// Functions of a backtrace that are named.
const FRAMES_MAX: usize = 10;
/// Longest name of a function in a backtrace.
const NAME_BYTES_MAX: usize = 80;
/// Room for what is lifted from a guest beside its answer, in bytes.
const LIFT_BYTES_EXTRA: usize = 1 << 20;

type Job = Resource<JobHandle>;

/// A plugin with its instance, which is rebuilt after a trap. It rests, without code and instance, until it is called: see [`Guest::rest`].
pub(crate) struct Guest {
    spec: PluginSpec,
    name: Arc<str>,
    args: Arc<str>,
    code: Code,
    mapped: Option<Mapped>,
    configuration: Arc<Configuration>,
    live: Option<Live>,
    logs: Vec<LogRecord>,
}

/// The code of a plugin, linked with what it imports.
struct Mapped {
    pre: InstancePre<GuestState>,
    exports: Exports,
}

/// An instance.
struct Live {
    store: Store<GuestState>,
    functions: Functions,
    /// It was asked for something, and may remember it.
    used: bool,
}

/// Where a component's functions are.
struct Exports {
    configure: ComponentExportIndex,
    /// In the order of [`names`]; optional ones may be missing.
    world: Vec<Option<ComponentExportIndex>>,
}

/// The functions of an instance.
pub(crate) struct Functions {
    configure: TypedFunc<(), (Result<(), Refusal>,)>,
    pub(crate) world: Function,
}

/// What a world exports beside `plugin`.
pub(crate) enum Function {
    /// `validation.validate`.
    Validate(TypedFunc<(Job,), (Result<(), Refusal>,)>),
    /// `frobnication.frobnicate`.
    Frobnicate(TypedFunc<(Job,), (Result<Option<String>, Refusal>,)>),
    /// `scheduling`.
    Schedule(Box<ScheduleFunctions>),
    /// `jobtap` and what goes with it.
    Jobtap(Box<TapFunctions>),
}

/// The functions of `scheduling`.
pub(crate) struct ScheduleFunctions {
    pub(crate) submitted: TypedFunc<(Vec<Pending>, bool), ()>,
    pub(crate) removed: TypedFunc<(Vec<u64>,), ()>,
    pub(crate) reprioritized: TypedFunc<(Vec<(u64, u64)>,), ()>,
    pub(crate) schedule: TypedFunc<(Changes,), (bool,)>,
}

/// Returns the interfaces of a world, their functions, and whether an interface may be missing.
fn names(world: World) -> &'static [(&'static str, &'static [&'static str], bool)] {
    match world {
        World::Validator => &[("flux:policy/validation@0.1.0", &["validate"], false)],
        World::Frobnicator => &[("flux:policy/frobnication@0.1.0", &["frobnicate"], false)],
        World::Scheduler => &[(
            "flux:policy/scheduling@0.1.0",
            &["submitted", "removed", "reprioritized", "schedule"],
            false,
        )],
        World::Jobtap => tap::NAMES,
    }
}

impl Guest {
    /// Loads a plugin, makes an instance and configures it.
    pub(crate) fn load(
        dir: &Path,
        spec: PluginSpec,
        configuration: Arc<Configuration>,
    ) -> Result<(Guest, Manifest), PolicyError> {
        let (code, manifest) = load::open_code(spec.dir.as_deref().unwrap_or(dir), &spec)?;
        let mut guest = Guest {
            name: Arc::from(spec.name.as_str()),
            args: Arc::from(spec.args.to_string()),
            spec,
            code,
            mapped: None,
            configuration,
            live: None,
            logs: Vec::new(),
        };
        let _running = Runtime::get()?.running();
        guest.ensure_live(0.0)?;
        Ok((guest, manifest))
    }

    /// Maps the code and finds its functions.
    fn map(&self) -> Result<Mapped, PolicyError> {
        let spec = &self.spec;
        let engine = &Runtime::get()?.engine;
        let component = self.code.map(engine)?;
        let pre = imports::linker(engine, spec.world, &spec.grants)
            .and_then(|linker| linker.instantiate_pre(&component))
            .map_err(|source| PolicyError::Load {
                name: spec.name.clone(),
                source,
            })?;
        let find = |interface: &str, function: &str| {
            let (_, outer) = component.get_export(None, interface)?;
            component
                .get_export(Some(&outer), function)
                .map(|(_, index)| index)
        };
        let need = |interface: &str, function: &str| {
            find(interface, function).ok_or_else(|| PolicyError::Export {
                name: spec.name.clone(),
                function: format!("{interface}#{function}"),
            })
        };
        let mut world = Vec::new();
        for (interface, functions, optional) in names(spec.world) {
            for function in *functions {
                world.push(if *optional {
                    find(interface, function)
                } else {
                    Some(need(interface, function)?)
                });
            }
        }
        let exports = Exports {
            configure: need("flux:policy/plugin@0.1.0", "configure")?,
            world,
        };
        Ok(Mapped { pre, exports })
    }

    /// Returns the plugin's name.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns what the site said of it.
    pub(crate) fn spec(&self) -> &PluginSpec {
        &self.spec
    }

    /// Returns the bytes of memory and tables that the instance has.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.live
            .as_ref()
            .map_or(0, |live| live.store.data().limits.bytes)
    }

    /// Drops the instance; the next call makes a new one.
    pub(crate) fn drop_instance(&mut self) {
        self.live = None;
    }

    /// Frees code and instance of a plugin that was only configured so far; the next call brings both back. Before there is
    /// a job, plugins take no memory: code and instance of one are half a megabyte.
    pub(crate) fn rest(&mut self) {
        if self.live.as_ref().is_none_or(|live| !live.used) {
            self.live = None;
            self.mapped = None;
        }
    }

    /// Returns true when code and instance were freed by [`Guest::rest`].
    pub(crate) fn is_resting(&self) -> bool {
        self.mapped.is_none()
    }

    /// Returns true when the instance is there.
    pub(crate) fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Returns true after a trap, until the next call makes a new instance: what the former knew must be told again.
    pub(crate) fn is_lost(&self) -> bool {
        self.live.is_none() && !self.is_resting()
    }

    /// Moves what the plugin has said to `out`.
    pub(crate) fn take_logs(&mut self, out: &mut Vec<LogRecord>) {
        out.append(&mut self.logs);
    }

    /// Gives the plugin a configuration.
    pub(crate) fn configure(
        &mut self,
        configuration: Arc<Configuration>,
        now: f64,
    ) -> Result<(), PolicyError> {
        self.configuration = configuration;
        if self.live.is_none() {
            return self.ensure_live(now);
        }
        let configuration = self.configuration.clone();
        self.ask("configure", now, |store, functions| {
            store.data_mut().configuration = configuration;
            functions.configure.call(store, ())
        })
        .and_then(|(answer,)| self.refused(answer))
    }

    /// Calls the guest once. `run` prepares the store's data, calls, and takes back what it lent, even when the call fails. A failure costs
    /// the instance.
    pub(crate) fn call<R>(
        &mut self,
        function: &'static str,
        now: f64,
        run: impl FnOnce(&mut Store<GuestState>, &Functions) -> wasmtime::Result<R>,
    ) -> Result<R, PolicyError> {
        let result = self.ask(function, now, run);
        if let Some(live) = &mut self.live {
            live.used = true;
        }
        result
    }

    /// As [`Guest::call`], for what leaves no trace in the plugin: its configuration and what it wants.
    pub(crate) fn ask<R>(
        &mut self,
        function: &'static str,
        now: f64,
        run: impl FnOnce(&mut Store<GuestState>, &Functions) -> wasmtime::Result<R>,
    ) -> Result<R, PolicyError> {
        self.ensure_live(now)?;
        let Some(live) = self.live.as_mut() else {
            return Err(PolicyError::NotLoaded(self.spec.name.clone()));
        };
        live.store.data_mut().begin(now);
        live.store.set_epoch_deadline(1);
        let result = run(&mut live.store, &live.functions);
        self.logs.append(&mut live.store.data_mut().logs);
        result.map_err(|error| {
            self.live = None;
            PolicyError::Trapped {
                name: self.spec.name.clone(),
                function,
                reason: reason(&error),
                backtrace: backtrace(&error),
            }
        })
    }

    /// Makes and configures an instance when there is none.
    fn ensure_live(&mut self, now: f64) -> Result<(), PolicyError> {
        if self.live.is_some() {
            return Ok(());
        }
        let mapped = match self.mapped.take() {
            Some(mapped) => mapped,
            None => self.map()?,
        };
        let live = self.instantiate(&mapped, now);
        self.mapped = Some(mapped);
        self.live = Some(live.map_err(|source| PolicyError::Load {
            name: self.spec.name.clone(),
            source,
        })?);
        let answer = self.ask("configure", now, |store, functions| {
            functions.configure.call(store, ())
        });
        let refused = answer.and_then(|(answer,)| self.refused(answer));
        if refused.is_err() {
            self.live = None;
        }
        refused
    }

    fn instantiate(&self, mapped: &Mapped, now: f64) -> wasmtime::Result<Live> {
        let Mapped { pre, exports } = mapped;
        let limits = &self.spec.limits;
        let state = GuestState::new(
            self.name.clone(),
            self.args.clone(),
            limits,
            self.configuration.clone(),
            now,
        );
        let mut store = Store::new(pre.engine(), state);
        store.limiter(|state| &mut state.limits);
        store.set_hostcall_fuel(limits.answer_bytes_max.saturating_add(LIFT_BYTES_EXTRA));
        store.epoch_deadline_callback(|mut context| context.data_mut().on_tick());
        store.set_epoch_deadline(1);
        let instance = pre.instantiate(&mut store)?;
        let configure = instance.get_typed_func(&mut store, exports.configure)?;
        let mut next = exports.world.iter();
        let mut index = || {
            next.next()
                .and_then(Option::as_ref)
                .ok_or_else(|| wasmtime::Error::msg("a function is missing"))
        };
        let world = match self.spec.world {
            World::Validator => Function::Validate(instance.get_typed_func(&mut store, index()?)?),
            World::Frobnicator => Function::Frobnicate(instance.get_typed_func(&mut store, index()?)?),
            World::Scheduler => Function::Schedule(Box::new(ScheduleFunctions {
                submitted: instance.get_typed_func(&mut store, index()?)?,
                removed: instance.get_typed_func(&mut store, index()?)?,
                reprioritized: instance.get_typed_func(&mut store, index()?)?,
                schedule: instance.get_typed_func(&mut store, index()?)?,
            })),
            World::Jobtap => {
                Function::Jobtap(Box::new(TapFunctions::of(&instance, &mut store, &exports.world)?))
            }
        };
        Ok(Live {
            store,
            functions: Functions { configure, world },
            used: false,
        })
    }

    fn refused(&self, answer: Result<(), Refusal>) -> Result<(), PolicyError> {
        answer.map_err(|refusal| {
            let refusal = refusal.tidy();
            PolicyError::Refused {
                name: self.spec.name.clone(),
                errnum: refusal.errnum,
                text: refusal.text,
            }
        })
    }
}

impl Refusal {
    /// Returns the refusal with a possible error number and a bounded text.
    pub(crate) fn tidy(self) -> Refusal {
        let errnum = if (1..=4095).contains(&self.errnum) {
            self.errnum
        } else {
            flux_formats::errno::EINVAL
        };
        let mut text = self.text;
        if text.len() > REFUSAL_BYTES_MAX {
            text.truncate(text.floor_char_boundary(REFUSAL_BYTES_MAX));
        }
        Refusal { errnum, text }
    }
}

/// Says in one line why a call failed.
fn reason(error: &wasmtime::Error) -> String {
    if let Some(deadline) = error.downcast_ref::<DeadlineExceeded>() {
        return deadline.to_string();
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) => "panic or abort".to_owned(),
        Some(Trap::StackOverflow) => "stack overflow".to_owned(),
        Some(trap) => trap.to_string(),
        None => format!("{}", error.root_cause()).replace('\n', " "),
    }
}

/// Names the functions of the plugin that were running, the innermost first.
fn backtrace(error: &wasmtime::Error) -> String {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else {
        return String::new();
    };
    let mut text = String::new();
    for frame in trace.frames().iter().take(FRAMES_MAX) {
        let index = frame.func_index();
        let name = frame.func_name().map_or_else(
            || format!("function {index}"),
            |name| cut_line(name, NAME_BYTES_MAX),
        );
        if !text.is_empty() {
            text.push_str(" < ");
        }
        text.push_str(&name);
    }
    if trace.frames().len() > FRAMES_MAX {
        text.push_str(" < ...");
    }
    text
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest")
            .field("name", &self.name)
            .field("live", &self.live.is_some())
            .finish_non_exhaustive()
    }
}
