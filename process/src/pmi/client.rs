//! How does a process that a PMI-1 launcher started talk to it? Blocking, one request at a time (RFC 13).

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use flux_formats::pmi::{LINE_MAX, PmiError, Request, Response};

use super::server::Direction;
use crate::fd;

/// Why a PMI operation failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// An environment variable is missing or is not a number.
    #[error("{0} is missing from the environment or invalid")]
    Environment(&'static str),
    /// The connection failed.
    #[error("PMI connection")]
    Io(#[source] io::Error),
    /// The server closed the connection.
    #[error("PMI server closed the connection")]
    Closed,
    /// The answer is not the expected one.
    #[error("unexpected PMI response '{line}'")]
    Unexpected {
        /// The answer.
        line: String,
        /// Why it cannot be read, when that is the reason.
        #[source]
        source: Option<PmiError>,
    },
    /// The server refused.
    #[error("PMI {operation} failed with rc={rc}")]
    Refused {
        /// What was asked.
        operation: &'static str,
        /// The code that the server gave.
        rc: i32,
    },
    /// A key or value is longer than the server allows, or cannot be put in a line.
    #[error("PMI {what} is too long or contains a space or newline")]
    Unsendable {
        /// "key" or "value".
        what: &'static str,
    },
}

/// Receives every line that is said.
pub type ClientTrace = Box<dyn FnMut(Direction, &str) + Send>;

/// A connection to the launcher's PMI-1 server.
pub struct Client {
    socket: OwnedFd,
    input: Vec<u8>,
    rank: u32,
    size: u32,
    kvsname: String,
    keylen_max: usize,
    vallen_max: usize,
    trace: Option<ClientTrace>,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Client");
        debug.field("rank", &self.rank).field("size", &self.size);
        debug.field("kvsname", &self.kvsname).finish_non_exhaustive()
    }
}

fn env_number<T: std::str::FromStr>(name: &'static str) -> Result<T, ClientError> {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(ClientError::Environment(name))
}

impl Client {
    /// Connects to the server named by PMI_FD, PMI_RANK and PMI_SIZE, or returns `None` when PMI_FD is unset.
    /// To be called once per process: it takes the descriptor over.
    ///
    /// # Errors
    /// [`ClientError::Environment`] or those of [`Client::new`].
    pub fn from_env(trace: Option<ClientTrace>) -> Result<Option<Self>, ClientError> {
        if std::env::var_os("PMI_FD").is_none() {
            return Ok(None);
        }
        let number = env_number("PMI_FD")?;
        let (rank, size) = (env_number("PMI_RANK")?, env_number("PMI_SIZE")?);
        let socket = fd::adopt(number).map_err(ClientError::Io)?;
        Client::new(socket, rank, size, trace).map(Some)
    }

    /// Opens the conversation: init, limits, name of the key-value space.
    ///
    /// # Errors
    /// Any [`ClientError`] but the environment's.
    pub fn new(
        socket: OwnedFd,
        rank: u32,
        size: u32,
        trace: Option<ClientTrace>,
    ) -> Result<Self, ClientError> {
        fd::set_nonblocking(&socket, false).map_err(ClientError::Io)?;
        let mut client = Client {
            socket,
            input: Vec::new(),
            rank,
            size,
            kvsname: String::new(),
            keylen_max: 0,
            vallen_max: 0,
            trace,
        };
        client.call(
            "init",
            &Request::Init {
                version: 1,
                subversion: 1,
            },
            |response| matches!(response, Response::Init { .. }).then_some(()),
        )?;
        (client.keylen_max, client.vallen_max) =
            client.call("get_maxes", &Request::GetMaxes, |response| match response {
                Response::Maxes {
                    keylen_max,
                    vallen_max,
                    ..
                } => Some((keylen_max, vallen_max)),
                _ => None,
            })?;
        client.kvsname = client.call(
            "get_my_kvsname",
            &Request::GetMyKvsname,
            |response| match response {
                Response::MyKvsname { kvsname, .. } => Some(kvsname.to_owned()),
                _ => None,
            },
        )?;
        Ok(client)
    }

    /// Returns this process's rank.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// Returns the number of ranks.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Returns the name of the key-value space: the job id in F58 under a Flux shell.
    pub fn kvsname(&self) -> &str {
        &self.kvsname
    }

    /// Returns the size of the longest value that the server accepts, in bytes with a terminating NUL.
    pub fn vallen_max(&self) -> usize {
        self.vallen_max
    }

    /// Stores a pair; others see it after the next barrier.
    ///
    /// # Errors
    /// [`ClientError::Unsendable`] for what the wire cannot carry, [`ClientError::Refused`].
    pub fn put(&mut self, key: &str, value: &str) -> Result<(), ClientError> {
        if key.len() >= self.keylen_max || key.contains([' ', '\n', '=']) {
            return Err(ClientError::Unsendable { what: "key" });
        }
        // Servers split at blanks, so a value must not hold one.
        if value.len() >= self.vallen_max || value.contains([' ', '\n']) {
            return Err(ClientError::Unsendable { what: "value" });
        }
        let kvsname = self.kvsname.clone();
        self.call(
            "put",
            &Request::Put {
                kvsname: &kvsname,
                key,
                value,
            },
            |response| matches!(response, Response::Put { .. }).then_some(()),
        )
    }

    /// Returns the value of a key, `None` when there is no such key.
    ///
    /// # Errors
    /// Any [`ClientError`] of the connection.
    pub fn get(&mut self, key: &str) -> Result<Option<String>, ClientError> {
        let kvsname = self.kvsname.clone();
        let result = self.call(
            "get",
            &Request::Get {
                kvsname: &kvsname,
                key,
            },
            |response| match response {
                Response::Get { value, .. } => Some(value.unwrap_or_default().to_owned()),
                _ => None,
            },
        );
        match result {
            Ok(value) => Ok(Some(value)),
            Err(ClientError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until every rank is here.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when the exchange failed.
    pub fn barrier(&mut self) -> Result<(), ClientError> {
        self.call("barrier", &Request::BarrierIn, |response| {
            matches!(response, Response::BarrierOut { .. }).then_some(())
        })
    }

    /// Returns the number of ranks that the launcher knows of.
    ///
    /// # Errors
    /// Any [`ClientError`] of the connection.
    pub fn universe_size(&mut self) -> Result<u32, ClientError> {
        self.call(
            "get_universe_size",
            &Request::GetUniverseSize,
            |response| match response {
                Response::UniverseSize { size, .. } => Some(size),
                _ => None,
            },
        )
    }

    /// Ends the conversation.
    ///
    /// # Errors
    /// Any [`ClientError`] of the connection.
    pub fn finalize(mut self) -> Result<(), ClientError> {
        self.call("finalize", &Request::Finalize, |response| {
            matches!(response, Response::Finalize { .. }).then_some(())
        })
    }

    /// Asks the launcher to end the program; there is no answer.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn abort(mut self, exit_code: i32, message: &str) -> Result<(), ClientError> {
        let message = message.replace(|character: char| character.is_ascii_control(), " ");
        self.send(&Request::Abort {
            exitcode: Some(exit_code),
            error_msg: Some(&message),
        })
    }

    /// Sends a request and takes what `pick` finds in its answer.
    fn call<T>(
        &mut self,
        operation: &'static str,
        request: &Request<'_>,
        pick: impl FnOnce(Response<'_>) -> Option<T>,
    ) -> Result<T, ClientError> {
        self.send(request)?;
        let line = self.receive()?;
        let response = match Response::parse(&line) {
            Ok(response) => response,
            Err(error) => {
                return Err(ClientError::Unexpected {
                    line,
                    source: Some(error),
                });
            }
        };
        let rc = response.rc();
        let picked = pick(response);
        match picked {
            Some(_) if rc != 0 => Err(ClientError::Refused { operation, rc }),
            Some(value) => Ok(value),
            None => Err(ClientError::Unexpected { line, source: None }),
        }
    }

    fn send(&mut self, request: &Request<'_>) -> Result<(), ClientError> {
        let line = request.to_string();
        if let Some(trace) = &mut self.trace {
            trace(Direction::Client, line.trim_end_matches('\n'));
        }
        fd::write_all(self.socket.as_fd(), line.as_bytes()).map_err(ClientError::Io)
    }

    fn receive(&mut self) -> Result<String, ClientError> {
        let mut buffer = [0_u8; 4096];
        loop {
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                let line = String::from_utf8_lossy(line.get(..end).unwrap_or_default()).into_owned();
                if let Some(trace) = &mut self.trace {
                    trace(Direction::Server, &line);
                }
                return Ok(line);
            }
            if self.input.len() > LINE_MAX * 8 {
                return Err(ClientError::Unexpected {
                    line: "line too long".to_owned(),
                    source: None,
                });
            }
            match fd::read(&self.socket, &mut buffer) {
                Ok(0) => return Err(ClientError::Closed),
                Ok(count) => self
                    .input
                    .extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ClientError::Io(error)),
            }
        }
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
