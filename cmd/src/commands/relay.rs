//! `flux relay`: the far end of an `ssh://` connection: bytes between standard input and output and the broker's socket.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use clap::{ArgMatches, Command};

use crate::common::args::{operand, required};
use crate::common::ctx::Ctx;
use crate::common::error::{CmdError, CmdResult};

/// Bytes copied at once.
const SIZE: usize = 64 * 1024;

pub(super) fn args(command: Command) -> Command {
    command.arg(operand("path", "Path of the broker's socket"))
}

pub(super) fn run(_ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let path = required(matches, "path");
    // Messages name this host: the user may not know that it is involved.
    let host =
        nix::unistd::gethostname().map_or_else(|_| String::new(), |name| name.to_string_lossy().into_owned());
    let what = format!("{host}: {path}");
    let mut broker = UnixStream::connect(path).map_err(CmdError::file(what.clone()))?;
    let mut back = broker.try_clone().map_err(CmdError::file(what.clone()))?;
    let forward = std::thread::spawn(move || {
        let result = copy(&mut std::io::stdin(), &mut broker);
        // the other direction ends with what the broker still sends
        let _closed = broker.shutdown(Shutdown::Write);
        result
    });
    copy(&mut back, &mut std::io::stdout()).map_err(CmdError::file(what.clone()))?;
    if forward.is_finished() {
        // a thread that panicked has said so
        forward.join().unwrap_or(Ok(())).map_err(CmdError::file(what))?;
    }
    Ok(0)
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<()> {
    let mut buffer = vec![0; SIZE];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(err) if err.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
            Err(err) => return Err(err),
        };
        match to
            .write_all(buffer.get(..count).unwrap_or(&[]))
            .and_then(|()| to.flush())
        {
            Err(err) if err.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            other => other?,
        }
    }
}
