//! Project tasks. Each sub-command is a module; this file only names them.

mod audit;
mod bench;
mod wasm;
mod wit;

use std::process::ExitCode;

use anyhow::{Result, bail};

/// Name, what it does, and the function that gets the arguments after the name.
type Task = (&'static str, &'static str, fn(&[String]) -> Result<()>);

const TASKS: &[Task] = &[
    ("audit", "the IMP: its figures, budgets and tables", audit::run),
    (
        "bench",
        "measure an installation beside flux-core's figures",
        bench::run,
    ),
    (
        "wasm",
        "build the policies (plugins-wasm/) into target/policies/",
        wasm::run,
    ),
    ("wit", "check that no released interface has changed", wit::run),
];

fn main() -> ExitCode {
    match dispatch(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<()> {
    let usage = || {
        TASKS
            .iter()
            .map(|(name, what, _)| format!("\n  cargo xtask {name:8} {what}"))
            .collect::<String>()
    };
    let Some((name, rest)) = args.split_first() else {
        bail!("which task?{}", usage());
    };
    match TASKS.iter().find(|(known, ..)| known == name) {
        Some((.., task)) => task(rest),
        None => bail!("no task '{name}'{}", usage()),
    }
}

/// Prints a line for the person who waits.
#[expect(clippy::print_stderr, reason = "this is a command line tool")]
fn report(line: &str) {
    eprintln!("{line}");
}

/// Prints a line of the result.
#[expect(clippy::print_stdout, reason = "this is a command line tool")]
fn print(line: &str) {
    println!("{line}");
}
