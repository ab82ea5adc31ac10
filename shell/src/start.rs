//! How does a shell come up and its tasks start?

use std::os::fd::OwnedFd;
use std::path::Path;

use flux_client::NODEID_ANY;
use flux_process::{Command, ProcessGroup, fd};
use serde::Serialize;
use serde_json::Value;

use crate::ctx::{Ctx, Purpose};
use crate::env::Env;
use crate::eventlog::{self, Header};
use crate::lines::Pieces;
use crate::log::log;
use crate::options::OptionError;
use crate::phases::Shell;
use crate::plugins::affinity::Affinity;
use crate::plugins::doom::Doom;
use crate::plugins::files::{self, FileError};
use crate::plugins::gpubind::GpuBind;
use crate::plugins::input::{Input, InputError};
use crate::plugins::output::{Output, OutputError};
use crate::plugins::pmi::{Pmi, TASK_FD};
use crate::plugins::proctable::Proctables;
use crate::plugins::pty::Ptys;
use crate::plugins::rexec::Rexec;
use crate::plugins::rlimit;
use crate::plugins::signal::Warning;
use crate::plugins::tmpdir::TmpDir;
use crate::task::{Reader, Stream, Task};
use crate::template::Scope;

/// Why the tasks cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// A shell option is wrong.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// Output cannot be set up.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// Input cannot be set up.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The job's files cannot be put in place.
    #[error(transparent)]
    Files(#[from] FileError),
    /// An option asks for something that this shell does not have.
    #[error("{option}: {reason}")]
    Unsupported {
        /// Name of the option.
        option: &'static str,
        /// What is missing.
        reason: &'static str,
    },
    /// The system refuses a resource.
    #[error("{what}: {text}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// Why not.
        text: String,
    },
}

impl StartError {
    pub(crate) fn system(what: &'static str, error: &std::io::Error) -> Self {
        StartError::System {
            what,
            text: crate::errno_text(error),
        }
    }
}

/// Options of the original that would silently do nothing here.
const UNSUPPORTED: [(&str, &str); 6] = [
    ("userrc", "Lua scripts are not supported by this shell"),
    ("initrc", "Lua scripts are not supported by this shell"),
    ("stop-tasks-in-exec", "not supported by this shell"),
    ("coprocess", "not supported by this shell"),
    ("stage-in", "not supported by this shell"),
    ("hwloc.xmlfile", "not supported by this shell"),
];

/// Refuses options that ask for what is not there.
///
/// # Errors
/// [`StartError::Unsupported`].
pub(crate) fn check_options(ctx: &Ctx) -> Result<(), StartError> {
    let asked = |name: &str| match ctx.info.options.get(name) {
        None | Some(Value::Bool(false)) => false,
        Some(value) => value.as_i64() != Some(0),
    };
    match UNSUPPORTED.into_iter().find(|(name, _)| asked(name)) {
        Some((option, reason)) => Err(StartError::Unsupported { option, reason }),
        None => Ok(()),
    }
}

/// Registers the shell's service and its interest in kill events; nobody waits for the answers, since the broker
/// handles what follows later.
pub(crate) fn register(ctx: &mut Ctx) {
    let service = serde_json::json!({"service": ctx.info.service});
    ctx.rpc("service.add", NODEID_ANY, &service, Purpose::Setup);
    let topic = serde_json::json!({"topic": format!("shell-{}.", ctx.info.id.0)});
    ctx.rpc("event.subscribe", NODEID_ANY, &topic, Purpose::Setup);
}

/// Begins the output eventlog, whose header comes before everything that is logged; only the leader does.
pub(crate) fn open_eventlog(ctx: &mut Ctx) {
    if ctx.info.is_leader() {
        let header = Header::output(ctx.info.taskmap.ntasks());
        eventlog::push(&mut ctx.events.output, "header", &header);
        ctx.leader_is_ready();
    }
}

/// Changes to the job's directory, or to /tmp when that is not possible.
pub(crate) fn change_directory(ctx: &mut Ctx) {
    let Some(cwd) = ctx.info.system.cwd.clone() else {
        return;
    };
    let Err(error) = std::env::set_current_dir(&cwd) else {
        return;
    };
    let text = crate::errno_text(&error);
    let host = ctx.info.node().map_or_else(String::new, |node| node.host.clone());
    log!(
        ctx,
        Error,
        "",
        "host {host}: Could not change dir to {cwd}: {text}. Going to /tmp instead"
    );
    if let Err(error) = std::env::set_current_dir("/tmp") {
        let text = crate::errno_text(&error);
        log!(ctx, Error, "", "Could not change dir to /tmp: {text}");
    }
}

/// Writes `shell.init` (RFC 50); only the leader does.
pub(crate) fn announce(ctx: &mut Ctx, ptys: Option<&Ptys>) {
    #[derive(Serialize)]
    struct Init<'a> {
        service: &'a str,
        #[serde(rename = "leader-rank")]
        leader_rank: u32,
        size: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        pty: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        capture: Option<u32>,
    }
    if !ctx.info.is_leader() {
        return;
    }
    let (pty, capture) = ptys.map_or((None, None), Ptys::announcement);
    let info = &ctx.info;
    let init = Init {
        service: &info.service,
        leader_rank: info.broker_rank_of(0),
        size: info.shell_size(),
        pty,
        capture,
    };
    eventlog::push(&mut ctx.events.exec, "shell.init", &init);
}

/// Writes `shell.start` (RFC 50); only the leader does.
pub(crate) fn announce_start(ctx: &mut Ctx) {
    #[derive(Serialize)]
    struct Start {
        taskmap: Value,
    }
    if ctx.info.is_leader() {
        let start = Start {
            taskmap: ctx.info.taskmap.to_wrapped_value(),
        };
        eventlog::push(&mut ctx.events.exec, "shell.start", &start);
    }
}

/// Everything that is made from the options before the tasks.
pub(crate) struct Parts {
    pub(crate) output: Output,
    pub(crate) input: Input,
    pub(crate) doom: Doom,
    pub(crate) proctables: Proctables,
    pub(crate) rexec: Rexec,
    pub(crate) warning: Option<Warning>,
    pub(crate) pmi: Option<Pmi>,
    pub(crate) ptys: Option<Ptys>,
    pub(crate) affinity: Option<Affinity>,
    pub(crate) gpubind: Option<GpuBind>,
    pub(crate) tmpdir: Option<TmpDir>,
    pub(crate) env: Env,
}

/// Reads the options and makes the parts.
///
/// # Errors
/// Any [`StartError`].
pub(crate) fn prepare(ctx: &mut Ctx) -> Result<Parts, StartError> {
    ctx.configure()?;
    check_options(ctx)?;
    let (shape, size) = (ctx.info.shape, ctx.info.taskmap.ntasks());
    let count = |number: Option<u32>| number.map_or("-1".to_owned(), |number| number.to_string());
    log!(
        ctx,
        Debug,
        "",
        "{}: task_count={size} slot_count={} cores_per_slot={} slots_per_node={}",
        ctx.info.shell_rank,
        count(shape.slot_count),
        shape.cores_per_slot,
        count(shape.slots_per_node)
    );
    log_tasks(ctx);
    change_directory(ctx);
    rlimit::apply(ctx);
    let mut env = Env::from_jobspec(&ctx.info.system.environment);
    let tmpdir = match TmpDir::create(&ctx.info, env.get("TMPDIR")) {
        Ok(tmpdir) => Some(tmpdir),
        Err(error) => {
            log!(
                ctx,
                Warn,
                "tmpdir",
                "no directory for temporary files: {}",
                crate::errno_text(&error)
            );
            None
        }
    };
    let tmpdir_path = tmpdir
        .as_ref()
        .map_or_else(|| "/tmp".to_owned(), |tmpdir| tmpdir.path().into_owned());
    if let Some(files) = &ctx.info.system.files {
        files::extract(files, Path::new(&tmpdir_path))?;
    }
    set_job_variables(ctx, &mut env, &tmpdir_path);
    let mut output = Output::new(ctx)?;
    output.init(ctx, &tmpdir_path)?;
    let input = Input::new(ctx)?;
    input.init(ctx);
    Ok(Parts {
        output,
        input,
        doom: Doom::new(ctx)?,
        proctables: Proctables::default(),
        rexec: Rexec::default(),
        warning: Warning::new(ctx)?,
        pmi: Pmi::new(ctx)?,
        ptys: Ptys::new(ctx)?,
        affinity: Affinity::new(ctx)?,
        gpubind: GpuBind::new(ctx)?,
        tmpdir,
        env,
    })
}

fn log_tasks(ctx: &mut Ctx) {
    let tasks: flux_formats::idset::IdSet = ctx.info.local_tasks.iter().copied().collect();
    let cores = ctx
        .info
        .node()
        .map(|node| node.cores.to_string())
        .unwrap_or_default();
    log!(
        ctx,
        Debug,
        "",
        "{}: tasks [{tasks}] on cores {cores}",
        ctx.info.shell_rank
    );
}

/// Sets the variables that all tasks of the job share.
fn set_job_variables(ctx: &Ctx, env: &mut Env, tmpdir: &str) {
    let info = &ctx.info;
    env.set("FLUX_JOB_ID", info.id_text.as_str());
    env.set("FLUX_JOB_SIZE", info.taskmap.ntasks().to_string());
    env.set("FLUX_JOB_NNODES", info.shell_size().to_string());
    env.set("FLUX_JOB_TMPDIR", tmpdir);
    env.set(
        "FLUX_JOB_ID_PATH",
        format!("{}/{}", info.jobid_path.trim_end_matches('/'), info.id_text),
    );
    for name in ["FLUX_URI", "FLUX_KVS_NAMESPACE"] {
        if let Ok(value) = std::env::var(name) {
            env.set(name, value);
        }
    }
    env.set("PMI_SIZE", info.taskmap.ntasks().to_string());
}

/// Sets the variables whose values have tags (shell option `env-expand`).
fn expand_variables(scope: Scope<'_>, env: &mut Env) {
    if let Some(Value::Object(templates)) = scope.info.options.get("env-expand") {
        for (name, template) in templates {
            if let Some(text) = template.as_str() {
                env.set(name, scope.expand(text));
            }
        }
    }
}

impl Shell {
    /// Starts all local tasks; a task that cannot be started ends the job.
    pub(crate) fn start_tasks(&mut self) {
        for (local_id, rank) in (0..).zip(self.ctx.info.local_tasks.clone()) {
            let mut task = Task::new(rank, local_id);
            let place = crate::log::Place {
                file: file!(),
                line: line!(),
            };
            match self.start_task(&mut task) {
                Ok(None) => self.tasks.push(task),
                Ok(Some((exit_code, text))) => {
                    let host = self
                        .ctx
                        .info
                        .node()
                        .map_or_else(String::new, |node| node.host.clone());
                    let message = format!("task {rank} (host {host}): start failed: {text}");
                    self.ctx.die(exit_code, &message, place);
                    break;
                }
                Err(error) => {
                    self.ctx.die(1, &error.to_string(), place);
                    break;
                }
            }
        }
        if let Some(affinity) = &self.parts.affinity {
            affinity.leave();
        }
    }

    /// Starts one task; a command that cannot be executed gives its exit code and text.
    fn start_task(&mut self, task: &mut Task) -> Result<Option<(i32, String)>, StartError> {
        let tmpdir = self
            .parts
            .tmpdir
            .as_ref()
            .map_or_else(|| "/tmp".into(), |tmpdir| tmpdir.path());
        let info = &self.ctx.info;
        let scope = Scope {
            info,
            shell_rank: info.shell_rank,
            task: Some((task.rank, task.local_id)),
            tmpdir: &tmpdir,
        };
        let mut words = info.command.iter().map(|word| scope.expand(word));
        let program = words.next().unwrap_or_default();
        let mut command = Command::new(program.as_str());
        command.args(words);
        let mut env = self.parts.env.clone();
        expand_variables(scope, &mut env);
        env.set("FLUX_TASK_RANK", task.rank.to_string());
        env.set("FLUX_TASK_LOCAL_ID", task.local_id.to_string());
        env.set("PMI_RANK", task.rank.to_string());
        if let Some(gpubind) = &self.parts.gpubind {
            gpubind.apply(task.local_id, &mut env);
        }
        if let Some(pmi) = &mut self.parts.pmi {
            let socket = pmi
                .connect(task.local_id, &mut env)
                .map_err(|error| StartError::system("PMI", &error))?;
            command.fd(TASK_FD, socket);
        }
        let terminal = self.parts.ptys.as_mut().filter(|ptys| ptys.covers(task.rank));
        if let Some(ptys) = terminal {
            let device = ptys
                .open(task)
                .map_err(|error| StartError::system("pty", &error))?;
            command.controlling_tty(device);
            task.has_terminal = true;
        } else {
            let stdin = self.parts.input.open(&self.ctx, task, &tmpdir)?;
            command.fd(0, stdin);
            for (stream, number) in [(Stream::Stdout, 1), (Stream::Stderr, 2)] {
                let by_line = self.parts.output.by_line(stream);
                let writer = task
                    .open_reader(stream, by_line)
                    .map_err(|error| StartError::system("pipe", &error))?;
                command.fd(number, writer);
            }
            task.own_group = self.ctx.info.options.get("nosetpgrp").is_none();
            if task.own_group {
                command.group(ProcessGroup::Own);
            }
        }
        command.env(env.iter());
        if let Some(affinity) = &self.parts.affinity {
            affinity.enter(&mut self.ctx, task.local_id);
        }
        match command.spawn() {
            Ok(child) => {
                task.pid = child.pid();
                task.child = Some(child);
                adjust_oom(&mut self.ctx, task.pid);
                Ok(None)
            }
            Err(error) => {
                let errnum = u32::try_from(error.errnum()).unwrap_or(0);
                let text = format!("{program}: {}", flux_formats::errno::strerror(errnum));
                Ok(Some((error.exit_code(), text)))
            }
        }
    }
}

impl Task {
    /// Makes the pipe of a stream and returns the task's end.
    fn open_reader(&mut self, stream: Stream, by_line: bool) -> std::io::Result<OwnedFd> {
        let (reader, writer) = fd::pipe()?;
        if let Some(slot) = self.readers.get_mut(stream.index()) {
            *slot = Some(Reader {
                fd: reader,
                pieces: Pieces::new(by_line),
            });
        }
        Ok(writer)
    }
}

/// Applies `oom.adjust`: how readily the kernel kills the task when memory is short.
fn adjust_oom(ctx: &mut Ctx, pid: u32) {
    match ctx.info.options.number("oom.adjust") {
        Ok(None) => {}
        Ok(Some(score)) => {
            if let Err(error) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()) {
                log!(
                    ctx,
                    Warn,
                    "oom",
                    "oom.adjust={score}: {}",
                    crate::errno_text(&error)
                );
            }
        }
        Err(error) => log!(ctx, Warn, "oom", "{error}"),
    }
}
