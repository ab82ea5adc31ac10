//! `flux version`: which version is this, and which one answers?

use std::io::Write;

use clap::{ArgMatches, Command};
use flux_client::attr;

use crate::common::ctx::{Ctx, stdout};
use crate::common::error::CmdResult;

/// Version of flux-core whose protocols these programs speak.
pub(crate) const CORE_VERSION: &str = "0.88.0";
/// Version of these programs.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) fn args(command: Command) -> Command {
    command
}

pub(super) fn run(ctx: &Ctx, _matches: &ArgMatches) -> CmdResult {
    let mut out = stdout();
    writeln!(out, "commands:    \t\t{CORE_VERSION}")?;
    writeln!(out, "libflux-core:\t\t{CORE_VERSION}")?;
    writeln!(out, "vendor:      \t\t{VERSION}")?;
    let instance = ctx.env_str("FLUX_URI").is_some() || ctx.uri.is_some();
    if instance && let Ok(mut handle) = ctx.open() {
        let version = attr::get(&mut handle, "version")?;
        writeln!(out, "broker:  \t\t{version}")?;
        writeln!(out, "FLUX_URI:\t\t{}", handle.uri())?;
    }
    writeln!(out, "build-options:\t\trust")?;
    out.flush()?;
    Ok(0)
}
