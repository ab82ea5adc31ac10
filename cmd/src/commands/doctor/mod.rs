//! `flux doctor`: is this node fit for a multi-user system instance? Each check says what it found, and what to do.
//!
//! The list is the preflight list of the administrator's guide. Nothing is changed, no broker is needed.

mod files;
mod imp;
mod network;
mod node;
mod peers;
mod report;

use std::io::Write;
use std::path::PathBuf;

use clap::{ArgMatches, Command};
use serde_json::Value;

use super::config::read_path;
use crate::common::args::{flag, optional, text, value};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::CmdResult;
use report::Report;

/// What the help says beside its options.
const CHECKS: &str = "\
Run it as root on each node: an ordinary user may look at less. No broker is needed, and nothing is changed.

Checks, in this order:
  users        The instance owner exists
  system, security, imp-config
               Each configuration space is there, is root's, can be read
  certificate  The CURVE certificate belongs to the owner, mode 0400
  munge        munged answers, and reads its own credentials
  clock        The clock is kept in step
  imp          flux-imp is setuid, becomes root, may be used by the owner for the shell
  pam          The stack \"flux\" is there when the IMP wants it
  cgroup       Jobs can be held in control groups
  resources    Cores, GPUs and host name are those of the configuration
  statedir     The leader's state directory is the owner's, with room left
  network, port, parent
               This host is in bootstrap.hosts, its address is here, its parent's answers
  peers        With --peers: users, certificate, configuration, MUNGE and clock of other hosts

Each line is ok, warning, FAILED or skipped; below a failure stands what to do.
Exit status: 0 when nothing failed, 1 when something did.";

/// The user that runs system instances unless told otherwise.
const OWNER: &str = "flux";

pub(super) fn args(command: Command) -> Command {
    command
        .arg(value(
            "owner",
            None,
            "USER",
            "Check for an instance that runs as USER (default: flux)",
        ))
        .arg(optional(
            "peers",
            None,
            "HOSTS",
            "all",
            "Also compare with HOSTS, or all configured hosts, through ssh (FLUX_SSH)",
        ))
        .arg(flag("json", None, "Print JSON"))
        .arg(flag(
            "facts",
            None,
            "Print what another host's doctor compares, as JSON",
        ))
        .after_help(CHECKS)
}

/// What all checks look at.
#[derive(Debug)]
struct Site {
    owner: String,
    /// Directory of each configuration space, and its content when it can be read.
    system: (PathBuf, Option<Value>),
    security: PathBuf,
    imp: (PathBuf, Option<Value>),
    host: String,
}

impl Site {
    fn new(owner: &str) -> Self {
        let space =
            |name: &str| PathBuf::from(flux_formats::paths::sysconfdir()).join(format!("flux/{name}/conf.d"));
        let read = |path: PathBuf| {
            let config = read_path(&path).ok();
            (path, config)
        };
        Site {
            owner: owner.to_owned(),
            system: read(space("system")),
            security: space("security"),
            imp: read(space("imp")),
            host: nix::unistd::gethostname()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
        }
    }

    /// Returns a value of the system space by a JSON pointer.
    fn of_system(&self, pointer: &str) -> Option<&Value> {
        self.system.1.as_ref()?.pointer(pointer)
    }

    /// Returns a text of the system space.
    fn text(&self, pointer: &str) -> Option<&str> {
        self.of_system(pointer)?.as_str()
    }

    fn owner_uid(&self) -> Option<u32> {
        let user = nix::unistd::User::from_name(&self.owner).ok()??;
        Some(user.uid.as_raw())
    }
}

pub(super) fn run(_ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let site = Site::new(text(matches, "owner").unwrap_or(OWNER));
    if matches.get_flag("facts") {
        writeln!(stdout(), "{}", peers::facts(&site))?;
        return Ok(0);
    }
    let mut report = Report::default();
    node::users(&site, &mut report);
    files::spaces(&site, &mut report);
    files::certificate(&site, &mut report);
    node::munge(&site, &mut report);
    node::clock(&mut report);
    imp::program(&site, &mut report);
    imp::pam(&site, &mut report);
    imp::cgroup(&site, &mut report);
    node::resources(&site, &mut report);
    node::state(&site, &mut report);
    network::endpoints(&site, &mut report);
    if let Some(hosts) = text(matches, "peers") {
        peers::compare(&site, hosts, &mut report);
    }
    let mut out = stdout();
    if matches.get_flag("json") {
        writeln!(out, "{}", report.json())?;
    } else {
        report.print(&mut out)?;
    }
    out.flush()?;
    Ok(u8::from(report.failed()))
}
