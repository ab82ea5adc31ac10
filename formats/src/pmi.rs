//! What do PMI-1 client and server say to each other? (RFC 13 wire protocol: lines of `key=value`.)

mod line;
mod response;

pub use line::{Line, PmiError};
pub use response::Response;

use std::fmt;

/// Size in bytes of the KVS name with its NUL.
pub const KVSNAME_MAX: usize = 64;
/// Size in bytes of a key with its NUL.
pub const KEYLEN_MAX: usize = 64;
/// Size in bytes of a value with its NUL.
pub const VALLEN_MAX: usize = 1024;
/// Longest line that a peer must accept, newline included.
pub const LINE_MAX: usize = KVSNAME_MAX + KEYLEN_MAX + VALLEN_MAX + 64;

/// Reserved key for the process mapping.
pub const KEY_PROCESS_MAPPING: &str = "PMI_process_mapping";

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Opens the conversation.
    Init {
        /// Highest version of the client, 1.
        version: u32,
        /// Highest subversion, 1.
        subversion: u32,
    },
    /// Asks for the limits.
    GetMaxes,
    /// Ends the job.
    Abort {
        /// Exit code of the job.
        exitcode: Option<i32>,
        /// Text for people.
        error_msg: Option<&'a str>,
    },
    /// Ends the conversation.
    Finalize,
    /// Asks for the number of processes.
    GetUniverseSize,
    /// Asks for the application number.
    GetAppnum,
    /// Asks for the name of the KVS.
    GetMyKvsname,
    /// Puts a key, visible to others after the barrier.
    Put {
        /// KVS name.
        kvsname: &'a str,
        /// Key.
        key: &'a str,
        /// Value, may hold spaces.
        value: &'a str,
    },
    /// Gets a key.
    Get {
        /// KVS name.
        kvsname: &'a str,
        /// Key.
        key: &'a str,
    },
    /// Enters the barrier.
    BarrierIn,
    /// Publishes a service's port.
    PublishName {
        /// Service.
        service: &'a str,
        /// Port.
        port: &'a str,
    },
    /// Withdraws a service.
    UnpublishName {
        /// Service.
        service: &'a str,
    },
    /// Looks a service up.
    LookupName {
        /// Service.
        service: &'a str,
    },
    /// The first line of a spawn request; lines follow until [`Request::EndSpawn`].
    Spawn,
    /// The last line of a spawn request.
    EndSpawn,
}

impl<'a> Request<'a> {
    /// Parses one line, with or without its newline.
    ///
    /// # Errors
    /// Any [`PmiError`].
    pub fn parse(text: &'a str) -> Result<Self, PmiError> {
        let line = Line::new(text)?;
        if line.is_word("endcmd") {
            return Ok(Request::EndSpawn);
        }
        if let Some(command) = line.word("mcmd") {
            return if command == "spawn" {
                Ok(Request::Spawn)
            } else {
                Err(PmiError::Command)
            };
        }
        match line.require("cmd")? {
            "init" => Ok(Request::Init {
                version: line.require_number("pmi_version")?,
                subversion: line.require_number("pmi_subversion")?,
            }),
            "get_maxes" => Ok(Request::GetMaxes),
            "abort" => Ok(Request::Abort {
                exitcode: line.number("exitcode")?,
                error_msg: line.string("error_msg"),
            }),
            "finalize" => Ok(Request::Finalize),
            "get_universe_size" => Ok(Request::GetUniverseSize),
            "get_appnum" => Ok(Request::GetAppnum),
            "get_my_kvsname" => Ok(Request::GetMyKvsname),
            "put" => Ok(Request::Put {
                kvsname: line::limited(line.require("kvsname")?, KVSNAME_MAX)?,
                key: line::limited(line.require("key")?, KEYLEN_MAX)?,
                value: line::limited(line.require_string("value")?, VALLEN_MAX)?,
            }),
            "get" => Ok(Request::Get {
                kvsname: line::limited(line.require("kvsname")?, KVSNAME_MAX)?,
                key: line::limited(line.require("key")?, KEYLEN_MAX)?,
            }),
            "barrier_in" => Ok(Request::BarrierIn),
            "publish_name" => Ok(Request::PublishName {
                service: line.require("service")?,
                port: line.require("port")?,
            }),
            "unpublish_name" => Ok(Request::UnpublishName {
                service: line.require("service")?,
            }),
            "lookup_name" => Ok(Request::LookupName {
                service: line.require("service")?,
            }),
            _ => Err(PmiError::Command),
        }
    }

    /// Returns the response that refuses a request that is not supported, if it is one of those.
    pub fn unsupported(&self) -> Option<Response<'static>> {
        match self {
            Request::PublishName { .. } => Some(Response::Publish { rc: -1 }),
            Request::UnpublishName { .. } => Some(Response::Unpublish { rc: -1 }),
            Request::LookupName { .. } => Some(Response::Lookup { rc: -1, port: None }),
            Request::EndSpawn => Some(Response::Spawn { rc: -1 }),
            _ => None,
        }
    }
}

impl fmt::Display for Request<'_> {
    /// Writes the line with its newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Init { version, subversion } => {
                writeln!(f, "cmd=init pmi_version={version} pmi_subversion={subversion}")
            }
            Request::GetMaxes => writeln!(f, "cmd=get_maxes"),
            Request::Abort { exitcode, error_msg } => {
                write!(f, "cmd=abort")?;
                if let Some(exitcode) = exitcode {
                    write!(f, " exitcode={exitcode}")?;
                }
                if let Some(error_msg) = error_msg {
                    write!(f, " error_msg={error_msg}")?;
                }
                writeln!(f)
            }
            Request::Finalize => writeln!(f, "cmd=finalize"),
            Request::GetUniverseSize => writeln!(f, "cmd=get_universe_size"),
            Request::GetAppnum => writeln!(f, "cmd=get_appnum"),
            Request::GetMyKvsname => writeln!(f, "cmd=get_my_kvsname"),
            Request::Put { kvsname, key, value } => {
                writeln!(f, "cmd=put kvsname={kvsname} key={key} value={value}")
            }
            Request::Get { kvsname, key } => writeln!(f, "cmd=get kvsname={kvsname} key={key}"),
            Request::BarrierIn => writeln!(f, "cmd=barrier_in"),
            Request::PublishName { service, port } => {
                writeln!(f, "cmd=publish_name service={service} port={port}")
            }
            Request::UnpublishName { service } => writeln!(f, "cmd=unpublish_name service={service}"),
            Request::LookupName { service } => writeln!(f, "cmd=lookup_name service={service}"),
            Request::Spawn => writeln!(f, "mcmd=spawn"),
            Request::EndSpawn => writeln!(f, "endcmd"),
        }
    }
}

#[cfg(test)]
mod tests;
