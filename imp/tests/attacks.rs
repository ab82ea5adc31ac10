//! Every case of the list of attacks (docs/imp/attacks.md), by number, against the setuid binary.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]
#![expect(clippy::print_stderr, reason = "seeds and skipped cases are said")]
#![expect(unreachable_pub, reason = "several test programs share the world")]

mod attacks {
    mod files;
    mod guest;
    mod identity;
    mod input;
    mod invocation;
    mod limits;
    mod pam;
    mod process;
    mod run;
    mod signature;
}
#[path = "world/mod.rs"]
mod world;
