//! `flux pmi`: does the launcher's process management interface work?

use std::io::Write;
use std::time::Instant;

use clap::{ArgMatches, Command};
use flux_formats::idset::IdSet;
use flux_process::pmi::Client;

use crate::common::args::{flag, list, operand, operands, parsed, text, trailing, value, verbose, verbosity};
use crate::common::ctx::{Ctx, eprint, stdout};
use crate::common::error::{CmdError, CmdResult, chain, fail, usage};

pub(super) fn args(command: Command) -> Command {
    verbose(command)
        .arg(value(
            "method",
            None,
            "URI",
            "Specify PMI method to use (simple, single)",
        ))
        .arg(
            flag(
                "libpmi-noflux",
                None,
                "Fail if libpmi method finds the Flux libpmi.so",
            )
            .hide(true),
        )
        .arg(
            flag(
                "libpmi2-cray",
                None,
                "Force-enable libpmi2 cray workarounds for testing",
            )
            .hide(true),
        )
        .arg(value("timeout", Some('t'), "FSD", "Time limit for each operation").hide(true))
        .arg(trailing(
            "operation",
            true,
            "barrier, get KEY..., or exchange, with their options",
        ))
}

/// A connection to a launcher, or the instance of one process that needs none.
enum Pmi {
    Simple(Client),
    Single,
}

fn describe<T>(result: Result<T, impl std::error::Error>) -> Result<T, CmdError> {
    result.or_else(|err| fail(chain(&err)))
}

impl Pmi {
    fn open(methods: &[&str], loud: bool) -> Result<Self, CmdError> {
        let say = |text: &str| {
            if loud {
                eprint(text);
            }
        };
        for method in methods {
            say(&format!("flux-pmi-client: trying '{method}'"));
            match *method {
                "simple" => {
                    let trace: Option<flux_process::pmi::ClientTrace> = None;
                    match describe(Client::from_env(trace))? {
                        Some(client) => {
                            say("simple: selected");
                            say(&format!(
                                "simple: initialize: rank={} size={} name={}: success",
                                client.rank(),
                                client.size(),
                                client.kvsname()
                            ));
                            return Ok(Pmi::Simple(client));
                        }
                        None => say("simple: PMI_FD not found in environ"),
                    }
                }
                "single" => {
                    say("single: selected");
                    say("single: initialize: rank=0 size=1 name=single: success");
                    return Ok(Pmi::Single);
                }
                other => say(&format!("{other}: not supported by this version")),
            }
        }
        fail("no usable PMI method was found; is this program started by a parallel launcher?")
    }

    fn rank(&self) -> u32 {
        match self {
            Pmi::Simple(client) => client.rank(),
            Pmi::Single => 0,
        }
    }

    fn size(&self) -> u32 {
        match self {
            Pmi::Simple(client) => client.size(),
            Pmi::Single => 1,
        }
    }

    fn barrier(&mut self) -> Result<(), CmdError> {
        match self {
            Pmi::Simple(client) => describe(client.barrier()),
            Pmi::Single => Ok(()),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Pmi::Simple(_) => "simple",
            Pmi::Single => "single",
        }
    }

    fn finalize(self) -> Result<(), CmdError> {
        match self {
            Pmi::Simple(client) => describe(client.finalize()),
            Pmi::Single => Ok(()),
        }
    }
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let words = list(matches, "operation");
    let (operation, rest) = words
        .split_first()
        .map_or(("", &[][..]), |(first, rest)| (*first, rest));
    let define: fn(Command) -> Command = match operation {
        "barrier" => |command| {
            command
                .arg(value(
                    "test-count",
                    None,
                    "N",
                    "Execute N barrier operations (default 1)",
                ))
                .arg(value(
                    "test-abort",
                    None,
                    "RANK",
                    "RANK calls abort instead of barrier",
                ))
                .arg(flag("test-timing", None, "Measure duration of the barrier"))
        },
        "get" => |command| {
            command
                .arg(value(
                    "ranks",
                    None,
                    "IDSET",
                    "Get keys on these ranks only (default 0)",
                ))
                .arg(operands("key", 1, "Keys"))
        },
        "exchange" => |command| command.arg(value("count", None, "N", "Execute N exchanges (default 1)")),
        "put" => |command| command.arg(operand("key=value", "Key and value")),
        other => {
            return usage(format!(
                "unknown operation '{other}' (use barrier, get or exchange)"
            ));
        }
    };
    let command = define(Command::new(format!("flux pmi {operation}")));
    let inner = match command.try_get_matches_from(std::iter::once(operation).chain(rest.iter().copied())) {
        Ok(inner) => inner,
        Err(err) => return usage(err.to_string()),
    };
    let loud = verbosity(matches)? > 0;
    let from_env = std::env::var("FLUX_PMI_CLIENT_METHODS").ok();
    let methods: Vec<&str> = match (text(matches, "method"), from_env.as_deref()) {
        (Some(method), _) => vec![method],
        (None, Some(methods)) => methods.split_whitespace().collect(),
        (None, None) => vec!["simple", "libpmi2", "libpmi", "single"],
    };
    let mut pmi = Pmi::open(&methods, loud)?;
    let code = match operation {
        "barrier" => barrier(ctx, &mut pmi, &inner, loud)?,
        "get" => get(&mut pmi, &inner)?,
        "exchange" => exchange(&mut pmi, &inner)?,
        _ => return fail("put is not available: use exchange"),
    };
    let name = pmi.name();
    pmi.finalize()?;
    if loud {
        eprint(format!("{name}: finalize: success"));
    }
    Ok(code)
}

fn barrier(ctx: &Ctx, pmi: &mut Pmi, inner: &ArgMatches, loud: bool) -> CmdResult {
    let count: u32 = parsed(inner, "test-count")?.unwrap_or(1);
    if parsed::<u32>(inner, "test-abort")? == Some(pmi.rank()) {
        ctx.warn("aborting as asked by --test-abort");
        return match std::mem::replace(pmi, Pmi::Single) {
            Pmi::Simple(client) => describe(client.abort(1, "flux-pmi: test abort")).map(|()| 1),
            Pmi::Single => Ok(1),
        };
    }
    for _ in 0..count {
        let start = Instant::now();
        pmi.barrier()?;
        if loud {
            eprint(format!("{}: barrier: success", pmi.name()));
        }
        if pmi.rank() == 0 {
            let timing = if inner.get_flag("test-timing") {
                format!(" in {:.3}s", start.elapsed().as_secs_f64())
            } else {
                String::new()
            };
            writeln!(
                stdout(),
                "{}: completed pmi barrier on {} tasks{timing}",
                pmi.rank(),
                pmi.size()
            )?;
        }
    }
    Ok(0)
}

fn get(pmi: &mut Pmi, inner: &ArgMatches) -> CmdResult {
    let ranks = match text(inner, "ranks") {
        Some("all") => None,
        Some(word) => match word.parse::<IdSet>() {
            Ok(ranks) => Some(ranks),
            Err(_) => return usage(format!("--ranks: invalid idset '{word}'")),
        },
        None => Some(IdSet::from(0)),
    };
    if ranks.is_some_and(|ranks| !ranks.contains(pmi.rank())) {
        return Ok(0);
    }
    for key in list(inner, "key") {
        let value = match pmi {
            Pmi::Simple(client) => describe(client.get(key))?,
            Pmi::Single => None,
        };
        match value {
            Some(value) => writeln!(stdout(), "{value}")?,
            None => return fail(format!("get {key}: key not found")),
        }
    }
    Ok(0)
}

/// Every rank puts a card and reads those of all others.
fn exchange(pmi: &mut Pmi, inner: &ArgMatches) -> CmdResult {
    let count: u32 = parsed(inner, "count")?.unwrap_or(1);
    for round in 0..count {
        let (rank, size) = (pmi.rank(), pmi.size());
        if let Pmi::Simple(client) = pmi {
            describe(client.put(&format!("exchange.{round}.{rank}"), &format!("card-{rank}")))?;
            describe(client.barrier())?;
            for other in 0..size {
                let key = format!("exchange.{round}.{other}");
                if describe(client.get(&key))?.as_deref() != Some(&format!("card-{other}")) {
                    return fail(format!("rank {rank}: wrong value for {key}"));
                }
            }
            describe(client.barrier())?;
        }
        if rank == 0 {
            writeln!(stdout(), "{rank}: completed pmi exchange on {size} tasks")?;
        }
    }
    Ok(0)
}
