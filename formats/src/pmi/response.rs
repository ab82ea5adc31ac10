//! What does the server answer? (RFC 13.)

use std::fmt;

use super::{KEYLEN_MAX, KVSNAME_MAX, Line, PmiError, VALLEN_MAX};

/// An answer; `rc` 0 is success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response<'a> {
    /// To `init`.
    Init {
        /// 0, or -1 when the versions do not meet.
        rc: i32,
        /// Version that both speak, 1.
        version: u32,
        /// Subversion, 1.
        subversion: u32,
    },
    /// To `get_maxes`.
    Maxes {
        /// 0 or an error.
        rc: i32,
        /// Size of KVS names.
        kvsname_max: usize,
        /// Size of keys.
        keylen_max: usize,
        /// Size of values.
        vallen_max: usize,
    },
    /// To `abort`: an empty line.
    Abort,
    /// To `finalize`.
    Finalize {
        /// 0 or an error.
        rc: i32,
    },
    /// To `get_universe_size`.
    UniverseSize {
        /// 0 or an error.
        rc: i32,
        /// Number of processes.
        size: u32,
    },
    /// To `get_appnum`.
    Appnum {
        /// 0 or an error.
        rc: i32,
        /// Application number.
        appnum: u32,
    },
    /// To `get_my_kvsname`.
    MyKvsname {
        /// 0 or an error.
        rc: i32,
        /// KVS name.
        kvsname: &'a str,
    },
    /// To `put`.
    Put {
        /// 0 or an error.
        rc: i32,
    },
    /// To `get`; no value with an error.
    Get {
        /// 0, or negative when the key does not exist.
        rc: i32,
        /// Value, may hold spaces.
        value: Option<&'a str>,
    },
    /// To `barrier_in`, when all have entered.
    BarrierOut {
        /// 0 or an error.
        rc: i32,
    },
    /// To `publish_name`.
    Publish {
        /// 0 or an error.
        rc: i32,
    },
    /// To `unpublish_name`.
    Unpublish {
        /// 0 or an error.
        rc: i32,
    },
    /// To `lookup_name`.
    Lookup {
        /// 0 or an error.
        rc: i32,
        /// Port.
        port: Option<&'a str>,
    },
    /// To `spawn`.
    Spawn {
        /// 0 or an error.
        rc: i32,
    },
}

impl<'a> Response<'a> {
    /// Returns the answer to `get_maxes` with our limits.
    pub const fn maxes() -> Self {
        Response::Maxes {
            rc: 0,
            kvsname_max: KVSNAME_MAX,
            keylen_max: KEYLEN_MAX,
            vallen_max: VALLEN_MAX,
        }
    }

    /// Returns the result code.
    pub fn rc(&self) -> i32 {
        match *self {
            Response::Abort => 0,
            Response::Init { rc, .. }
            | Response::Maxes { rc, .. }
            | Response::Finalize { rc }
            | Response::UniverseSize { rc, .. }
            | Response::Appnum { rc, .. }
            | Response::MyKvsname { rc, .. }
            | Response::Put { rc }
            | Response::Get { rc, .. }
            | Response::BarrierOut { rc }
            | Response::Publish { rc }
            | Response::Unpublish { rc }
            | Response::Lookup { rc, .. }
            | Response::Spawn { rc } => rc,
        }
    }

    /// Parses one line, with or without its newline. A missing `rc` is 0; numbers absent with an error are 0.
    ///
    /// # Errors
    /// Any [`PmiError`].
    pub fn parse(text: &'a str) -> Result<Self, PmiError> {
        let line = Line::new(text)?;
        if line.is_word("") {
            return Ok(Response::Abort);
        }
        let rc = line.number("rc")?.unwrap_or(0);
        let number = |key| match (rc, line.number::<u32>(key)?) {
            (_, Some(number)) => Ok(number),
            (0, None) => Err(PmiError::Missing(key)),
            (_, None) => Ok(0),
        };
        let size = |key| number(key).map(|n| usize::try_from(n).unwrap_or(0));
        match line.require("cmd")? {
            "response_to_init" => Ok(Response::Init {
                rc,
                version: number("pmi_version")?,
                subversion: number("pmi_subversion")?,
            }),
            "maxes" => Ok(Response::Maxes {
                rc,
                kvsname_max: size("kvsname_max")?,
                keylen_max: size("keylen_max")?,
                vallen_max: size("vallen_max")?,
            }),
            "finalize_ack" => Ok(Response::Finalize { rc }),
            "universe_size" => Ok(Response::UniverseSize {
                rc,
                size: number("size")?,
            }),
            "appnum" => Ok(Response::Appnum {
                rc,
                appnum: number("appnum")?,
            }),
            "my_kvsname" => match line.word("kvsname") {
                Some(kvsname) => Ok(Response::MyKvsname { rc, kvsname }),
                None if rc != 0 => Ok(Response::MyKvsname { rc, kvsname: "" }),
                None => Err(PmiError::Missing("kvsname")),
            },
            "put_result" => Ok(Response::Put { rc }),
            "get_result" if rc != 0 => Ok(Response::Get { rc, value: None }),
            "get_result" => Ok(Response::Get {
                rc,
                value: Some(line.require_string("value")?),
            }),
            "barrier_out" => Ok(Response::BarrierOut { rc }),
            "publish_result" => Ok(Response::Publish { rc }),
            "unpublish_result" => Ok(Response::Unpublish { rc }),
            "lookup_result" => Ok(Response::Lookup {
                rc,
                port: line.word("port"),
            }),
            "spawn_result" => Ok(Response::Spawn { rc }),
            _ => Err(PmiError::Command),
        }
    }
}

impl fmt::Display for Response<'_> {
    /// Writes the line with its newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Response::Init {
                rc,
                version,
                subversion,
            } => {
                writeln!(
                    f,
                    "cmd=response_to_init rc={rc} pmi_version={version} pmi_subversion={subversion}"
                )
            }
            Response::Maxes {
                rc,
                kvsname_max,
                keylen_max,
                vallen_max,
            } => writeln!(
                f,
                "cmd=maxes rc={rc} kvsname_max={kvsname_max} keylen_max={keylen_max} vallen_max={vallen_max}"
            ),
            Response::Abort => writeln!(f),
            Response::Finalize { rc } => writeln!(f, "cmd=finalize_ack rc={rc}"),
            Response::UniverseSize { rc, size } => writeln!(f, "cmd=universe_size rc={rc} size={size}"),
            Response::Appnum { rc, appnum } => writeln!(f, "cmd=appnum rc={rc} appnum={appnum}"),
            Response::MyKvsname { rc, kvsname } => writeln!(f, "cmd=my_kvsname rc={rc} kvsname={kvsname}"),
            Response::Put { rc } => writeln!(f, "cmd=put_result rc={rc}"),
            Response::Get {
                rc,
                value: Some(value),
            } => writeln!(f, "cmd=get_result rc={rc} value={value}"),
            Response::Get { rc, value: None } => writeln!(f, "cmd=get_result rc={rc}"),
            Response::BarrierOut { rc } => writeln!(f, "cmd=barrier_out rc={rc}"),
            Response::Publish { rc } => writeln!(f, "cmd=publish_result rc={rc}"),
            Response::Unpublish { rc } => writeln!(f, "cmd=unpublish_result rc={rc}"),
            Response::Lookup { rc, port: Some(port) } => writeln!(f, "cmd=lookup_result rc={rc} port={port}"),
            Response::Lookup { rc, port: None } => writeln!(f, "cmd=lookup_result rc={rc}"),
            Response::Spawn { rc } => writeln!(f, "cmd=spawn_result rc={rc}"),
        }
    }
}
