//! `flux job`: look at, wait for and change jobs.

mod attach;
pub(crate) mod change;
mod eventlog;
mod id;
mod info;
mod list;
mod status;

use super::{Entry, Kind, plain};

/// The sub-commands of `flux job`.
pub(super) static TABLE: &[Entry] = &[
    plain("attach", "Interactively attach to job", attach::args, attach::run),
    plain(
        "status",
        "Wait for job(s) to complete and exit with largest exit code",
        status::status_args,
        status::status,
    ),
    plain("submit", "Run job", status::submit_args, status::submit),
    plain("id", "Convert jobid(s) to another form", id::args, id::run),
    plain(
        "eventlog",
        "Display eventlog for a job",
        eventlog::eventlog_args,
        eventlog::eventlog,
    ),
    plain(
        "wait-event",
        "Wait for an event",
        eventlog::wait_args,
        eventlog::wait_event,
    ),
    plain("info", "Display info for a job", info::info_args, info::info),
    plain("stats", "Get current job stats", info::stats_args, info::stats),
    plain(
        "namespace",
        "Convert job ids to job guest kvs namespace names",
        info::namespace_args,
        info::namespace,
    ),
    plain(
        "last",
        "List my most recently submitted job id(s)",
        info::last_args,
        info::last,
    ),
    plain(
        "wait",
        "Wait for job(s) to complete",
        status::wait_args,
        status::wait,
    ),
    plain(
        "memo",
        "Post an RFC 21 memo to a job",
        info::memo_args,
        info::memo,
    ),
    plain(
        "taskmap",
        "Utility function for working with job task maps",
        status::taskmap_args,
        status::taskmap,
    ),
    plain(
        "timeleft",
        "Find remaining runtime for job or enclosing instance",
        info::timeleft_args,
        info::timeleft,
    ),
    plain(
        "hostpids",
        "Print host:pid pairs for tasks in job",
        status::hostpids_args,
        status::hostpids,
    ),
    plain(
        "purge",
        "Purge the oldest inactive jobs",
        change::purge_args,
        change::purge,
    ),
    plain(
        "urgency",
        "Set job urgency (0-31, HOLD, EXPEDITE, DEFAULT)",
        change::urgency_args,
        change::urgency,
    ),
    plain(
        "raise",
        "Raise exception on one or more jobs",
        change::raise_args,
        change::raise,
    ),
    plain(
        "raiseall",
        "Raise an exception on multiple jobs",
        change::raiseall_args,
        change::raiseall,
    ),
    plain(
        "kill",
        "Send signal to one or more running jobs",
        change::kill_args,
        change::kill,
    ),
    plain(
        "killall",
        "Send signal to multiple running jobs",
        change::killall_args,
        change::killall,
    ),
    hidden(plain("list", "List jobs", list::list_args, list::list_jobs)),
    hidden(plain(
        "list-inactive",
        "List inactive jobs",
        list::list_inactive_args,
        list::list_inactive,
    )),
    hidden(plain(
        "list-ids",
        "List job(s) by id",
        list::list_ids_args,
        list::list_ids,
    )),
];

const fn hidden(entry: Entry) -> Entry {
    let Entry {
        name,
        about,
        style,
        kind,
        ..
    } = entry;
    match kind {
        Kind::Leaf { args, run } => Entry {
            name,
            about,
            style,
            hidden: true,
            kind: Kind::Leaf { args, run },
        },
        other => Entry {
            name,
            about,
            style,
            hidden: true,
            kind: other,
        },
    }
}
