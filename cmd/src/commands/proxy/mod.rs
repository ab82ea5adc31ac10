//! `flux proxy`: a local socket that leads to another instance, and a command or shell that uses it.
//!
//! All clients of the socket share one connection. [`router`] is pure and decides where a message goes; [`clients`]
//! reads and writes the sockets; [`session`] polls.

mod clients;
mod router;
mod session;

use clap::{ArgMatches, Command};
use flux_client::{Handle, attr};

use super::version::CORE_VERSION;
use crate::common::args::{flag, list, operand, required, trailing};
use crate::common::ctx::Ctx;
use crate::common::error::{CmdError, CmdResult, fail};
use crate::common::uri::{Wish, resolve};

pub(super) fn args(command: Command) -> Command {
    command
        .arg(flag(
            "force",
            Some('f'),
            "Skip checks when connecting to Flux broker",
        ))
        .arg(flag(
            "nohup",
            Some('n'),
            "Do not send SIGHUP to child processes when connection to Flux is lost",
        ))
        .arg(flag(
            "reconnect",
            None,
            "If broker connection is lost, try to reconnect",
        ))
        .arg(operand("target", "Job id or URI of the instance"))
        .arg(trailing("command", false, "Command to run; a shell if absent"))
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let uri = resolve(ctx, required(matches, "target"), Wish::default())?;
    let mut handle = Handle::open(Some(&uri)).map_err(CmdError::Open)?;
    check_version(
        ctx,
        &attr::get(&mut handle, "version")?,
        matches.get_flag("force"),
    )?;
    let session = session::Settings {
        command: list(matches, "command").join(" "),
        nohup: matches.get_flag("nohup"),
        reconnect: matches.get_flag("reconnect"),
        remote: authority(&uri).map(str::to_owned),
    };
    session::run(ctx, handle, &session)
}

/// Returns `[USER@]HOST[:PORT]` of a remote URI.
fn authority(uri: &str) -> Option<&str> {
    uri.strip_prefix("ssh://")?.split('/').next()
}

/// Compares major and minor version.
fn check_version(ctx: &Ctx, theirs: &str, force: bool) -> Result<(), CmdError> {
    let pair = |version: &str| {
        let mut numbers = version.split('.').map(str::parse::<u32>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    if pair(theirs).is_some() && pair(theirs) == pair(CORE_VERSION) {
        return Ok(());
    }
    let text = format!("proxy version {CORE_VERSION} may not interoperate with broker version {theirs}");
    if force {
        ctx.warn(format!("warning: {text}"));
        return Ok(());
    }
    fail(format!("fatal: {text} (--force to connect anyway)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        assert_eq!(authority("ssh://u@h:1/x"), Some("u@h:1"));
        assert_eq!(authority("local:///x"), None);
    }
}
