//! Which options have the submission commands?

use clap::{Arg, ArgAction, Command};

use crate::common::args::{flag, value, values};

/// Adds the options of `run`, `submit`, `bulksubmit`, `batch` and `alloc`.
pub(crate) fn add_common(command: Command) -> Command {
    command
        .arg(value("bank", Some('B'), "BANK", "Submit a job to a specific named bank"))
        .arg(value("queue", Some('q'), "NAME", "Submit a job to a specific named queue"))
        .arg(value("time-limit", Some('t'), "MIN|FSD", "Time limit in minutes when no units provided, otherwise in Flux standard duration, e.g. 30s, 2d, 1.5h"))
        .arg(value("urgency", None, "N", "Set job urgency (0-31), hold=0, default=16, expedite=31"))
        .arg(value("job-name", None, "NAME", "Set an optional name for job to NAME"))
        .arg(values("setopt", Some('o'), "OPT", "Set shell option OPT. An optional value is supported with OPT=VAL (default VAL=1)"))
        .arg(values("setattr", Some('S'), "ATTR", "Set job attribute ATTR to VAL. The form ^ATTR=FILE sets it to the JSON content of FILE"))
        .arg(values("add-file", None, "[NAME[:PERMS]=]PATH", "Add a file to the job, extracted to {{tmpdir}}/NAME"))
        .arg(values("dependency", None, "URI", "Set a job dependency using URI (scheme:value)"))
        .arg(values("requires", None, "CONSTRAINT", "Request specific resource properties, hosts or ranks"))
        .arg(value("begin-time", None, "+FSD|TIME", "Set minimum start time as offset from now or an absolute time"))
        .arg(values("env", None, "RULE", "Control how environment variables are exported"))
        .arg(values("env-remove", None, "PATTERN", "Remove environment variables matching PATTERN"))
        .arg(values("env-file", None, "FILE", "Read a set of environment rules from FILE"))
        .arg(values("rlimit", None, "RULE", "Control how resource limits are propagated"))
        .arg(flag("unbuffered", Some('u'), "Disable buffering of input and output"))
        .arg(value("cwd", None, "DIRECTORY", "Set job working directory"))
        .arg(values("flags", None, "FLAGS", "Set comma separated list of job submission flags: debug, waitable, novalidate"))
        .arg(value("signal", None, "[SIG][@TIME]", "Schedule delivery of signal SIG at TIME before job ends (default SIGUSR1@60s)")
            .num_args(0..=1).require_equals(true).default_missing_value(""))
        .arg(flag("quiet", None, "Suppress print of jobid to stdout"))
        .arg(Arg::new("verbose").short('v').long("verbose").action(ArgAction::Count).help("Increase verbosity on stderr (multiple use OK)"))
}

/// Adds the options for input and output, which every command but `alloc` has.
pub(crate) fn add_stdio(command: Command) -> Command {
    command
        .arg(value(
            "input",
            None,
            "FILENAME|RANKS",
            "Redirect job stdin from FILENAME, bypassing KVS",
        ))
        .arg(value(
            "output",
            None,
            "FILENAME",
            "Redirect job stdout to FILENAME, bypassing KVS",
        ))
        .arg(value(
            "error",
            None,
            "FILENAME",
            "Redirect job stderr to FILENAME, bypassing KVS",
        ))
        .arg(flag(
            "label-io",
            Some('l'),
            "Add rank labels to stdout, stderr lines",
        ))
}

/// Adds `--dry-run`.
pub(crate) fn add_dry_run(command: Command) -> Command {
    command.arg(flag(
        "dry-run",
        None,
        "Don't actually submit job, just emit jobspec",
    ))
}

/// Adds the options that say how many tasks run on which resources.
pub(crate) fn add_shape(command: Command) -> Command {
    command
        .arg(value(
            "taskmap",
            None,
            "URI",
            "Select the scheme for mapping task IDs to nodes as a URI (e.g. block, cyclic, manual:VALUE)",
        ))
        .arg(value("ntasks", Some('n'), "N", "Number of tasks to start"))
        .arg(value(
            "cores-per-task",
            Some('c'),
            "N",
            "Number of cores to allocate per task",
        ))
        .arg(value(
            "gpus-per-task",
            Some('g'),
            "N",
            "Number of GPUs to allocate per task",
        ))
        .arg(value("nodes", Some('N'), "N", "Number of nodes to allocate"))
        .arg(flag(
            "exclusive",
            Some('x'),
            "With -N, --nodes, allocate nodes exclusively",
        ))
        .arg(value("cores", None, "N", "Request a total number of cores"))
        .arg(value(
            "tasks-per-node",
            None,
            "N",
            "Force number of tasks per node",
        ))
        .arg(value(
            "tasks-per-core",
            None,
            "N",
            "Force number of tasks per core",
        ))
        .arg(value(
            "gpus-per-node",
            None,
            "N",
            "Request a number of GPUs per node with --nodes",
        ))
}
