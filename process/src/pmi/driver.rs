//! How does a launcher serve PMI-1 from its own event loop?

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::server::{Output, Server, ServerConfig, ServerTrace};
use crate::fd;
use crate::poll::{Interest, PollSet};
use crate::sys;

/// Longest line kept until its end arrives, in bytes; a client that sends more is cut off.
const INPUT_MAX: usize = 8192;

/// What the launcher must know or do; replies are sent by the driver itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// All local ranks are in the barrier: exchange these pairs, then call [`Driver::complete_barrier`].
    Barrier {
        /// Pairs put here since the last barrier, in order.
        puts: Vec<(String, String)>,
    },
    /// A client waits for a deferred key: find its value, then call [`Driver::resolve`].
    Lookup {
        /// The key.
        key: String,
    },
    /// A rank asks that the program be ended.
    Abort {
        /// Its rank.
        rank: u32,
        /// Exit code it wishes.
        exit_code: i32,
        /// Reason, may be empty.
        message: String,
    },
    /// A rank has said goodbye.
    Finalized {
        /// Its rank.
        rank: u32,
    },
    /// A rank's connection has ended.
    Closed {
        /// Its rank.
        rank: u32,
        /// True when it ended in mid-conversation.
        unexpected: bool,
    },
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    input: Vec<u8>,
    output: Vec<u8>,
    spoke: bool,
}

/// A [`Server`] with its connections.
#[derive(Debug)]
pub struct Driver {
    server: Server,
    connections: Vec<Option<Connection>>,
}

impl Driver {
    /// Returns a driver without connections.
    pub fn new(config: ServerConfig) -> Self {
        let server = Server::new(config);
        Driver {
            server,
            connections: Vec::new(),
        }
    }

    /// Traces every line from now on.
    pub fn set_trace(&mut self, trace: ServerTrace) {
        self.server.set_trace(trace);
    }

    /// Returns the server's state.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Makes the connection of client number `client` (an index into [`ServerConfig::ranks`]) and returns the
    /// end that the child gets; its number goes to the child's PMI_FD.
    ///
    /// # Errors
    /// EMFILE, ENFILE.
    pub fn connect(&mut self, client: usize) -> io::Result<OwnedFd> {
        let (ours, theirs) = fd::socketpair()?;
        if self.connections.len() <= client {
            self.connections.resize_with(client + 1, || None);
        }
        if let Some(slot) = self.connections.get_mut(client) {
            *slot = Some(Connection {
                socket: ours,
                input: Vec::new(),
                output: Vec::new(),
                spoke: false,
            });
        }
        Ok(theirs)
    }

    /// Returns the open connections: client number, descriptor, what to watch it for.
    pub fn fds(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>, Interest)> {
        self.connections
            .iter()
            .enumerate()
            .filter_map(|(client, connection)| {
                let connection = connection.as_ref()?;
                let interest = if connection.output.is_empty() {
                    Interest::Read
                } else {
                    Interest::ReadWrite
                };
                Some((client, connection.socket.as_fd(), interest))
            })
    }

    /// Adds the open connections to a poll set.
    pub fn add_to<T: Copy>(&self, set: &mut PollSet<T>, token: impl Fn(usize) -> T) {
        for (client, socket, interest) in self.fds() {
            set.add(socket, interest, token(client));
        }
    }

    /// Reads from and writes to a client whose descriptor is ready; appends what happened to `events`.
    pub fn on_ready(&mut self, client: usize, events: &mut Vec<Event>) {
        let mut closed = self.receive(client, events);
        closed |= !self.flush(client);
        if closed && let Some(slot) = self.connections.get_mut(client) {
            let spoke = slot.take().is_some_and(|connection| connection.spoke);
            if spoke {
                let unexpected = self.server.on_eof(client);
                events.push(Event::Closed {
                    rank: self.server.rank(client),
                    unexpected,
                });
            }
        }
    }

    /// Lets all ranks out of the barrier after merging `pairs` of other servers.
    pub fn complete_barrier<K: Into<String>, V: Into<String>>(
        &mut self,
        ok: bool,
        pairs: impl IntoIterator<Item = (K, V)>,
        events: &mut Vec<Event>,
    ) {
        self.server.merge(pairs);
        let mut outputs = Vec::new();
        self.server.complete_barrier(ok, &mut outputs);
        self.perform(outputs, events);
        for client in 0..self.connections.len() {
            self.flush(client);
        }
    }

    /// Gives the value of a deferred key, or says that there is none.
    pub fn resolve(&mut self, key: &str, value: Option<String>, events: &mut Vec<Event>) {
        let mut outputs = Vec::new();
        self.server.resolve(key, value, &mut outputs);
        self.perform(outputs, events);
    }

    /// Returns true when the client is gone.
    fn receive(&mut self, client: usize, events: &mut Vec<Event>) -> bool {
        let mut outputs = Vec::new();
        let mut buffer = [0_u8; 4096];
        let closed = loop {
            let Some(Some(connection)) = self.connections.get_mut(client) else {
                return false;
            };
            match sys::fd::recv(connection.socket.as_fd(), &mut buffer) {
                Ok(0) => break true,
                Ok(count) => {
                    connection.spoke = true;
                    connection
                        .input
                        .extend_from_slice(buffer.get(..count).unwrap_or_default());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break true,
            }
            let input = std::mem::take(&mut connection.input);
            let mut rest = input.as_slice();
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned();
                rest = rest.get(end + 1..).unwrap_or_default();
                self.server.on_line(client, &line, &mut outputs);
            }
            if rest.len() > INPUT_MAX {
                break true;
            }
            if let Some(Some(connection)) = self.connections.get_mut(client) {
                connection.input = rest.to_vec();
            }
        };
        self.perform(outputs, events);
        closed
    }

    fn perform(&mut self, outputs: Vec<Output>, events: &mut Vec<Event>) {
        let mut written = Vec::new();
        for output in outputs {
            match output {
                Output::Reply { client, line } => {
                    if let Some(Some(connection)) = self.connections.get_mut(client) {
                        connection.output.extend_from_slice(line.as_bytes());
                        connection.output.push(b'\n');
                        written.push(client);
                    }
                }
                Output::Barrier { puts } => events.push(Event::Barrier { puts }),
                Output::Lookup { key } => events.push(Event::Lookup { key }),
                Output::Abort {
                    rank,
                    exit_code,
                    message,
                } => {
                    events.push(Event::Abort {
                        rank,
                        exit_code,
                        message,
                    });
                }
                Output::Finalized { rank } => events.push(Event::Finalized { rank }),
            }
        }
        // A connection that fails here is seen as closed when it is polled next.
        written.dedup();
        for client in written {
            self.flush(client);
        }
    }

    /// Writes what the socket takes; returns false when the client is gone.
    fn flush(&mut self, client: usize) -> bool {
        let Some(Some(connection)) = self.connections.get_mut(client) else {
            return true;
        };
        while !connection.output.is_empty() {
            match sys::fd::send(connection.socket.as_fd(), &connection.output) {
                Ok(count) => drop(connection.output.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    connection.output.clear();
                    return false;
                }
            }
        }
        true
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
