//! What is the same in the bindings of several worlds?

/// Implements [`crate::Host`] on a world's generated imports.
#[doc(hidden)]
#[macro_export]
macro_rules! implement_host {
    () => {
        /// The broker.
        #[derive(Debug)]
        pub struct Broker;

        impl $crate::Host for Broker {
            fn log(&self, level: $crate::Level, message: &str) {
                use flux::policy::log::Level as To;
                let level = match level {
                    $crate::Level::Err => To::Err,
                    $crate::Level::Warning => To::Warning,
                    $crate::Level::Notice => To::Notice,
                    $crate::Level::Info => To::Info,
                    $crate::Level::Debug => To::Debug,
                };
                flux::policy::log::write(level, message);
            }

            fn now(&self) -> f64 {
                flux::policy::clock::now()
            }

            fn config(&self, path: &str) -> Option<String> {
                flux::policy::config::get(path)
            }

            fn args(&self) -> String {
                flux::policy::config::args()
            }
        }

        impl From<$crate::Refusal> for flux::policy::types::Refusal {
            fn from(refusal: $crate::Refusal) -> Self {
                Self {
                    errnum: refusal.errnum,
                    text: refusal.text,
                }
            }
        }
    };
}

/// Implements [`crate::Job`] on a world's generated resource.
#[doc(hidden)]
#[macro_export]
macro_rules! implement_job {
    () => {
        /// The job of a call.
        #[derive(Debug)]
        pub struct Borrowed<'a>(pub &'a flux::policy::jobs::Job);

        impl $crate::Job for Borrowed<'_> {
            fn id(&self) -> u64 {
                self.0.id()
            }

            fn userid(&self) -> u32 {
                self.0.userid()
            }

            fn rolemask(&self) -> u32 {
                self.0.rolemask()
            }

            fn urgency(&self) -> u32 {
                self.0.urgency()
            }

            fn flags(&self) -> u32 {
                self.0.flags()
            }

            fn jobspec(&self) -> String {
                self.0.jobspec()
            }

            fn attribute(&self, path: &str) -> Option<String> {
                self.0.attribute(path)
            }

            fn state(&self) -> u32 {
                self.0.state()
            }

            fn priority(&self) -> i64 {
                self.0.priority()
            }

            fn t_submit(&self) -> f64 {
                self.0.t_submit()
            }

            fn resources(&self) -> Option<String> {
                self.0.resources()
            }

            fn posted(&self, event: &str) -> bool {
                self.0.posted(event)
            }

            fn result(&self) -> u32 {
                self.0.result()
            }

            fn ended_by(&self) -> String {
                self.0.ended_by()
            }
        }
    };
}
