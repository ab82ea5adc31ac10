//! `flux policy`: write, build, test, measure and simulate policies.
//!
//! Everything runs in the broker's own policy host: what works here works there. The command is a program of its own, so that `flux` itself
//! holds no WebAssembly engine.

mod bench;
mod build;
mod dirs;
mod ingest;
mod lang;
mod new;
mod output;
mod plugins;
mod replay;
mod simulate;
mod tap;
mod test;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Command;
use flux_policy::World;

/// The broker's: plugins cost here what they cost there (docs/design/0008-allocator.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VALIDATOR: &str = "job-validator";
const FROBNICATOR: &str = "job-frobnicator";

/// Returns the words of the command line; `flux job-validator` comes as a program of that name.
fn words() -> Vec<OsString> {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let called = words.first().map(Path::new).and_then(Path::file_name);
    let called = called.and_then(|name| name.to_str()?.strip_prefix("flux-"));
    if let Some(name) = [VALIDATOR, FROBNICATOR]
        .into_iter()
        .find(|name| called == Some(name))
    {
        words.insert(1, name.into());
    }
    words
}

fn main() -> ExitCode {
    let command = Command::new("flux policy")
        .about("Write, build, test and simulate policies")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(new::command())
        .subcommand(build::command())
        .subcommand(test::command())
        .subcommand(replay::command())
        .subcommand(plugins::list_command())
        .subcommand(plugins::inspect_command())
        .subcommand(bench::command())
        .subcommand(simulate::command())
        .subcommand(ingest::command(VALIDATOR))
        .subcommand(ingest::command(FROBNICATOR));
    let result = match command.get_matches_from(words()).subcommand() {
        Some(("new", args)) => new::main(args),
        Some(("build", args)) => build::main(args),
        Some(("test", args)) => test::main(args),
        Some(("replay", args)) => replay::main(args),
        Some(("list", args)) => plugins::list(args),
        Some(("inspect", args)) => plugins::inspect(args),
        Some(("bench", args)) => bench::main(args),
        Some(("simulate", args)) => simulate::main(args),
        Some((VALIDATOR, args)) => ingest::main(World::Validator, args),
        Some((FROBNICATOR, args)) => ingest::main(World::Frobnicator, args),
        _ => Ok(()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&format!("flux-policy: ERROR: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
