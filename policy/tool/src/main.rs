//! `flux policy`: write, build, test, measure and simulate policies.
//!
//! Everything runs in the broker's own policy host: what works here works there. The command is a program of its own, so that `flux` itself
//! holds no WebAssembly engine.

mod bench;
mod dirs;
mod output;
mod plugins;
mod simulate;

use std::process::ExitCode;

use clap::Command;

fn main() -> ExitCode {
    let command = Command::new("flux policy")
        .about("Write, build, test and simulate policies")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(plugins::list_command())
        .subcommand(plugins::inspect_command())
        .subcommand(bench::command())
        .subcommand(simulate::command());
    let result = match command.get_matches().subcommand() {
        Some(("list", args)) => plugins::list(args),
        Some(("inspect", args)) => plugins::inspect(args),
        Some(("bench", args)) => bench::main(args),
        Some(("simulate", args)) => simulate::main(args),
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
