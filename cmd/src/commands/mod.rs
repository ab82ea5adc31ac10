//! The table of sub-commands: one name, one line of help, one function each.

mod alloc;
mod attr;
mod batch;
mod bulksubmit;
mod cancel;
mod config;
mod content;
mod cron;
mod dmesg;
mod doctor;
mod dump;
mod env;
mod event;
mod exec;
mod fsck;
mod gc;
mod hostlist;
mod housekeeping;
mod job;
mod jobs;
mod jobtap;
mod keygen;
mod kvs;
mod logger;
mod module;
mod multi_prog;
mod overlay;
mod perilog_run;
mod pgrep;
mod ping;
mod pmi;
mod proxy;
mod pstree;
mod queue;
mod relay;
mod resource;
mod resource_set;
mod restore;
mod run;
mod shutdown;
mod small;
mod sproc;
mod start;
mod startlog;
mod submit;
mod update;
mod uptime;
mod uri;
mod version;
mod watch;
mod why;

use clap::{ArgMatches, Command};

use crate::common::ctx::{Ctx, Style};
use crate::common::error::CmdResult;

/// A sub-command.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The word on the command line.
    pub(crate) name: &'static str,
    /// One line of help.
    pub(crate) about: &'static str,
    /// How it words its errors.
    pub(crate) style: Style,
    /// True when lists do not show it.
    pub(crate) hidden: bool,
    /// What it is.
    pub(crate) kind: Kind,
}

/// What a sub-command is.
#[derive(Debug)]
pub(crate) enum Kind {
    /// A function with options.
    Leaf {
        /// Adds the options.
        args: fn(Command) -> Command,
        /// Does the work.
        run: fn(&Ctx, &ArgMatches) -> CmdResult,
    },
    /// A list of further sub-commands.
    Group(&'static [Entry]),
    /// Another program of this project, which gets all words.
    Program {
        /// Its name.
        name: &'static str,
        /// Environment variable that names another one.
        variable: &'static str,
    },
    /// A command of the original that this version does not have yet.
    Missing,
}

/// Makes a leaf whose errors look like those of the original's C programs.
pub(crate) const fn plain(
    name: &'static str,
    about: &'static str,
    args: fn(Command) -> Command,
    run: fn(&Ctx, &ArgMatches) -> CmdResult,
) -> Entry {
    Entry {
        name,
        about,
        style: Style::Plain,
        hidden: false,
        kind: Kind::Leaf { args, run },
    }
}

/// Makes a leaf whose errors look like those of the original's Python programs.
pub(crate) const fn tagged(
    name: &'static str,
    about: &'static str,
    args: fn(Command) -> Command,
    run: fn(&Ctx, &ArgMatches) -> CmdResult,
) -> Entry {
    Entry {
        name,
        about,
        style: Style::Tagged,
        hidden: false,
        kind: Kind::Leaf { args, run },
    }
}

/// Makes a group of sub-commands.
pub(crate) const fn group(
    name: &'static str,
    about: &'static str,
    style: Style,
    table: &'static [Entry],
) -> Entry {
    Entry {
        name,
        about,
        style,
        hidden: false,
        kind: Kind::Group(table),
    }
}

const fn program(
    name: &'static str,
    about: &'static str,
    program: &'static str,
    variable: &'static str,
) -> Entry {
    Entry {
        name,
        about,
        style: Style::Plain,
        hidden: false,
        kind: Kind::Program {
            name: program,
            variable,
        },
    }
}

const fn missing(name: &'static str, about: &'static str) -> Entry {
    Entry {
        name,
        about,
        style: Style::Tagged,
        hidden: false,
        kind: Kind::Missing,
    }
}

/// Every sub-command, in the order in which help lists them.
pub(crate) static COMMANDS: &[Entry] = &[
    plain(
        "fsck",
        "Check integrity of content store data",
        fsck::args,
        fsck::run,
    ),
    group(
        "content",
        "Access instance content storage",
        Style::Plain,
        content::TABLE,
    ),
    plain(
        "dump",
        "Write KVS snapshot to portable archive",
        dump::args,
        dump::run,
    ),
    plain(
        "restore",
        "Read KVS snapshot from portable archive",
        restore::args,
        restore::run,
    ),
    plain("gc", "Collect unreferenced content", gc::args, gc::run),
    plain(
        "keygen",
        "Generate keys for Flux security",
        keygen::args,
        keygen::run,
    ),
    plain(
        "doctor",
        "Check a node of a multi-user system instance",
        doctor::args,
        doctor::run,
    ),
    plain("pmi", "Test PMI client functionality", pmi::args, pmi::run),
    plain(
        "shutdown",
        "Shut down the Flux instance",
        shutdown::args,
        shutdown::run,
    ),
    plain(
        "startlog",
        "List instance start/stop log",
        startlog::args,
        startlog::run,
    ),
    plain(
        "exec",
        "Execute processes across flux ranks",
        exec::args,
        exec::run,
    ),
    group("overlay", "Manage overlay network", Style::Plain, overlay::TABLE),
    group("config", "Manage configuration", Style::Plain, config::TABLE),
    tagged(
        "hostlist",
        "Fetch, combine, and manipulate Flux hostlists",
        hostlist::args,
        hostlist::run,
    ),
    group(
        "R",
        "Read, write, and manipulate resource sets",
        Style::Plain,
        resource_set::TABLE,
    ),
    tagged("why", "Tell what keeps a job from running", why::args, why::run),
    plain(
        "uptime",
        "Tell how long Flux has been up and running",
        uptime::args,
        uptime::run,
    ),
    group(
        "queue",
        "List and manipulate flux queues",
        Style::Tagged,
        queue::TABLE,
    ),
    group(
        "resource",
        "List and manipulate Flux resources",
        Style::Tagged,
        resource::TABLE,
    ),
    group("admin", "Administer the instance", Style::Tagged, small::ADMIN),
    group(
        "cgroup",
        "Show the control group of a process",
        Style::Plain,
        small::CGROUP,
    ),
    group(
        "housekeeping",
        "List and control housekeeping",
        Style::Tagged,
        housekeeping::TABLE,
    ),
    group(
        "perilog-run",
        "Run a prolog or epilog on all ranks of a job",
        Style::Tagged,
        perilog_run::TABLE,
    ),
    group(
        "job-exec-override",
        "Control mock execution of a job",
        Style::Tagged,
        small::OVERRIDE,
    ),
    plain(
        "lptest",
        "Print a line printer test pattern",
        small::lptest_args,
        small::lptest,
    ),
    tagged(
        "multi-prog",
        "Run a different program per task",
        multi_prog::args,
        multi_prog::run,
    ),
    tagged(
        "pgrep",
        "Search for jobs by name",
        pgrep::pgrep_args,
        pgrep::pgrep,
    ),
    tagged("pkill", "Cancel jobs by name", pgrep::pkill_args, pgrep::pkill),
    tagged(
        "post-job-event",
        "Post an event to a job's eventlog",
        small::post_event_args,
        small::post_event,
    ),
    tagged("pstree", "Show a tree of jobs", pstree::args, pstree::run),
    group(
        "sproc",
        "List and control subprocesses of brokers",
        Style::Tagged,
        sproc::TABLE,
    ),
    tagged("update", "Update active jobs", update::args, update::run),
    tagged("watch", "Monitor one or more Flux jobs", watch::args, watch::run),
    tagged("cancel", "Cancel one or more jobs", cancel::args, cancel::run),
    tagged("jobs", "List jobs submitted to Flux", jobs::args, jobs::run),
    BULKSUBMIT,
    BATCH,
    ALLOC,
    program(
        "broker",
        "Start a broker of a Flux instance",
        "flux-broker",
        "FLUX_BROKER_PATH",
    ),
    program(
        "policy",
        "Write, build, test and simulate policies",
        "flux-policy",
        "FLUX_POLICY_PATH",
    ),
    program("shell", "Start the job shell", "flux-shell", "FLUX_SHELL_PATH"),
    plain(
        "proxy",
        "Create a proxy environment for a Flux instance",
        proxy::args,
        proxy::run,
    ),
    plain(
        "relay",
        "Relay messages between stdio and a broker's socket",
        relay::args,
        relay::run,
    ),
    tagged("uri", "Resolve a Flux URI", uri::args, uri::run),
    RUN,
    SUBMIT,
    plain(
        "dmesg",
        "Print or control log ring buffer",
        dmesg::args,
        dmesg::run,
    ),
    plain(
        "env",
        "Print the flux environment or execute a command inside it",
        env::args,
        env::run,
    ),
    group(
        "cron",
        "Schedule tasks on timers and events",
        Style::Plain,
        cron::TABLE,
    ),
    group(
        "event",
        "Send and receive Flux events",
        Style::Plain,
        event::TABLE,
    ),
    plain(
        "getattr",
        "Get a broker attribute",
        attr::getattr_args,
        attr::getattr,
    ),
    plain(
        "help",
        "Display help for flux commands",
        |command| command,
        |_, _| Ok(0),
    ),
    group(
        "job",
        "Get job status, info, etc (see: flux help job)",
        Style::Plain,
        job::TABLE,
    ),
    group("kvs", "Flux key-value store utility", Style::Plain, kvs::TABLE),
    plain("logger", "Create a Flux log entry", logger::args, logger::run),
    plain(
        "lsattr",
        "List broker attributes",
        attr::lsattr_args,
        attr::lsattr,
    ),
    group(
        "module",
        "Manage/query Flux broker modules",
        Style::Plain,
        module::TABLE,
    ),
    plain(
        "ping",
        "Measure round-trip latency to Flux services",
        ping::args,
        ping::run,
    ),
    plain(
        "setattr",
        "Set a broker attribute",
        attr::setattr_args,
        attr::setattr,
    ),
    plain(
        "start",
        "Bootstrap a local Flux instance",
        start::args,
        start::run,
    ),
    plain(
        "version",
        "Display flux version information",
        version::args,
        version::run,
    ),
    // the old names of the submission commands
    Entry {
        name: "mini",
        about: "Submit jobs (old name of flux run, submit, bulksubmit, batch, alloc)",
        style: Style::Tagged,
        hidden: true,
        kind: Kind::Group(MINI),
    },
    missing("archive", "Archive files in the KVS"),
    missing("fortune", "Print a fortune"),
    missing("heaptrace", "Control heap tracing of the broker"),
    missing("imp_exec_helper", "Feed flux-imp with a job's request"),
    program(
        "job-frobnicator",
        "Modify jobspecs at ingest",
        "flux-policy",
        "FLUX_POLICY_PATH",
    ),
    program(
        "job-validator",
        "Validate jobspecs at ingest",
        "flux-policy",
        "FLUX_POLICY_PATH",
    ),
    group(
        "jobtap",
        "List, load and remove job-manager plugins",
        Style::Tagged,
        jobtap::TABLE,
    ),
    missing("modprobe", "Load and unload groups of modules"),
    missing("python", "Run python with Flux's modules"),
    missing("slurm-expiration-sync", "Follow the time limit of a Slurm job"),
    missing("terminus", "Manage terminal sessions"),
    missing("top", "Display running Flux jobs"),
];

// The submission commands have an old name each.
const RUN: Entry = tagged("run", "Run a Flux job interactively", run::args, run::run);
const SUBMIT: Entry = tagged(
    "submit",
    "Submit a job to a Flux instance",
    submit::args,
    submit::run,
);
const BULKSUBMIT: Entry = tagged(
    "bulksubmit",
    "Submit jobs in bulk to a Flux instance",
    bulksubmit::args,
    bulksubmit::run,
);
const BATCH: Entry = tagged("batch", "Submit a batch script to Flux", batch::args, batch::run);
const ALLOC: Entry = tagged(
    "alloc",
    "Allocate a new Flux instance for interactive use",
    alloc::args,
    alloc::run,
);

/// `flux mini`: scripts of older versions still call the submission commands by these names.
static MINI: &[Entry] = &[RUN, SUBMIT, BULKSUBMIT, BATCH, ALLOC];
