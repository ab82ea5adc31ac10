//! How are N brokers on one machine started, introduced to each other, watched and ended?

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flux_process::pmi::{Driver, Event, ServerConfig};
use flux_process::signal::SignalFd;
use flux_process::{Child, Command, Interest, PollSet, Signal, WaitStatus};

use super::{ExitMode, Launch, TestOptions};
use crate::common::ctx::Ctx;
use crate::common::error::{CmdError, CmdResult, fail, usage};

/// Descriptor on which each broker finds its PMI connection.
const PMI_FD: i32 = 3;

/// What a ready descriptor belongs to.
#[derive(Clone, Copy, Debug)]
enum Token {
    Pmi(usize),
    Broker(usize),
    Signals,
}

/// A started broker.
struct Broker {
    rank: u32,
    child: Option<Child>,
    code: Option<u8>,
}

/// The run directory; removed at the end when it was made here or `--test-rundir-cleanup` says so.
struct RunDir {
    path: PathBuf,
    remove: bool,
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if self.remove {
            // A broker has normally removed what it made; what is left is of no use.
            let _kept = std::fs::remove_dir_all(&self.path);
        }
    }
}

impl RunDir {
    fn new(options: &TestOptions) -> Result<Self, CmdError> {
        if let Some(path) = &options.rundir {
            return Ok(RunDir {
                path: path.clone(),
                remove: options.rundir_cleanup,
            });
        }
        let tmp = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
        let template = tmp.join("flux-XXXXXX");
        let path = nix::unistd::mkdtemp(&template)
            .map_err(|errno| CmdError::file(template.display().to_string())(errno.into()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))
            .map_err(CmdError::file(path.display().to_string()))?;
        Ok(RunDir { path, remove: true })
    }
}

pub(super) fn run(ctx: &Ctx, launch: &Launch, options: TestOptions) -> CmdResult {
    let mapping = process_mapping(&options.clique, options.size)?;
    let rundir = RunDir::new(&options)?;
    if launch.noexec {
        for rank in 0..options.size {
            launch.show(
                ctx,
                &format!("{rank}: "),
                &broker_argv(launch, &options, &rundir.path, rank),
            );
        }
        return Ok(0);
    }
    let mut driver = Driver::new(ServerConfig {
        kvsname: "0".to_owned(),
        universe_size: options.size,
        appnum: 0,
        ranks: (0..options.size).collect(),
        preput: vec![("PMI_process_mapping".to_owned(), mapping)],
        exchange: false,
        ..ServerConfig::default()
    });
    if launch.verbose > 1 {
        let name = ctx.name.clone();
        driver.set_trace(Box::new(move |rank, who, line| {
            crate::common::ctx::eprint(format!("{name}: {rank}: {who}: {line}"));
        }));
    }
    let signals = SignalFd::new(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT])
        .map_err(CmdError::file("signals"))?;
    let mut session = Session {
        ctx,
        launch,
        options: &options,
        driver,
        brokers: Vec::new(),
        signals,
        timer: None,
    };
    session.start(&rundir.path)?;
    session.wait()?;
    Ok(session.exit_code())
}

/// Returns the options and program of one broker.
fn broker_argv(launch: &Launch, options: &TestOptions, rundir: &Path, rank: u32) -> Vec<OsString> {
    let dir = rundir.display();
    let mut extra = vec![
        format!("-Srundir={dir}"),
        format!("-Slocal-uri=local://{dir}/local-{rank}"),
    ];
    if let Some(host) = usize::try_from(rank)
        .ok()
        .and_then(|rank| options.hosts.as_ref()?.get(rank))
    {
        extra.push(format!("-Shostname={host}"));
    }
    launch.argv(&extra, rank == 0)
}

/// Returns the value of the PMI key `PMI_process_mapping` for a clique mode.
fn process_mapping(clique: &str, size: u32) -> Result<String, CmdError> {
    match clique {
        "single" => Ok(format!("(vector,(0,1,{size}))")),
        "per-broker" => Ok(format!("(vector,(0,{size},1))")),
        "none" => Ok(String::new()),
        map => match taskmap_blocks(map) {
            Some(blocks) => {
                let blocks: Vec<String> = blocks
                    .iter()
                    .map(|[node, nodes, tasks]| format!("({node},{nodes},{tasks})"))
                    .collect();
                Ok(format!("(vector,{})", blocks.join(",")))
            }
            None => usage(format!(
                "--test-pmi-clique: '{map}' is not single, per-broker, none or a taskmap"
            )),
        },
    }
}

/// Reads a taskmap in JSON form, `[[nodeid,nnodes,ppn,repeat],...]`.
fn taskmap_blocks(text: &str) -> Option<Vec<[u32; 3]>> {
    let map: Vec<[u32; 4]> = serde_json::from_str(text).ok()?;
    let mut blocks = Vec::new();
    for [node, nodes, tasks, repeat] in map {
        for _ in 0..repeat {
            blocks.push([node, nodes, tasks]);
        }
    }
    (!blocks.is_empty()).then_some(blocks)
}

struct Session<'a> {
    ctx: &'a Ctx,
    launch: &'a Launch,
    options: &'a TestOptions,
    driver: Driver,
    brokers: Vec<Broker>,
    signals: SignalFd,
    /// When the remaining brokers are next signalled, and with what.
    timer: Option<(Instant, Signal)>,
}

impl Session<'_> {
    fn start(&mut self, rundir: &Path) -> Result<(), CmdError> {
        let count = if self.options.leader_only {
            1
        } else {
            self.options.size
        };
        for rank in 0..count {
            if let Err(err) = self.start_one(rundir, rank) {
                self.signal_all(Signal::SIGKILL);
                return Err(err);
            }
        }
        Ok(())
    }

    fn start_one(&mut self, rundir: &Path, rank: u32) -> Result<(), CmdError> {
        let argv = broker_argv(self.launch, self.options, rundir, rank);
        self.launch.show(self.ctx, &format!("{rank}: "), &argv);
        let Some((program, rest)) = argv.split_first() else {
            return Ok(());
        };
        let client = usize::try_from(rank).unwrap_or(usize::MAX);
        let connection = self
            .driver
            .connect(client)
            .map_err(CmdError::file("PMI socket pair"))?;
        let mut command = Command::new(program.clone());
        command.args(rest.iter().cloned()).fd(PMI_FD, connection);
        let own: [(&str, String); 3] = [
            ("PMI_FD", PMI_FD.to_string()),
            ("PMI_RANK", rank.to_string()),
            ("PMI_SIZE", self.options.size.to_string()),
        ];
        let inherited = self
            .ctx
            .env
            .iter()
            .filter(|(key, _)| !own.iter().any(|(name, _)| key == name))
            .cloned();
        command.env(
            inherited.chain(
                own.iter()
                    .map(|(name, value)| (OsString::from(name), OsString::from(value))),
            ),
        );
        if rank > 0 {
            command.null(0);
        }
        let child = match command.spawn() {
            Ok(child) => child,
            Err(err) => return fail(format!("{}: {err}", program.display())),
        };
        self.brokers.push(Broker {
            rank,
            child: Some(child),
            code: None,
        });
        Ok(())
    }

    /// Serves PMI and signals until every broker has ended.
    fn wait(&mut self) -> Result<(), CmdError> {
        let mut set = PollSet::new();
        let mut ready = Vec::new();
        let mut events = Vec::new();
        while self.brokers.iter().any(|broker| broker.child.is_some()) {
            set.clear();
            set.add(&self.signals, Interest::Read, Token::Signals);
            self.driver.add_to(&mut set, Token::Pmi);
            for (at, broker) in self.brokers.iter().enumerate() {
                if let Some(child) = &broker.child {
                    set.add(child.pidfd(), Interest::Read, Token::Broker(at));
                }
            }
            let timeout = self
                .timer
                .map(|(at, _)| at.saturating_duration_since(Instant::now()));
            set.wait(timeout).map_err(CmdError::file("poll"))?;
            ready.clear();
            ready.extend(set.ready().map(|(token, _)| token));
            for token in &ready {
                match *token {
                    Token::Pmi(client) => {
                        self.driver.on_ready(client, &mut events);
                        self.pmi_events(&mut events);
                    }
                    Token::Broker(at) => self.reap(at),
                    Token::Signals => self.forward()?,
                }
            }
            self.expire();
        }
        Ok(())
    }

    fn pmi_events(&mut self, events: &mut Vec<Event>) {
        for event in events.drain(..) {
            if let Event::Abort { rank, message, .. } = event {
                self.ctx.warn(format!("{rank}: PMI_Abort(): {message}"));
            }
        }
    }

    fn reap(&mut self, at: usize) {
        let Some(broker) = self.brokers.get_mut(at) else {
            return;
        };
        let Some(child) = broker.child.take() else { return };
        let status = child.wait().unwrap_or(WaitStatus::exited(1));
        let code = u8::try_from(status.exit_code()).unwrap_or(1);
        broker.code = Some(code);
        let (rank, pid) = (broker.rank, child.pid());
        if let Some(signal) = status.signal() {
            let name = Signal::new(signal).and_then(Signal::name).unwrap_or("a signal");
            self.ctx.warn(format!("{rank} (pid {pid}) killed by {name}"));
        } else if code > 0 || self.launch.verbose > 0 {
            self.ctx.warn(format!("{rank} (pid {pid}) exited with rc={code}"));
        }
        let triggers = self.options.exit_mode == ExitMode::Any || rank == 0;
        if triggers && self.timer.is_none() && self.options.exit_timeout_secs.is_finite() {
            let wait = Duration::from_secs_f64(self.options.exit_timeout_secs.clamp(0.0, 1e9));
            self.timer = Some((Instant::now() + wait, Signal::SIGTERM));
        }
    }

    /// Passes signals on to the leader, which ends the others. An interrupt reaches a foreground group by itself.
    fn forward(&mut self) -> Result<(), CmdError> {
        while let Some(signal) = self.signals.next_signal().map_err(CmdError::file("signals"))? {
            if signal == Signal::SIGINT || signal == Signal::SIGQUIT {
                continue;
            }
            let leader = self.brokers.first().and_then(|broker| broker.child.as_ref());
            match leader {
                Some(child) => {
                    // A leader that ends at this moment needs no signal.
                    let _ended = child.send_signal(signal);
                }
                None => self.signal_all(signal),
            }
        }
        Ok(())
    }

    fn signal_all(&self, signal: Signal) {
        for child in self.brokers.iter().filter_map(|broker| broker.child.as_ref()) {
            let _ended = child.send_signal(signal);
        }
    }

    /// Ends brokers that outlive another one for too long: SIGTERM, then SIGKILL.
    fn expire(&mut self) {
        let Some((at, signal)) = self.timer else { return };
        if Instant::now() < at {
            return;
        }
        for broker in self.brokers.iter().filter(|broker| broker.child.is_some()) {
            self.ctx.warn(format!(
                "{}: still running, sending {}",
                broker.rank,
                signal.name().unwrap_or("")
            ));
        }
        self.signal_all(signal);
        let wait = Duration::from_secs_f64(self.options.killer_timeout_secs.clamp(0.0, 1e9));
        self.timer = Some((Instant::now() + wait, Signal::SIGKILL));
    }

    fn exit_code(&self) -> u8 {
        let codes = self.brokers.iter().map(|broker| broker.code.unwrap_or(1));
        match self.options.exit_mode {
            ExitMode::Any => codes.max().unwrap_or(0),
            ExitMode::Leader => codes.into_iter().next().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings() {
        assert_eq!(process_mapping("single", 4).unwrap(), "(vector,(0,1,4))");
        assert_eq!(process_mapping("per-broker", 4).unwrap(), "(vector,(0,4,1))");
        assert_eq!(process_mapping("none", 4).unwrap(), "");
        assert_eq!(
            process_mapping("[[0,2,1,2]]", 4).unwrap(),
            "(vector,(0,2,1),(0,2,1))"
        );
        assert!(process_mapping("other", 4).is_err());
    }
}
