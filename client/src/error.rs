//! What can go wrong between a client and its broker?

use std::io;
use std::path::PathBuf;

use flux_formats::errno::{self, Errnum, strerror};
use flux_formats::msg::{DecodeError, PayloadError, Topic};

/// A service answered a request with an error number.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", self.message())]
pub struct RpcError {
    /// Topic of the request.
    pub topic: Topic,
    /// Error number of the response, never 0.
    pub errnum: Errnum,
    /// Text that came with the error, if any.
    pub text: Option<String>,
}

impl RpcError {
    /// Returns the service's text, or the words for the error number when there is none.
    pub fn message(&self) -> &str {
        self.text
            .as_deref()
            .filter(|text| !text.is_empty())
            .unwrap_or_else(|| strerror(self.errnum))
    }
}

/// Why an operation on a [`Handle`](crate::Handle) failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing listens where the URI points.
    #[error("broker socket {} was not found", .0.display())]
    SocketNotFound(PathBuf),
    /// The socket exists but connecting failed.
    #[error("failed to connect to broker socket {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The broker refused the connection, usually because this user has no role in the instance.
    #[error("broker socket {} refused the connection: {}", path.display(), strerror(*errnum))]
    Refused {
        /// The socket.
        path: PathBuf,
        /// The error number that the broker sent instead of 0.
        errnum: Errnum,
    },
    /// The URI is malformed or its scheme is not supported.
    #[error("cannot use URI {uri}: {reason}")]
    Uri {
        /// The URI as given.
        uri: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The remote shell of an `ssh://` URI did not lead to a broker.
    #[error("{uri}: {text}")]
    Tunnel {
        /// The URI as given.
        uri: String,
        /// What the remote shell said.
        text: String,
    },
    /// A service answered with an error.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The broker closed the connection.
    #[error("the broker closed the connection")]
    Closed,
    /// The RPC was outstanding when the handle reconnected.
    #[error("RPC aborted due to broker reconnect")]
    Reconnected,
    /// The deadline passed.
    #[error("timed out")]
    Timeout,
    /// Reading or writing the socket failed.
    #[error("i/o error on the broker's socket")]
    Io(#[from] io::Error),
    /// The broker sent bytes that are no message.
    #[error("the broker sent a malformed message")]
    Decode(#[from] DecodeError),
    /// A message lacks the payload its topic promises.
    #[error("unexpected payload in {topic}")]
    Payload {
        /// Topic of the message.
        topic: Topic,
        /// What is wrong with it.
        #[source]
        source: PayloadError,
    },
    /// A request could not be encoded.
    #[error("failed to encode a request")]
    Encode(#[source] serde_json::Error),
    /// A value in the KVS is not what its reader expects.
    #[error("{key}: unexpected value in the KVS")]
    Value {
        /// The KVS key.
        key: String,
    },
}

impl Error {
    /// Returns the error number that best describes the error.
    pub fn errnum(&self) -> Errnum {
        match self {
            Error::SocketNotFound(_) => errno::ENOENT,
            Error::Refused { errnum, .. } => *errnum,
            Error::Uri { .. } | Error::Encode(_) => errno::EINVAL,
            Error::Rpc(err) => err.errnum,
            Error::Tunnel { .. } => errno::EHOSTUNREACH,
            Error::Closed | Error::Reconnected => errno::ECONNRESET,
            Error::Timeout => errno::ETIMEDOUT,
            Error::Connect { source, .. } | Error::Io(source) => source
                .raw_os_error()
                .and_then(|n| Errnum::try_from(n).ok())
                .unwrap_or(errno::EIO),
            Error::Decode(_) | Error::Payload { .. } | Error::Value { .. } => errno::EPROTO,
        }
    }

    /// Returns true when the error is a response with this error number.
    pub fn is_rpc(&self, errnum: Errnum) -> bool {
        matches!(self, Error::Rpc(err) if err.errnum == errnum)
    }
}
