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
