//! How does an instance that runs as a job talk to the instance that it runs in? Over that one's local socket.
//!
//! Rank 0 only, and rarely: to learn its resources and to tell its URI.

use std::io;

use bytes::{Buf, BytesMut};
use flux_formats::errno::{EPROTO, Errnum, strerror};
use flux_formats::jobid::JobId;
use flux_formats::msg::{
    DecodeError, FrameDecoder, Kind, Message, NODEID_ANY, PayloadError, flags, frame_into, json_payload,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::attrs::Attrs;

/// Largest frame taken from the parent, which this instance trusts.
const FRAME_SIZE_MAX: usize = 0x7fff_ffff;
/// Bytes read at once.
const READ_SIZE: usize = 16 * 1024;

/// Why the parent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ParentError {
    /// Its URI is not one of this host.
    #[error("parent-uri {0} is not a local:// URI")]
    Uri(String),
    /// The socket cannot be used.
    #[error("socket of the enclosing instance: {0}")]
    Socket(#[from] io::Error),
    /// The enclosing instance refuses the connection.
    #[error("the enclosing instance refused the connection: {}", strerror(*.0))]
    Refused(Errnum),
    /// It sent something that is no message.
    #[error("the enclosing instance sent a malformed message: {0}")]
    Decode(#[from] DecodeError),
    /// It sent a payload that is not as expected.
    #[error("the enclosing instance sent an unexpected payload: {0}")]
    Payload(#[from] PayloadError),
    /// It answered with an error.
    #[error("{topic}: {text}")]
    Rpc {
        /// The request's topic.
        topic: String,
        /// Its error number.
        errnum: Errnum,
        /// Its words.
        text: String,
    },
}

/// Where this instance runs: the parent's URI, and the job there.
pub fn location(attrs: &Attrs) -> Option<(String, JobId)> {
    let uri = attrs.get("parent-uri")?.to_owned();
    let id = attrs.get("jobid")?.parse().ok()?;
    Some((uri, id))
}

/// A connection to the enclosing instance.
#[derive(Debug)]
pub struct Link {
    stream: UnixStream,
    decoder: FrameDecoder,
    matchtag: u32,
}

impl Link {
    /// Connects.
    ///
    /// # Errors
    /// Any [`ParentError`] but `Rpc`.
    pub async fn open(uri: &str) -> Result<Self, ParentError> {
        let path = uri
            .strip_prefix("local://")
            .ok_or_else(|| ParentError::Uri(uri.to_owned()))?;
        let mut stream = UnixStream::connect(path).await?;
        match stream.read_u8().await? {
            0 => {}
            errnum => return Err(ParentError::Refused(errnum.into())),
        }
        Ok(Link {
            stream,
            decoder: FrameDecoder::new(FRAME_SIZE_MAX),
            matchtag: 0,
        })
    }

    /// Sends a request; its responses come from [`Link::response`].
    ///
    /// # Errors
    /// [`ParentError::Socket`].
    pub async fn send(
        &mut self,
        topic: &'static str,
        body: &impl Serialize,
        streaming: bool,
    ) -> Result<(), ParentError> {
        let payload = json_payload(body).map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err))?;
        let mut msg = Message::request(topic, NODEID_ANY, Some(payload));
        self.matchtag += 1;
        msg.aux2 = self.matchtag;
        if streaming {
            msg.flags |= flags::STREAMING;
        }
        let mut out = BytesMut::new();
        frame_into(&msg, &mut out);
        while out.has_remaining() {
            self.stream.write_buf(&mut out).await?;
        }
        Ok(())
    }

    /// Waits for the next response.
    ///
    /// # Errors
    /// Any [`ParentError`]; `Rpc` when it carries an error number.
    pub async fn response<T: DeserializeOwned>(&mut self) -> Result<T, ParentError> {
        loop {
            while let Some(msg) = self.decoder.next_message()? {
                if msg.kind != Kind::Response || msg.matchtag() != self.matchtag {
                    continue;
                }
                if msg.errnum() != 0 {
                    let text = msg.payload_str().ok().filter(|text| !text.is_empty());
                    return Err(ParentError::Rpc {
                        topic: msg.topic.to_string(),
                        errnum: msg.errnum(),
                        text: text.unwrap_or_else(|| strerror(msg.errnum())).to_owned(),
                    });
                }
                return Ok(msg.payload_json_or_empty()?);
            }
            self.decoder.buffer.reserve(READ_SIZE);
            if self.stream.read_buf(&mut self.decoder.buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

impl ParentError {
    /// Returns the error number that best describes it.
    pub fn errnum(&self) -> Errnum {
        match self {
            ParentError::Rpc { errnum, .. } | ParentError::Refused(errnum) => *errnum,
            _ => EPROTO,
        }
    }
}

/// Tells the enclosing instance where this one is reached, and which brokers it cannot lose.
///
/// # Errors
/// Any [`ParentError`].
pub async fn announce(uri: String, id: JobId, own_uri: String, critical: String) -> Result<(), ParentError> {
    let mut link = Link::open(&uri).await?;
    let memo = serde_json::json!({ "id": id.0, "memo": { "uri": own_uri } });
    link.send("job-manager.memo", &memo, false).await?;
    link.response::<serde::de::IgnoredAny>().await?;
    let ranks = serde_json::json!({ "id": id.0, "ranks": critical });
    link.send("job-exec.critical-ranks", &ranks, false).await?;
    link.response::<serde::de::IgnoredAny>().await?;
    Ok(())
}
