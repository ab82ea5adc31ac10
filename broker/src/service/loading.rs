//! How does a service come and go while the broker runs?

use super::Cx;
use super::core::{Core, ModuleStatus, SlotId, Work};
use super::mailbox::erase;
use super::spec::{RpcError, Service};
use flux_formats::errno;
use std::any::Any;

/// Called with the outcome of a load.
pub(super) type LoadDone = Box<dyn FnOnce(&mut dyn Any, &mut Cx<'_>, Result<(), RpcError>)>;

/// One line of `flux module list`.
#[derive(Clone, Debug)]
pub struct ModuleInfo {
    /// Module name.
    pub name: String,
    /// Seconds since it last got a message.
    pub idle_secs: u64,
    /// Its state.
    pub status: ModuleStatus,
    /// Service names besides its own.
    pub services: Vec<String>,
}

impl Cx<'_> {
    /// Loads a module; `done` hears the outcome after its start.
    pub fn load_module<S: Service>(
        &mut self,
        name: &str,
        service: Box<dyn Service>,
        done: impl FnOnce(&mut S, &mut Cx<'_>, Result<(), RpcError>) + 'static,
    ) {
        let me = self.me;
        match self.core.register_slot(name, service.as_ref(), true) {
            Ok(slot) => {
                let waiter: LoadDone = Box::new(move |any, cx, result| {
                    if let Some(service) = any.downcast_mut::<S>() {
                        done(service, cx, result);
                    }
                });
                self.core.load_waiters.insert(slot, (me, waiter));
                self.core.new_services.push((slot, service));
            }
            Err(err) => {
                let call = erase(move |service: &mut S, cx: &mut Cx<'_>| done(service, cx, Err(err)));
                self.core.queue.push_back(Work::Call(me, call));
            }
        }
    }

    /// Stops and removes a module; `done` runs when it is gone.
    ///
    /// # Errors
    /// ENOENT when no module of that name is loaded, EBUSY when it is stopping already.
    pub fn remove_module<S: Service>(
        &mut self,
        name: &str,
        done: impl FnOnce(&mut S, &mut Cx<'_>) + 'static,
    ) -> Result<(), RpcError> {
        let me = self.me;
        let missing = || RpcError::new(errno::ENOENT, format!("module {name} is not loaded"));
        let id = self.core.slot_by_name(name).ok_or_else(missing)?;
        let slot = self.core.slots.get_mut(id).ok_or_else(missing)?;
        if !slot.is_module {
            return Err(RpcError::new(
                errno::EPERM,
                format!("{name} is part of the broker and cannot be removed"),
            ));
        }
        if slot.status == ModuleStatus::Finalizing {
            return Err(RpcError::new(
                errno::EBUSY,
                format!("module {name} is stopping already"),
            ));
        }
        slot.status = ModuleStatus::Finalizing;
        slot.stop_waiter = Some(erase(done));
        slot.stop_caller = me;
        self.core.queue.push_back(Work::Stop(id));
        Ok(())
    }

    /// Returns the loaded modules.
    pub fn modules(&self) -> Vec<ModuleInfo> {
        let loaded = self
            .core
            .slots
            .iter()
            .filter(|s| s.is_module && s.status != ModuleStatus::Exited);
        loaded
            .map(|slot| ModuleInfo {
                name: slot.name.clone(),
                idle_secs: slot.last_used.elapsed().as_secs(),
                status: slot.status,
                services: slot
                    .services
                    .iter()
                    .filter(|s| **s != slot.name)
                    .cloned()
                    .collect(),
            })
            .collect()
    }

    /// Asks every service whether it accepts `config`, then lets all take it; one refusal leaves all at the old.
    /// `done` hears the first refusal, or `Ok`.
    pub fn reconfigure<S: Service>(
        &mut self,
        config: serde_json::Value,
        done: impl FnOnce(&mut S, &mut Cx<'_>, Result<(), RpcError>) + 'static,
    ) {
        let me = self.me;
        let done: LoadDone = Box::new(move |any, cx, result| {
            if let Some(service) = any.downcast_mut::<S>() {
                done(service, cx, result);
            }
        });
        self.core
            .queue
            .push_back(Work::Reconfigure(std::rc::Rc::new(config), me, done));
    }

    /// Starts a `module.trace` stream.
    pub fn add_trace(&mut self, trace: super::Trace) {
        self.core.traces.push(trace);
    }

    /// Starts an `overlay.trace` stream.
    pub fn add_link_trace(&mut self, trace: super::Trace) {
        self.core.link_traces.push(trace);
    }

    /// Ends the traces of a client that went away.
    pub fn drop_traces(&mut self, sender: Option<&bytes::Bytes>) {
        self.core.traces.retain(|trace| trace.request.sender() != sender);
        self.core
            .link_traces
            .retain(|trace| trace.request.sender() != sender);
    }
}

impl Core {
    /// Reports the outcome of a load to whoever asked for it.
    pub(super) fn load_finished(&mut self, slot: SlotId, result: Result<(), RpcError>) {
        let Some((caller, done)) = self.load_waiters.remove(&slot) else {
            return;
        };
        let call: super::mailbox::Call = Box::new(move |any, cx| done(any, cx, result));
        self.queue.push_back(Work::Call(caller, call));
    }

    /// A module's stop is complete: it is removed after the current call, and the waiter runs.
    pub(super) fn slot_stopped(&mut self, id: SlotId) {
        self.removed.push(id);
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        slot.status = ModuleStatus::Exited;
        if let Some(waiter) = slot.stop_waiter.take() {
            let caller = slot.stop_caller;
            self.queue.push_back(Work::Call(caller, waiter));
        }
    }
}
