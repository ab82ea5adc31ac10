//! What does systemd hear of this broker? Attribute `broker.sd-notify` and the socket in `NOTIFY_SOCKET` (sd_notify(3)).

use crate::attrs::Attrs;
use crate::state_machine::State;
use flux_formats::fsd::Fsd;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to systemd; without one nothing is said.
#[derive(Debug, Default)]
pub(super) struct Notify {
    socket: Option<UnixDatagram>,
    /// How long each state of the stop may take (`broker.sd-stop-timeout`).
    stop_timeout: Option<Duration>,
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(name)?,
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl Notify {
    /// Opens the socket when the attribute asks for it.
    ///
    /// # Errors
    /// What to log; the broker runs all the same.
    pub(super) fn open(attrs: &Attrs, name: Option<&OsStr>) -> Result<Self, String> {
        if matches!(attrs.get("broker.sd-notify"), None | Some("" | "0")) {
            return Ok(Notify::default());
        }
        let Some(name) = name else {
            return Err("broker.sd-notify is set, but systemd gave no NOTIFY_SOCKET".to_owned());
        };
        let stop_timeout = attrs
            .get("broker.sd-stop-timeout")
            .and_then(|text| text.parse::<Fsd>().ok())
            .and_then(Fsd::to_duration)
            .filter(|timeout| !timeout.is_zero());
        match connect(name) {
            Ok(socket) => Ok(Notify {
                socket: Some(socket),
                stop_timeout,
            }),
            Err(err) => Err(format!("NOTIFY_SOCKET {}: {err}", name.display())),
        }
    }

    fn send(&self, text: &str) {
        if let Some(socket) = &self.socket
            && let Err(err) = socket.send(text.as_bytes())
        {
            tracing::debug!(err = %err, "systemd was not told");
        }
    }

    /// Says a line of status, as `state-machine.sd-notify` asks.
    pub(super) fn status(&self, state: State, text: Option<&str>) {
        self.extend(state);
        if let Some(text) = text {
            // one line: more could be other assignments
            let line = text.lines().next().unwrap_or_default();
            self.send(&format!("STATUS={line}"));
        }
    }

    /// Asks for more time while the broker stops.
    fn extend(&self, state: State) {
        if state >= State::Cleanup
            && let Some(timeout) = self.stop_timeout
        {
            self.send(&format!("EXTEND_TIMEOUT_USEC={}", timeout.as_micros()));
        }
    }

    /// Says that a state was entered; words as in flux-core.
    pub(super) fn entered(&self, state: State, rank: u32, size: u32, parent: &str) {
        if self.socket.is_none() {
            return;
        }
        let text = match state {
            State::Join if rank != 0 => Some(format!("Joining Flux instance via {parent}")),
            State::ConfigSync if rank != 0 => Some("Fetching configuration update from parent".to_owned()),
            State::Quorum => Some("Waiting for instance quorum".to_owned()),
            State::Run => {
                let role = if rank == 0 { "leader" } else { "member" };
                Some(format!("Running as {role} of {size} node Flux instance"))
            }
            State::Shutdown => Some("Waiting for overlay peers to shutdown".to_owned()),
            State::Exit => Some("Exiting".to_owned()),
            _ => None,
        };
        self.status(state, text.as_deref());
        if state == State::Join {
            // a follower may have to wait for its parent for as long as it takes
            self.send("READY=1");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 256];
        let mut lines = Vec::new();
        while let Ok(size) = socket.recv(&mut buffer) {
            lines.push(String::from_utf8(buffer[..size].to_vec()).unwrap());
        }
        lines
    }

    #[test]
    fn systemd_hears_the_states() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_nonblocking(true).unwrap();
        let mut attrs = Attrs::new();
        let silent = Notify::open(&attrs, Some(path.as_os_str())).unwrap();
        silent.entered(State::Run, 0, 8, "");
        assert!(heard(&systemd).is_empty(), "not asked for");
        attrs.set_internal("broker.sd-notify", "1");
        attrs.set_internal("broker.sd-stop-timeout", "90");
        assert!(Notify::open(&attrs, None).unwrap_err().contains("NOTIFY_SOCKET"));
        let gone = dir.path().join("gone");
        let err = Notify::open(&attrs, Some(gone.as_os_str())).unwrap_err();
        assert!(err.contains("gone"), "{err}");
        let notify = Notify::open(&attrs, Some(path.as_os_str())).unwrap();
        for state in [State::Join, State::Quorum, State::Run] {
            notify.entered(state, 0, 8, "");
        }
        let leader = [
            "READY=1",
            "STATUS=Waiting for instance quorum",
            "STATUS=Running as leader of 8 node Flux instance",
        ];
        assert_eq!(heard(&systemd), leader);
        notify.entered(State::Join, 3, 8, "tcp://test0:8050");
        notify.entered(State::Run, 3, 8, "");
        notify.entered(State::Shutdown, 3, 8, "");
        notify.status(State::Run, Some("loading\nREADY=0"));
        let member = [
            "STATUS=Joining Flux instance via tcp://test0:8050",
            "READY=1",
            "STATUS=Running as member of 8 node Flux instance",
            "EXTEND_TIMEOUT_USEC=90000000",
            "STATUS=Waiting for overlay peers to shutdown",
            "STATUS=loading",
        ];
        assert_eq!(heard(&systemd), member);
    }

    #[test]
    fn abstract_names_are_understood() {
        let name = format!("@flux-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name.as_bytes()[1..]).unwrap();
        let systemd = UnixDatagram::bind_addr(&address).unwrap();
        systemd.set_nonblocking(true).unwrap();
        let mut attrs = Attrs::new();
        attrs.set_internal("broker.sd-notify", "1");
        let notify = Notify::open(&attrs, Some(OsStr::new(&name))).unwrap();
        notify.entered(State::Join, 0, 1, "");
        assert_eq!(heard(&systemd), ["READY=1"]);
    }
}
