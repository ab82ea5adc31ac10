//! Generated bindings of the world `jobtap`, and how the SDK's traits meet them. Use it through `flux-policy-sdk`.

wit_bindgen::generate!({
    world: "jobtap",
    path: "../../../wit/flux-policy-0.1",
    pub_export_macro: true,
    export_macro_name: "export_world",
    default_bindings_module: "flux_policy_sdk::bindings::jobtap",
});

flux_policy_sdk_core::implement_host!();
flux_policy_sdk_core::implement_job!();

use flux::policy::{actions, bypass, exec, state, timer};

impl flux_policy_sdk_core::JobtapHost for Broker {
    fn dependency_add(&self, job: u64, description: &str) {
        actions::dependency_add(job, description);
    }

    fn dependency_remove(&self, job: u64, description: &str) {
        actions::dependency_remove(job, description);
    }

    fn prioritize(&self, job: u64, priority: u64) {
        actions::prioritize(job, priority);
    }

    fn reprioritize(&self, job: u64) {
        actions::reprioritize(job);
    }

    fn reprioritize_all(&self) {
        actions::reprioritize_all();
    }

    fn annotate(&self, job: u64, annotations: &str) {
        actions::annotate(job, annotations);
    }

    fn raise(&self, job: u64, kind: &str, severity: u8, note: &str) {
        actions::raise(job, kind, severity, note);
    }

    fn set_flag(&self, job: u64, flag: &str) {
        actions::set_flag(job, flag);
    }

    fn post(&self, job: u64, name: &str, context: &str) {
        actions::post(job, name, context);
    }

    fn update_jobspec(&self, job: u64, updates: &str) {
        actions::update_jobspec(job, updates);
    }

    fn subscribe(&self, job: u64) {
        actions::subscribe(job);
    }

    fn unsubscribe(&self, job: u64) {
        actions::unsubscribe(job);
    }

    fn prolog_start(&self, job: u64, description: &str) {
        actions::prolog_start(job, description);
    }

    fn prolog_finish(&self, job: u64, description: &str, status: i32) {
        actions::prolog_finish(job, description, status);
    }

    fn epilog_start(&self, job: u64, description: &str) {
        actions::epilog_start(job, description);
    }

    fn epilog_finish(&self, job: u64, description: &str, status: i32) {
        actions::epilog_finish(job, description, status);
    }

    fn look_up(&self, job: u64) -> u64 {
        actions::look_up(job)
    }

    fn set_timer(&self, key: &str, at: f64) {
        timer::set(key, at);
    }

    fn cancel_timer(&self, key: &str) {
        timer::cancel(key);
    }

    fn state_get(&self, key: &str) -> Option<String> {
        state::get(key)
    }

    fn state_set(&self, key: &str, value: &str) {
        state::set(key, value);
    }

    fn state_remove(&self, key: &str) {
        state::remove(key);
    }

    fn state_keys(&self) -> Vec<String> {
        state::keys()
    }
}

/// Programs; the interface `exec` is imported by components that use this.
#[derive(Debug)]
pub struct Programs;

impl flux_policy_sdk_core::Exec for Programs {
    fn spawn(&self, job: u64, command: &[String], options: &[(String, String)]) -> u64 {
        exec::spawn(job, command, options)
    }

    fn kill(&self, token: u64, signum: u32) {
        exec::kill(token, signum);
    }
}

/// Resources without the scheduler; the interface `bypass` is imported by components that use this.
#[derive(Debug)]
pub struct Resources;

impl flux_policy_sdk_core::Bypass for Resources {
    fn set_resources(&self, job: u64, r: &str) {
        bypass::set_resources(job, r);
    }
}

impl From<flux_policy_sdk_core::Priority> for exports::flux::policy::course::Answer {
    fn from(priority: flux_policy_sdk_core::Priority) -> Self {
        match priority {
            flux_policy_sdk_core::Priority::Pass => Self::Pass,
            flux_policy_sdk_core::Priority::Unavailable => Self::Unavailable,
            flux_policy_sdk_core::Priority::Value(value) => Self::Value(value),
        }
    }
}
