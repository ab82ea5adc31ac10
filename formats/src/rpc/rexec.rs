//! What do requests and responses of a subprocess server hold? (RFC 42)

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `exec` flag: forward standard output.
pub const FLAG_STDOUT: u32 = 1;
/// `exec` flag: forward standard error.
pub const FLAG_STDERR: u32 = 2;
/// `exec` flag: forward auxiliary channels.
pub const FLAG_CHANNEL: u32 = 4;
/// `exec` flag: send `add-credit` responses.
pub const FLAG_WRITE_CREDIT: u32 = 8;
/// `exec` flag: the process may be waited for.
pub const FLAG_WAITABLE: u32 = 16;
/// `exec` local flag: the process shares the server's standard descriptors.
pub const LOCAL_FLAG_STDIO_FALLTHROUGH: u32 = 1;
/// `exec` local flag: the process stays in the server's process group.
pub const LOCAL_FLAG_NO_SETPGRP: u32 = 2;

/// A command object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CommandObject {
    /// Working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Program and arguments, at least one.
    pub cmdline: Vec<String>,
    /// Environment; values are strings.
    #[serde(default)]
    pub env: Map<String, Value>,
    /// Options of the implementation; values are strings.
    #[serde(default)]
    pub opts: Map<String, Value>,
    /// Auxiliary channels.
    #[serde(default)]
    pub channels: Vec<String>,
    /// Message channels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub msgchans: Vec<Value>,
    /// Another name for the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// `exec`: starts a process; streaming, or not for the background.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecRequest {
    /// What to run.
    pub cmd: CommandObject,
    /// Bits `FLAG_*`.
    pub flags: u32,
    /// Bits `LOCAL_FLAG_*`.
    #[serde(default)]
    pub local_flags: u32,
}

/// Data of a stream (RFC 24 data context).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoObject {
    /// `stdin`, `stdout`, `stderr` or a channel.
    pub stream: String,
    /// Idset of ranks.
    pub rank: String,
    /// Data in the given encoding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// `base64`, or absent for UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// Nothing follows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub eof: bool,
}

impl IoObject {
    /// Returns data of a stream of one rank: UTF-8 as it is, else base64.
    pub fn new(stream: &str, rank: u32, data: &[u8]) -> Self {
        use base64::Engine;
        let (text, encoding) = match std::str::from_utf8(data) {
            Ok(text) => (text.to_owned(), None),
            Err(_) => (
                base64::engine::general_purpose::STANDARD.encode(data),
                Some("base64".to_owned()),
            ),
        };
        IoObject {
            stream: stream.to_owned(),
            rank: rank.to_string(),
            data: Some(text),
            encoding,
            eof: false,
        }
    }

    /// Returns the end of a stream of one rank.
    pub fn end(stream: &str, rank: u32) -> Self {
        IoObject {
            stream: stream.to_owned(),
            rank: rank.to_string(),
            eof: true,
            ..IoObject::default()
        }
    }

    /// Returns the bytes, or `None` when they are not in the encoding they claim.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        use base64::Engine;
        let data = self.data.as_deref().unwrap_or_default();
        match self.encoding.as_deref() {
            None | Some("UTF-8" | "utf-8") => Some(data.as_bytes().to_vec()),
            Some("base64") => base64::engine::general_purpose::STANDARD.decode(data).ok(),
            Some(_) => None,
        }
    }
}

/// `write`: data for a stream of a process (NORESPONSE).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WriteRequest {
    /// Matchtag of the `exec` request.
    pub matchtag: u32,
    /// Data.
    pub io: IoObject,
}

/// `kill`: sends a signal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KillRequest {
    /// Process id.
    pub pid: i64,
    /// Signal number.
    pub signum: i32,
    /// Names the process instead of `pid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// `wait`: waits for the end of a waitable process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WaitRequest {
    /// Process id.
    pub pid: i64,
    /// Names the process instead of `pid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// Response of `wait`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WaitResponse {
    /// Wait status.
    pub status: i32,
    /// What the server kept of the output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<IoObject>,
}

/// `attach`: becomes the client of a background process (streaming).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttachRequest {
    /// Process id.
    pub pid: i64,
    /// Names the process instead of `pid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Bits `FLAG_STDOUT`, `FLAG_STDERR`, `FLAG_CHANNEL`.
    #[serde(default)]
    pub flags: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_42_example() {
        let text = r#"{"cmd":{"cwd":"/home/test","cmdline":["hostname"],"env":{"PATH":"/bin"},"opts":{},"channels":[]},"flags":11}"#;
        let request: ExecRequest = serde_json::from_str(text).unwrap();
        assert_eq!(
            (request.cmd.cmdline.len(), request.flags, request.local_flags),
            (1, 11, 0)
        );
        let io = serde_json::to_string(&IoObject::new("stdout", 0, b"system76-pc\n")).unwrap();
        assert_eq!(io, r#"{"stream":"stdout","rank":"0","data":"system76-pc\n"}"#);
        assert_eq!(
            serde_json::to_string(&IoObject::end("stderr", 3)).unwrap(),
            r#"{"stream":"stderr","rank":"3","eof":true}"#
        );
    }

    proptest! {
        #[test]
        fn bytes_come_back(data in prop::collection::vec(any::<u8>(), 0..64)) {
            let io = IoObject::new("stdout", 7, &data);
            let text = serde_json::to_string(&io).unwrap();
            let back: IoObject = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(back.bytes(), Some(data));
        }
    }
}
