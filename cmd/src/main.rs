//! The `flux` command: finds the sub-command that was asked for and runs it.

mod attach;
mod commands;
mod common;
mod driver;
mod joblist;
mod paths;
mod submission;

use std::process::ExitCode;

fn main() -> ExitCode {
    driver::run(std::env::args_os().collect())
}
