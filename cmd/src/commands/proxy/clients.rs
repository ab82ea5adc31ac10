//! How do the clients of the proxy's socket come, speak and go?

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use bytes::{Buf, BytesMut};
use flux_client::msg::{FrameDecoder, frame_into};
use flux_client::{Message, Other, PollFlags};
use flux_formats::errno;
use nix::sys::socket::{getsockopt, sockopt};

use super::router::ClientId;
use crate::common::error::CmdError;

/// Largest frame taken from a client, which is this user.
const FRAME_SIZE_MAX: usize = 0x7fff_ffff;
/// Bytes read at once.
const READ_SIZE: usize = 64 * 1024;

/// The socket and its clients; the directory is removed when dropped.
#[derive(Debug)]
pub(super) struct Clients {
    dir: PathBuf,
    path: PathBuf,
    listener: UnixListener,
    streams: BTreeMap<ClientId, Stream>,
    next: ClientId,
}

#[derive(Debug)]
struct Stream {
    socket: UnixStream,
    decoder: FrameDecoder,
    out: BytesMut,
}

impl Drop for Clients {
    fn drop(&mut self) {
        // what cannot be removed is of no use to anybody
        let _kept = std::fs::remove_file(&self.path);
        let _kept = std::fs::remove_dir(&self.dir);
    }
}

impl Clients {
    /// Makes the socket in a directory of its own.
    pub(super) fn listen() -> Result<Self, CmdError> {
        let tmp = std::env::var_os("TMPDIR")
            .map(PathBuf::from)
            .filter(|dir| dir.is_dir())
            .unwrap_or_else(|| PathBuf::from("/tmp"));
        let template = tmp.join("flux-proxy-XXXXXX");
        let dir = nix::unistd::mkdtemp(&template)
            .map_err(|errno| CmdError::file(template.display().to_string())(errno.into()))?;
        let path = dir.join("local");
        let bound = UnixListener::bind(&path).and_then(|listener| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        match bound {
            Ok(listener) => Ok(Clients {
                dir,
                path,
                listener,
                streams: BTreeMap::new(),
                next: 1,
            }),
            Err(err) => {
                let _kept = std::fs::remove_dir(&dir);
                Err(CmdError::file(path.display().to_string())(err))
            }
        }
    }

    /// Returns the path of the socket.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what to wait for: first the listening socket, then each client in the order of [`Clients::ids`].
    pub(super) fn others(&self) -> Vec<Other<'_>> {
        let mut others = vec![Other::input(self.listener.as_fd())];
        for stream in self.streams.values() {
            let mut other = Other::input(stream.socket.as_fd());
            if !stream.out.is_empty() {
                other.events |= PollFlags::POLLOUT;
            }
            others.push(other);
        }
        others
    }

    /// Returns the clients in order.
    pub(super) fn ids(&self) -> Vec<ClientId> {
        self.streams.keys().copied().collect()
    }

    /// Takes a client that waits; `None` when there is none or it is someone else's.
    pub(super) fn accept(&mut self) -> Option<ClientId> {
        let (mut socket, _) = self.listener.accept().ok()?;
        let peer = getsockopt(&socket, sockopt::PeerCredentials).ok()?;
        if peer.uid() != nix::unistd::getuid().as_raw() {
            let refusal = u8::try_from(errno::EPERM).unwrap_or(1);
            // the client sees the end of the connection otherwise
            let _gone = socket.write_all(&[refusal]);
            return None;
        }
        socket.write_all(&[0]).ok()?;
        socket.set_nonblocking(true).ok()?;
        let id = self.next;
        self.next += 1;
        let stream = Stream {
            socket,
            decoder: FrameDecoder::new(FRAME_SIZE_MAX),
            out: BytesMut::new(),
        };
        self.streams.insert(id, stream);
        Some(id)
    }

    /// Reads what a client has sent; an error says that it is gone.
    pub(super) fn read(&mut self, id: ClientId, messages: &mut Vec<Message>) -> io::Result<()> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        let mut buffer = vec![0; READ_SIZE];
        loop {
            let count = match stream.socket.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(err) if err.kind() == ErrorKind::Interrupted => continue,
                Err(err) => return Err(err),
            };
            stream
                .decoder
                .buffer
                .extend_from_slice(buffer.get(..count).unwrap_or(&[]));
            while let Some(msg) = stream.decoder.next_message().map_err(io::Error::other)? {
                messages.push(msg);
            }
            if count < buffer.len() {
                return Ok(());
            }
        }
    }

    /// Queues a message for a client and writes what its socket takes.
    pub(super) fn send(&mut self, id: ClientId, msg: &Message) {
        if let Some(stream) = self.streams.get_mut(&id) {
            frame_into(msg, &mut stream.out);
            stream.write();
        }
    }

    /// Writes what a client's socket takes.
    pub(super) fn write(&mut self, id: ClientId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.write();
        }
    }

    /// Forgets a client.
    pub(super) fn remove(&mut self, id: ClientId) {
        self.streams.remove(&id);
    }
}

impl Stream {
    fn write(&mut self) {
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(count) => self.out.advance(count),
                Err(err) if err.kind() == ErrorKind::WouldBlock => return,
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                // the client is gone; reading from it says so too
                Err(_) => self.out.clear(),
            }
        }
    }
}
