//! `flux policy`: write, build, test, measure and simulate policies.
//!
//! Everything runs in the broker's own policy host: what works here works there. The command is a program of its own, so that `flux` itself
//! holds no WebAssembly engine.

mod bench;
mod build;
mod dirs;
mod new;
mod output;
mod plugins;
mod simulate;
mod test;

use std::process::ExitCode;

use clap::Command;

fn main() -> ExitCode {
    let command = Command::new("flux policy")
        .about("Write, build, test and simulate policies")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(new::command())
        .subcommand(build::command())
        .subcommand(test::test_command())
        .subcommand(test::replay_command())
        .subcommand(plugins::list_command())
        .subcommand(plugins::inspect_command())
        .subcommand(bench::command())
        .subcommand(simulate::command());
    let result = match command.get_matches().subcommand() {
        Some(("new", args)) => new::main(args),
        Some(("build", args)) => build::main(args),
        Some(("test", args)) => test::test(args),
        Some(("replay", args)) => test::replay(args),
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
