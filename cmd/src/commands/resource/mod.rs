//! `flux resource`: which resources are there, and which may be used?

mod admin;
mod list;
mod status;

use super::{Entry, tagged};

/// The sub-commands of `flux resource`.
pub(super) static TABLE: &[Entry] = &[
    tagged(
        "acquire-mute",
        "Mute the scheduler's resource acquisition",
        |command| command,
        admin::acquire_mute,
    ),
    tagged(
        "drain",
        "Drain resources or list drained resources",
        admin::drain_args,
        admin::drain,
    ),
    tagged(
        "undrain",
        "Undrain resources",
        admin::undrain_args,
        admin::undrain,
    ),
    tagged(
        "status",
        "Show overall status of system resources",
        status::args,
        status::run,
    ),
    tagged("list", "List scheduler view of resources", list::args, list::run),
    tagged(
        "info",
        "Show total number of nodes, cores and GPUs",
        list::info_args,
        list::info,
    ),
    tagged(
        "reload",
        "Reload resource module state",
        admin::reload_args,
        admin::reload,
    ),
    tagged("R", "Emit scheduler's R in JSON", list::info_args, list::print_r),
    tagged(
        "eventlog",
        "Watch resource event log",
        admin::eventlog_args,
        admin::eventlog,
    ),
];
