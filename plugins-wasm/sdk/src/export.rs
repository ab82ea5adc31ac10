//! How does a type become a component? (The export macros.)

/// Exports a type that implements [`crate::Validator`] as a component of the world `validator`.
#[macro_export]
macro_rules! export_validator {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::validator as world;
            thread_local! {
                static POLICY: ::core::cell::RefCell<Option<$policy>> = const { ::core::cell::RefCell::new(None) };
            }
            struct Exported;
            impl world::exports::flux::policy::plugin::Guest for Exported {
                fn configure() -> Result<(), world::flux::policy::types::Refusal> {
                    let policy = <$policy as $crate::Validator>::configure(&world::Broker)?;
                    POLICY.set(Some(policy));
                    Ok(())
                }
            }
            impl world::exports::flux::policy::validation::Guest for Exported {
                fn validate(job: &world::flux::policy::jobs::Job) -> Result<(), world::flux::policy::types::Refusal> {
                    POLICY.with_borrow_mut(|policy| match policy {
                        Some(policy) => {
                            Ok($crate::Validator::validate(policy, &world::Broker, &world::Borrowed(job))?)
                        }
                        None => Ok(()),
                    })
                }
            }
            world::export_world!(Exported with_types_in world);
        };
    };
}

/// Exports a type that implements [`crate::Frobnicator`] as a component of the world `frobnicator`.
#[macro_export]
macro_rules! export_frobnicator {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::frobnicator as world;
            thread_local! {
                static POLICY: ::core::cell::RefCell<Option<$policy>> = const { ::core::cell::RefCell::new(None) };
            }
            struct Exported;
            impl world::exports::flux::policy::plugin::Guest for Exported {
                fn configure() -> Result<(), world::flux::policy::types::Refusal> {
                    let policy = <$policy as $crate::Frobnicator>::configure(&world::Broker)?;
                    POLICY.set(Some(policy));
                    Ok(())
                }
            }
            impl world::exports::flux::policy::frobnication::Guest for Exported {
                fn frobnicate(
                    job: &world::flux::policy::jobs::Job,
                ) -> Result<Option<String>, world::flux::policy::types::Refusal> {
                    POLICY.with_borrow_mut(|policy| match policy {
                        Some(policy) => {
                            Ok($crate::Frobnicator::frobnicate(policy, &world::Broker, &world::Borrowed(job))?)
                        }
                        None => Ok(None),
                    })
                }
            }
            world::export_world!(Exported with_types_in world);
        };
    };
}

/// Exports a type that implements [`crate::Scheduler`] as a component of the world `scheduler`.
#[macro_export]
macro_rules! export_scheduler {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::scheduler as world;
            use world::exports::flux::policy::scheduling;
            thread_local! {
                static POLICY: ::core::cell::RefCell<Option<$policy>> = const { ::core::cell::RefCell::new(None) };
            }
            struct Exported;
            impl world::exports::flux::policy::plugin::Guest for Exported {
                fn configure() -> Result<(), world::flux::policy::types::Refusal> {
                    POLICY.with_borrow_mut(|policy| match policy {
                        Some(policy) => Ok($crate::Scheduler::reconfigure(policy, &world::Broker)?),
                        None => {
                            *policy = Some(<$policy as $crate::Scheduler>::configure(&world::Broker)?);
                            Ok(())
                        }
                    })
                }
            }
            impl scheduling::Guest for Exported {
                fn submitted(jobs: Vec<scheduling::Pending>, replay: bool) {
                    let jobs = jobs.into_iter().map(Into::into).collect();
                    POLICY.with_borrow_mut(|policy| {
                        if let Some(policy) = policy {
                            $crate::Scheduler::submitted(policy, jobs, replay);
                        }
                    });
                }

                fn removed(ids: Vec<u64>) {
                    POLICY.with_borrow_mut(|policy| {
                        if let Some(policy) = policy {
                            $crate::Scheduler::removed(policy, ids);
                        }
                    });
                }

                fn reprioritized(jobs: Vec<(u64, u64)>) {
                    POLICY.with_borrow_mut(|policy| {
                        if let Some(policy) = policy {
                            $crate::Scheduler::reprioritized(policy, jobs);
                        }
                    });
                }

                fn schedule(changes: scheduling::Changes) -> bool {
                    POLICY.with_borrow_mut(|policy| match policy {
                        Some(policy) => {
                            $crate::Scheduler::schedule(policy, &world::Broker, &world::BrokerPool, changes.into())
                        }
                        None => false,
                    })
                }
            }
            world::export_world!(Exported with_types_in world);
        };
    };
}

/// Exports a type that implements [`crate::Jobtap`] as a component of the world `jobtap`.
#[macro_export]
macro_rules! export_jobtap {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::Jobtap as _;
            use $crate::bindings::jobtap as world;
            use world::exports::flux::policy as exports;
            use world::flux::policy::jobs::Job;
            use world::flux::policy::types::Refusal;
            thread_local! {
                static POLICY: ::core::cell::RefCell<Option<$policy>> = const { ::core::cell::RefCell::new(None) };
            }
            /// Nothing is called before `configure`.
            fn with<R>(default: R, call: impl FnOnce(&mut $policy) -> R) -> R {
                POLICY.with_borrow_mut(|policy| match policy {
                    Some(policy) => call(policy),
                    None => default,
                })
            }
            struct Exported;
            impl exports::plugin::Guest for Exported {
                fn configure() -> Result<(), Refusal> {
                    POLICY.with_borrow_mut(|policy| match policy {
                        Some(policy) => Ok(policy.reconfigure(&world::Broker)?),
                        None => {
                            *policy = Some(<$policy as $crate::Jobtap>::configure(&world::Broker)?);
                            Ok(())
                        }
                    })
                }
            }
            impl exports::callbacks::Guest for Exported {
                fn init() -> Vec<String> {
                    with(Vec::new(), |policy| policy.topics())
                }
            }
            impl exports::admission::Guest for Exported {
                fn create(job: &Job, replay: bool) -> Result<(), Refusal> {
                    with(Ok(()), |policy| Ok(policy.create(&world::Broker, &world::Borrowed(job), replay)?))
                }

                fn validate(job: &Job) -> Result<(), Refusal> {
                    with(Ok(()), |policy| Ok(policy.validate(&world::Broker, &world::Borrowed(job))?))
                }

                fn dependency(
                    job: &Job,
                    scheme: String,
                    entry: String,
                    target: Option<&Job>,
                    replay: bool,
                ) -> Result<(), Refusal> {
                    let target = target.map(world::Borrowed);
                    let dependency = $crate::Dependency {
                        scheme: &scheme,
                        entry: &entry,
                        target: target.as_ref().map(|target| target as &dyn $crate::Job),
                        replay,
                    };
                    with(Ok(()), |policy| {
                        Ok(policy.dependency(&world::Broker, &world::Borrowed(job), &dependency)?)
                    })
                }

                fn new_job(job: &Job, replay: bool) {
                    with((), |policy| policy.new_job(&world::Broker, &world::Borrowed(job), replay));
                }

                fn destroy(job: &Job) {
                    with((), |policy| policy.destroy(&world::Broker, &world::Borrowed(job)));
                }
            }
            impl exports::course::Guest for Exported {
                fn state(job: &Job, state: String) {
                    with((), |policy| policy.state(&world::Broker, &world::Borrowed(job), &state));
                }

                fn event(job: &Job, name: String, entry: String) {
                    with((), |policy| policy.event(&world::Broker, &world::Borrowed(job), &name, &entry));
                }

                fn priority(job: &Job) -> exports::course::Answer {
                    with($crate::Priority::Pass, |policy| {
                        policy.priority(&world::Broker, &world::Borrowed(job))
                    })
                    .into()
                }
            }
            impl exports::updates::Guest for Exported {
                fn update(
                    job: &Job,
                    key: String,
                    value: String,
                    userid: u32,
                    rolemask: u32,
                ) -> Result<Vec<(String, String)>, Refusal> {
                    let update = $crate::Update {
                        key: &key,
                        value: &value,
                        userid,
                        rolemask,
                    };
                    with(Ok(Vec::new()), |policy| {
                        Ok(policy.update(&world::Broker, &world::Borrowed(job), &update)?)
                    })
                }
            }
            impl exports::archive::Guest for Exported {
                fn added(job: &Job) {
                    with((), |policy| policy.added(&world::Broker, &world::Borrowed(job)));
                }

                fn removed(job: u64) {
                    with((), |policy| policy.removed(&world::Broker, job));
                }
            }
            impl exports::roster::Guest for Exported {
                fn known(jobs: Vec<(u64, u32)>) {
                    with((), |policy| policy.known(&world::Broker, &jobs));
                }
            }
            impl exports::wakeups::Guest for Exported {
                fn expired(key: String) {
                    with((), |policy| policy.expired(&world::Broker, &key));
                }

                fn exited(token: u64, job: u64, status: i32, details: Vec<(String, String)>) {
                    let exited = $crate::Exited {
                        token,
                        job,
                        status,
                        details: &details,
                    };
                    with((), |policy| policy.exited(&world::Broker, &exited));
                }

                fn looked_up(token: u64, job: Option<&Job>) {
                    let job = job.map(world::Borrowed);
                    let job = job.as_ref().map(|job| job as &dyn $crate::Job);
                    with((), |policy| policy.looked_up(&world::Broker, token, job));
                }
            }
            impl exports::requests::Guest for Exported {
                fn request(method: String, payload: String, userid: u32, rolemask: u32) -> Result<String, Refusal> {
                    let request = $crate::Request {
                        method: &method,
                        payload: &payload,
                        userid,
                        rolemask,
                    };
                    with(Ok(String::new()), |policy| Ok(policy.request(&world::Broker, &request)?))
                }

                fn query() -> String {
                    with(String::from("{}"), |policy| policy.query(&world::Broker))
                }
            }
            world::export_world!(Exported with_types_in world);
        };
    };
}
