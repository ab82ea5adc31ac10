//! `flux keygen`: make the certificate that the brokers of an instance share.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use clap::{ArgMatches, Command};
use flux_zmtp::keys::Keypair;
use flux_zmtp::zcert::Certificate;

use super::version::CORE_VERSION;
use crate::common::args::{operand_optional, text, value};
use crate::common::ctx::Ctx;
use crate::common::error::{CmdError, CmdResult, chain, fail, usage};
use crate::common::time::{now, strftime};
use crate::common::user;

pub(super) fn args(command: Command) -> Command {
    command
        .arg(value(
            "name",
            Some('n'),
            "NAME",
            "Set certificate name (default: hostname)",
        ))
        .arg(value(
            "meta",
            None,
            "KEYVALS",
            "Add/update comma separated key=value metadata",
        ))
        .arg(operand_optional(
            "path",
            "File to write, readable only by its owner; nothing is kept if absent",
        ))
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let keypair = match Keypair::generate() {
        Ok(keypair) => keypair,
        Err(err) => return fail(chain(&err)),
    };
    let host = nix::unistd::gethostname().map_or_else(
        |_| "localhost".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    let mut certificate = Certificate::new(keypair);
    let mut metadata = vec![
        (
            "name".to_owned(),
            text(matches, "name").unwrap_or(&host).to_owned(),
        ),
        ("keygen.hostname".to_owned(), host.clone()),
        ("keygen.time".to_owned(), strftime(now(), "%FT%T")),
        ("keygen.userid".to_owned(), user::own().to_string()),
        ("keygen.flux-core-version".to_owned(), CORE_VERSION.to_owned()),
        ("keygen.zmq-version".to_owned(), "4.3.4".to_owned()),
    ];
    for pair in text(matches, "meta")
        .into_iter()
        .flat_map(|pairs| pairs.split(','))
    {
        let Some((key, value)) = pair.split_once('=') else {
            return usage(format!("--meta: '{pair}' is not KEY=VALUE"));
        };
        match metadata.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value.to_owned(),
            None => metadata.push((key.to_owned(), value.to_owned())),
        }
    }
    certificate.metadata = metadata;
    let encoded = match certificate.encode(&[]) {
        Ok(encoded) => encoded,
        Err(err) => return fail(chain(&err)),
    };
    let Some(path) = text(matches, "path") else {
        ctx.warn("no PATH given: a key was generated but is not kept");
        return Ok(0);
    };
    // An old certificate may be readable by others; the new one never is, not even for a moment.
    if let Err(err) = std::fs::remove_file(path)
        && err.kind() != std::io::ErrorKind::NotFound
    {
        return Err(CmdError::file(path)(err));
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(CmdError::file(path))?;
    file.write_all(encoded.as_bytes()).map_err(CmdError::file(path))?;
    Ok(0)
}
