//! Write Flux policies in Rust: implement one trait, export it with one macro.
//!
//! | world | trait | macro |
//! |---|---|---|
//! | validator | [`Validator`] | [`export_validator!`] |
//! | frobnicator | [`Frobnicator`] | [`export_frobnicator!`] |
//! | scheduler | [`Scheduler`] | [`export_scheduler!`] |
//! | jobtap | [`Jobtap`] | [`export_jobtap!`] |
//!
//! A policy sees the broker only through what its functions receive ([`Host`], [`Job`], [`Pool`]), so that its unit tests run natively with
//! the stand-ins of [`fake`]. The interface itself, with when each function is called and what a refusal does, is in `wit/`.

mod export;

pub use flux_policy_sdk_core::*;

/// Generated bindings, for the export macros; not for direct use.
#[doc(hidden)]
pub mod bindings {
    pub use flux_policy_sdk_frobnicator as frobnicator;
    pub use flux_policy_sdk_jobtap as jobtap;
    pub use flux_policy_sdk_scheduler as scheduler;
    pub use flux_policy_sdk_validator as validator;
}
