//! What does a PMI-1 server answer? A pure state machine for the ranks of one launcher (RFC 13).
//!
//! ```text
//!            init            finalize
//! connected ─────▶ speaking ─────────▶ finalized
//!                  │      ▲
//!       barrier_in ▼      │ barrier complete
//!                 in barrier
//! ```
//! A barrier is complete when all local ranks are in it; when other launchers serve more ranks of the same
//! program, the owner of this server exchanges the new pairs with them in between.

use std::collections::HashMap;
use std::fmt;

use flux_formats::pmi::{Line, Request, Response};

/// What a server serves.
#[derive(Debug, Clone, Default)]
pub struct ServerConfig {
    /// Name of the key-value space; the job id in F58 for the shell.
    pub kvsname: String,
    /// Number of ranks of the whole program.
    pub universe_size: u32,
    /// Application number.
    pub appnum: u32,
    /// Ranks served here, one client each; the index in this list is the client number.
    pub ranks: Vec<u32>,
    /// Pairs that are there from the start, such as `PMI_process_mapping`.
    pub preput: Vec<(String, String)>,
    /// Whether the owner completes barriers, after an exchange with other servers.
    pub exchange: bool,
    /// Keys whose values the owner looks up when a client first asks, with [`Output::Lookup`].
    pub deferred: Vec<String>,
}

/// Who said a traced line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The client ("C").
    Client,
    /// The server ("S").
    Server,
}

impl fmt::Display for Direction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Direction::Client => "C",
            Direction::Server => "S",
        })
    }
}

/// What the owner of the server must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Sends a line (without newline) to a client.
    Reply {
        /// Client number.
        client: usize,
        /// Line.
        line: String,
    },
    /// All local ranks are in the barrier: exchange these new pairs, then call [`Server::complete_barrier`].
    Barrier {
        /// Pairs put here since the last barrier, in order.
        puts: Vec<(String, String)>,
    },
    /// A client waits for a deferred key: find its value, then call [`Server::resolve`].
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
}

#[derive(Debug, Default, Clone)]
struct ClientState {
    in_barrier: bool,
    finalized: bool,
    in_spawn: bool,
}

/// Receives every line that is said, with the rank it concerns.
pub type ServerTrace = Box<dyn FnMut(u32, Direction, &str) + Send>;

/// The server's state.
pub struct Server {
    config: ServerConfig,
    kvs: HashMap<String, String>,
    puts: Vec<(String, String)>,
    clients: Vec<ClientState>,
    in_barrier: usize,
    /// Clients that wait for deferred keys.
    lookups: Vec<(usize, String)>,
    trace: Option<ServerTrace>,
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Server");
        debug
            .field("kvsname", &self.config.kvsname)
            .field("ranks", &self.config.ranks);
        debug
            .field("pairs", &self.kvs.len())
            .field("in_barrier", &self.in_barrier)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Returns a server in its first state.
    pub fn new(mut config: ServerConfig) -> Self {
        let kvs = std::mem::take(&mut config.preput).into_iter().collect();
        let clients = vec![ClientState::default(); config.ranks.len()];
        Server {
            config,
            kvs,
            puts: Vec::new(),
            clients,
            in_barrier: 0,
            lookups: Vec::new(),
            trace: None,
        }
    }

    /// Traces every line from now on.
    pub fn set_trace(&mut self, trace: ServerTrace) {
        self.trace = Some(trace);
    }

    /// Returns the rank of a client.
    pub fn rank(&self, client: usize) -> u32 {
        self.config.ranks.get(client).copied().unwrap_or(u32::MAX)
    }

    /// Returns a stored value.
    pub fn lookup(&self, key: &str) -> Option<&str> {
        self.kvs.get(key).map(String::as_str)
    }

    /// Returns true when the client has said goodbye.
    pub fn is_finalized(&self, client: usize) -> bool {
        self.clients.get(client).is_some_and(|state| state.finalized)
    }

    fn say(&mut self, client: usize, direction: Direction, text: &str) {
        let rank = self.rank(client);
        if let Some(trace) = &mut self.trace {
            trace(rank, direction, text);
        }
    }

    fn reply(&mut self, client: usize, response: &Response<'_>, out: &mut Vec<Output>) {
        self.reply_line(client, line_of(response), out);
    }

    /// Takes one line (without newline) of a client and appends what is to be done to `out`.
    ///
    /// Lines that are no request are traced and otherwise ignored.
    pub fn on_line(&mut self, client: usize, line: &str, out: &mut Vec<Output>) {
        self.say(client, Direction::Client, line);
        let Some(state) = self.clients.get_mut(client) else {
            return;
        };
        let request = Request::parse(line);
        if state.in_spawn {
            if request == Ok(Request::EndSpawn) {
                state.in_spawn = false;
                self.reply(client, &Response::Spawn { rc: -1 }, out);
            }
            return;
        }
        match request {
            Ok(Request::Spawn) => state.in_spawn = true,
            Ok(request) => self.serve(client, &request, out),
            Err(error) => {
                self.say(client, Direction::Server, &error.to_string());
                self.refuse(client, line, out);
            }
        }
    }

    /// Answers a request whose name, key or value is malformed; what is no request gets no answer.
    fn refuse(&mut self, client: usize, line: &str, out: &mut Vec<Output>) {
        let command = Line::new(line).ok().and_then(|line| line.word("cmd"));
        match command {
            Some("put") => self.reply(client, &Response::Put { rc: -1 }, out),
            Some("get") => self.reply(client, &Response::Get { rc: -1, value: None }, out),
            _ => {}
        }
    }

    fn serve(&mut self, client: usize, request: &Request<'_>, out: &mut Vec<Output>) {
        let response = match request {
            Request::Init { version, .. } => Response::Init {
                rc: if *version == 1 { 0 } else { -1 },
                version: 1,
                subversion: 1,
            },
            Request::GetMaxes => Response::maxes(),
            Request::GetUniverseSize => Response::UniverseSize {
                rc: 0,
                size: self.config.universe_size,
            },
            Request::GetAppnum => Response::Appnum {
                rc: 0,
                appnum: self.config.appnum,
            },
            Request::Put { kvsname, key, value } => Response::Put {
                rc: if self.put(kvsname, key, value) { 0 } else { -1 },
            },
            Request::GetMyKvsname => {
                let line = line_of(&Response::MyKvsname {
                    rc: 0,
                    kvsname: &self.config.kvsname,
                });
                return self.reply_line(client, line, out);
            }
            Request::Get { kvsname, key } => return self.get(client, kvsname, key, out),
            Request::Abort { exitcode, error_msg } => {
                let (rank, message) = (self.rank(client), error_msg.unwrap_or_default().to_owned());
                out.push(Output::Abort {
                    rank,
                    exit_code: exitcode.unwrap_or(1),
                    message,
                });
                return;
            }
            Request::BarrierIn => return self.enter_barrier(client, out),
            Request::Finalize => return self.finalize(client, out),
            other => match other.unsupported() {
                Some(response) => response,
                None => return,
            },
        };
        self.reply(client, &response, out);
    }

    fn get(&mut self, client: usize, kvsname: &str, key: &str, out: &mut Vec<Output>) {
        let known = kvsname == self.config.kvsname;
        if known && self.config.deferred.iter().any(|deferred| deferred == key) {
            return self.defer(client, key, out);
        }
        let line = get_line(if known { self.lookup(key) } else { None });
        self.reply_line(client, line, out);
    }

    fn reply_line(&mut self, client: usize, line: String, out: &mut Vec<Output>) {
        self.say(client, Direction::Server, &line);
        out.push(Output::Reply { client, line });
    }

    fn defer(&mut self, client: usize, key: &str, out: &mut Vec<Output>) {
        if !self.lookups.iter().any(|(_, waiting)| waiting == key) {
            out.push(Output::Lookup { key: key.to_owned() });
        }
        self.lookups.push((client, key.to_owned()));
    }

    /// Gives the value of a deferred key, or says that there is none, and answers those who wait for it.
    pub fn resolve(&mut self, key: &str, value: Option<String>, out: &mut Vec<Output>) {
        self.config.deferred.retain(|deferred| deferred != key);
        if let Some(value) = value {
            self.kvs.insert(key.to_owned(), value);
        }
        let line = get_line(self.lookup(key));
        let lookups = std::mem::take(&mut self.lookups);
        let (now, later): (Vec<_>, Vec<_>) = lookups.into_iter().partition(|(_, waiting)| waiting == key);
        self.lookups = later;
        for (client, _) in now {
            self.reply_line(client, line.clone(), out);
        }
    }

    fn put(&mut self, kvsname: &str, key: &str, value: &str) -> bool {
        if kvsname != self.config.kvsname {
            return false;
        }
        self.kvs.insert(key.to_owned(), value.to_owned());
        if self.config.exchange {
            self.puts.push((key.to_owned(), value.to_owned()));
        }
        true
    }

    fn finalize(&mut self, client: usize, out: &mut Vec<Output>) {
        self.reply(client, &Response::Finalize { rc: 0 }, out);
        if let Some(state) = self.clients.get_mut(client) {
            state.finalized = true;
        }
        self.say(client, Direction::Server, "pmi finalized");
        out.push(Output::Finalized {
            rank: self.rank(client),
        });
    }

    fn enter_barrier(&mut self, client: usize, out: &mut Vec<Output>) {
        if let Some(state) = self.clients.get_mut(client)
            && !state.in_barrier
        {
            state.in_barrier = true;
            self.in_barrier += 1;
        }
        if self.in_barrier < self.clients.len() {
            return;
        }
        if self.config.exchange {
            out.push(Output::Barrier {
                puts: std::mem::take(&mut self.puts),
            });
        } else {
            self.complete_barrier(true, out);
        }
    }

    /// Adds pairs that other servers' ranks have put; usually between [`Output::Barrier`] and
    /// [`Server::complete_barrier`].
    pub fn merge<K: Into<String>, V: Into<String>>(&mut self, pairs: impl IntoIterator<Item = (K, V)>) {
        self.kvs
            .extend(pairs.into_iter().map(|(key, value)| (key.into(), value.into())));
    }

    /// Lets all ranks out of the barrier, with success or failure.
    pub fn complete_barrier(&mut self, ok: bool, out: &mut Vec<Output>) {
        for client in 0..self.clients.len() {
            let was_in = self
                .clients
                .get_mut(client)
                .is_some_and(|state| std::mem::take(&mut state.in_barrier));
            if was_in {
                self.reply(
                    client,
                    &Response::BarrierOut {
                        rc: if ok { 0 } else { -1 },
                    },
                    out,
                );
            }
        }
        self.in_barrier = 0;
    }

    /// Notes that a client has closed its connection; returns true when it had not said goodbye.
    pub fn on_eof(&mut self, client: usize) -> bool {
        self.say(client, Direction::Client, "pmi EOF");
        !self.is_finalized(client)
    }
}

/// Returns a response's line without its newline.
fn line_of(response: &Response<'_>) -> String {
    let mut line = response.to_string();
    line.truncate(line.trim_end_matches('\n').len());
    line
}

fn get_line(value: Option<&str>) -> String {
    line_of(&Response::Get {
        rc: if value.is_some() { 0 } else { -1 },
        value,
    })
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
