//! How is standard output kept in a job's eventlog? (RFC 24.)

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Name of the encoding of text.
pub const UTF8: &str = "UTF-8";
/// Name of the encoding of other bytes.
pub const BASE64: &str = "base64";

/// Why a context is not an event of RFC 24.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// Base64 does not decode.
    #[error("invalid base64 in stream data")]
    Base64(#[from] base64::DecodeError),
    /// The encoding is neither UTF-8 nor base64.
    #[error("unknown stream encoding {0:?}")]
    Encoding(String),
    /// The data names its encoding nowhere: not in the event, not in the header.
    #[error("stream {0:?} has no encoding in the header")]
    Stream(String),
}

/// Context of the `header` event, the first of a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// 1.
    pub version: u32,
    /// Stream name to default encoding.
    pub encoding: Map<String, Value>,
    /// Stream name to the number of open streams of that name.
    pub count: Map<String, Value>,
    /// Options; none is defined.
    pub options: Map<String, Value>,
}

impl Header {
    /// Returns a header of UTF-8 streams.
    pub fn new<'a>(streams: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let (mut encoding, mut count) = (Map::new(), Map::new());
        for (name, open) in streams {
            encoding.insert(name.to_owned(), UTF8.into());
            count.insert(name.to_owned(), open.into());
        }
        Header {
            version: 1,
            encoding,
            count,
            options: Map::new(),
        }
    }

    /// Returns the default encoding of a stream.
    pub fn encoding_of(&self, stream: &str) -> Option<&str> {
        self.encoding.get(stream)?.as_str()
    }
}

/// Context of a `data` event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// `stdout`, `stderr`, `stdin`.
    pub stream: String,
    /// Task rank, idset of ranks, or `all`.
    pub rank: String,
    /// Encoding of `data` when it is not the header's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// Encoded bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The stream ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub eof: bool,
    /// Number of copies, 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<u32>,
}

impl Data {
    /// Encodes bytes: as text when they are UTF-8 without NUL, otherwise in base64; no bytes give no `data`.
    pub fn encode(stream: &str, rank: &str, bytes: &[u8], eof: bool) -> Self {
        let mut event = Data {
            stream: stream.to_owned(),
            rank: rank.to_owned(),
            eof,
            ..Data::default()
        };
        if bytes.is_empty() {
            return event;
        }
        // C readers of JSON refuse NUL within strings
        match std::str::from_utf8(bytes) {
            Ok(text) if !bytes.contains(&0) => event.data = Some(text.to_owned()),
            _ => {
                event.encoding = Some(BASE64.to_owned());
                event.data = Some(STANDARD.encode(bytes));
            }
        }
        event
    }

    /// Returns the bytes of one copy; `default` is the header's encoding for the stream, UTF-8 when `None`.
    ///
    /// # Errors
    /// [`IoError::Base64`], [`IoError::Encoding`].
    pub fn decode(&self, default: Option<&str>) -> Result<Vec<u8>, IoError> {
        let Some(data) = &self.data else {
            return Ok(Vec::new());
        };
        match self.encoding.as_deref().or(default).unwrap_or(UTF8) {
            UTF8 | "utf-8" => Ok(data.clone().into_bytes()),
            BASE64 => Ok(STANDARD.decode(data)?),
            other => Err(IoError::Encoding(other.to_owned())),
        }
    }
}

/// Context of a `redirect` event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// Stream that leaves the log.
    pub stream: String,
    /// Idset of task ranks.
    #[serde(default)]
    pub rank: String,
    /// File that the data goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Context of a `log` event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Shell rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<u32>,
    /// Severity of RFC 5424, 0 to 7.
    pub level: u8,
    /// Shell component or plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// Text.
    pub message: String,
    /// Source file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Source line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Program, `flux-shell` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
}

/// Returns how many bytes at the start are whole UTF-8 characters, when what follows is only the beginning of one.
///
/// Writers hold back those up to three bytes, so that text cut by a buffer's end stays text.
pub fn utf8_boundary(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(err) if err.error_len().is_none() => err.valid_up_to(),
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_contexts() {
        let header = r#"{"version":1,"encoding":{"stdout":"UTF-8","stderr":"UTF-8"},"count":{"stdout":4,"stderr":4},"options":{}}"#;
        assert_eq!(
            serde_json::to_string(&Header::new([("stdout", 4), ("stderr", 4)])).unwrap(),
            header
        );
        let parsed: Header = serde_json::from_str(header).unwrap();
        assert_eq!(parsed.encoding_of("stdout"), Some("UTF-8"));
        let to_json = |data: Data| serde_json::to_string(&data).unwrap();
        assert_eq!(
            to_json(Data::encode("stderr", "3", b"hello stderr\n", false)),
            r#"{"stream":"stderr","rank":"3","data":"hello stderr\n"}"#
        );
        assert_eq!(
            to_json(Data::encode("stdout", "1", b"", true)),
            r#"{"stream":"stdout","rank":"1","eof":true}"#
        );
        assert_eq!(
            to_json(Data::encode("stdout", "1", &[255], false)),
            r#"{"stream":"stdout","rank":"1","encoding":"base64","data":"/w=="}"#
        );
        let log =
            r#"{"rank":0,"level":0,"message":"task 0 (host vm): start failed","file":"shell.c","line":2036}"#;
        assert_eq!(
            serde_json::to_string(&serde_json::from_str::<Log>(log).unwrap()).unwrap(),
            log
        );
        let redirect = r#"{"stream":"stdout","rank":"0-3","path":"job.output"}"#;
        assert_eq!(
            serde_json::to_string(&serde_json::from_str::<Redirect>(redirect).unwrap()).unwrap(),
            redirect
        );
    }

    #[test]
    fn encodings() {
        let data: Data =
            serde_json::from_str(r#"{"stream":"stdout","rank":"31","data":"bWVlcAo="}"#).unwrap();
        assert_eq!(data.decode(Some(BASE64)).unwrap(), b"meep\n");
        assert!(data.decode(Some("latin1")).is_err());
        let bad = Data {
            encoding: Some(BASE64.into()),
            data: Some("!".into()),
            ..Data::default()
        };
        assert!(bad.decode(None).is_err());
        assert_eq!(utf8_boundary("aé".as_bytes()), 3);
        assert_eq!(utf8_boundary(b"a\xc3"), 1);
        assert_eq!(utf8_boundary(b"a\xff"), 2);
    }

    proptest! {
        #[test]
        fn round_trip(bytes: Vec<u8>, text: String, eof: bool) {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                let json = serde_json::to_string(&Data::encode("stdout", "0", bytes, eof)).unwrap();
                let back: Data = serde_json::from_str(&json).unwrap();
                prop_assert_eq!(back.decode(Some(UTF8)).unwrap(), bytes);
                prop_assert_eq!(back.eof, eof);
            }
        }
    }
}
