//! What does a jobtap plugin implement, and what can it ask of the broker?
//!
//! What each function means, when it is called and what a failure does is said in `wit/`; only topics that [`Jobtap::topics`] names are called.

use crate::host::Host;
use crate::policy::{Job, Refusal};

/// The broker, as jobtap plugins see it: wishes about jobs, timers, and a memory that survives restarts.
#[expect(missing_docs, reason = "each is described at its function in wit/")]
pub trait JobtapHost: Host {
    fn dependency_add(&self, job: u64, description: &str);
    fn dependency_remove(&self, job: u64, description: &str);
    fn prioritize(&self, job: u64, priority: u64);
    fn reprioritize(&self, job: u64);
    fn reprioritize_all(&self);
    fn annotate(&self, job: u64, annotations: &str);
    fn raise(&self, job: u64, kind: &str, severity: u8, note: &str);
    fn set_flag(&self, job: u64, flag: &str);
    fn post(&self, job: u64, name: &str, context: &str);
    fn update_jobspec(&self, job: u64, updates: &str);
    fn subscribe(&self, job: u64);
    fn unsubscribe(&self, job: u64);
    fn prolog_start(&self, job: u64, description: &str);
    fn prolog_finish(&self, job: u64, description: &str, status: i32);
    fn epilog_start(&self, job: u64, description: &str);
    fn epilog_finish(&self, job: u64, description: &str, status: i32);
    fn look_up(&self, job: u64) -> u64;
    fn set_timer(&self, key: &str, at: f64);
    fn cancel_timer(&self, key: &str);
    fn state_get(&self, key: &str) -> Option<String>;
    fn state_set(&self, key: &str, value: &str);
    fn state_remove(&self, key: &str);
    fn state_keys(&self) -> Vec<String>;
}

/// Runs programs; must be granted.
#[expect(missing_docs, reason = "each is described at its function in wit/")]
pub trait Exec {
    fn spawn(&self, job: u64, command: &[String], options: &[(String, String)]) -> u64;
    fn kill(&self, token: u64, signum: u32);
}

/// Gives resources to jobs; must be granted.
pub trait Bypass {
    /// Gives a job in SCHED this R.
    fn set_resources(&self, job: u64, r: &str);
}

/// What a plugin says of a priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Nothing.
    Pass,
    /// Not known yet.
    Unavailable,
    /// This one.
    Value(u64),
}

/// Follows jobs through the job manager.
#[expect(unused_variables, reason = "most plugins implement a few of them")]
pub trait Jobtap: Sized {
    /// Makes a plugin that knows no job.
    ///
    /// # Errors
    /// A refusal keeps the plugin from loading.
    fn configure(host: &dyn JobtapHost) -> Result<Self, Refusal>;

    /// Takes a changed configuration; what is known of jobs stays.
    ///
    /// # Errors
    /// A refusal keeps the new configuration from taking effect.
    fn reconfigure(&mut self, host: &dyn JobtapHost) -> Result<(), Refusal> {
        Ok(())
    }

    /// Returns the callbacks that are wanted under the present configuration.
    fn topics(&self) -> Vec<String>;

    /// `job.create`
    ///
    /// # Errors
    /// A refusal ends the submission.
    fn create(&mut self, host: &dyn JobtapHost, job: &dyn Job, replay: bool) -> Result<(), Refusal> {
        Ok(())
    }

    /// `job.validate`
    ///
    /// # Errors
    /// A refusal ends the submission or update.
    fn validate(&mut self, host: &dyn JobtapHost, job: &dyn Job) -> Result<(), Refusal> {
        Ok(())
    }

    /// `job.dependency.SCHEME`
    ///
    /// # Errors
    /// A refusal ends the submission.
    fn dependency(
        &mut self,
        host: &dyn JobtapHost,
        job: &dyn Job,
        dependency: &Dependency<'_>,
    ) -> Result<(), Refusal> {
        Ok(())
    }

    /// `job.new`
    fn new_job(&mut self, host: &dyn JobtapHost, job: &dyn Job, replay: bool) {}

    /// `job.destroy`
    fn destroy(&mut self, host: &dyn JobtapHost, job: &dyn Job) {}

    /// `job.state.STATE`
    fn state(&mut self, host: &dyn JobtapHost, job: &dyn Job, state: &str) {}

    /// `job.event.NAME`
    fn event(&mut self, host: &dyn JobtapHost, job: &dyn Job, name: &str, entry: &str) {}

    /// `job.priority.get`
    fn priority(&mut self, host: &dyn JobtapHost, job: &dyn Job) -> Priority {
        Priority::Pass
    }

    /// `job.update.KEY`
    ///
    /// # Errors
    /// A refusal ends the update.
    fn update(
        &mut self,
        host: &dyn JobtapHost,
        job: &dyn Job,
        update: &Update<'_>,
    ) -> Result<Vec<(String, String)>, Refusal> {
        Ok(Vec::new())
    }

    /// `job.inactive-add`
    fn added(&mut self, host: &dyn JobtapHost, job: &dyn Job) {}

    /// `job.inactive-remove`
    fn removed(&mut self, host: &dyn JobtapHost, job: u64) {}

    /// `job.known`: ids and users
    fn known(&mut self, host: &dyn JobtapHost, jobs: &[(u64, u32)]) {}

    /// A timer has expired.
    fn expired(&mut self, host: &dyn JobtapHost, key: &str) {}

    /// A program has ended.
    fn exited(&mut self, host: &dyn JobtapHost, exited: &Exited<'_>) {}

    /// A job was looked up.
    fn looked_up(&mut self, host: &dyn JobtapHost, token: u64, job: Option<&dyn Job>) {}

    /// `service.METHOD`
    ///
    /// # Errors
    /// A refusal answers the request.
    fn request(&mut self, host: &dyn JobtapHost, request: &Request<'_>) -> Result<String, Refusal> {
        Err(Refusal {
            errnum: ENOSYS,
            text: "no such method".to_owned(),
        })
    }

    /// `plugin.query`
    fn query(&mut self, host: &dyn JobtapHost) -> String {
        "{}".to_owned()
    }
}

const ENOSYS: u32 = 38;

/// A dependency of a job.
pub struct Dependency<'a> {
    /// Its scheme.
    pub scheme: &'a str,
    /// The object of the jobspec, JSON text.
    pub entry: &'a str,
    /// The job that its value is the id of.
    pub target: Option<&'a dyn Job>,
    /// The job is told again.
    pub replay: bool,
}

/// A program that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Exited<'a> {
    /// What `spawn` returned.
    pub token: u64,
    /// The job that it ran for.
    pub job: u64,
    /// Wait status.
    pub status: i32,
    /// `ranks` and `hosts` on which it failed; `timeout`.
    pub details: &'a [(String, String)],
}

impl Exited<'_> {
    /// Returns a detail.
    pub fn detail(&self, key: &str) -> Option<&str> {
        self.details
            .iter()
            .find(|(known, _)| known == key)
            .map(|(_, value)| value.as_str())
    }
}

/// A change that a user wants.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// Dotted path in the jobspec.
    pub key: &'a str,
    /// JSON text.
    pub value: &'a str,
    /// Who asks.
    pub userid: u32,
    /// With which roles: bit 0 instance owner.
    pub rolemask: u32,
}

/// A request of a user.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Method.
    pub method: &'a str,
    /// JSON text; empty when there is none.
    pub payload: &'a str,
    /// Who asks.
    pub userid: u32,
    /// With which roles: bit 0 instance owner.
    pub rolemask: u32,
}
