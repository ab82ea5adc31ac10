//! ZMTP 3.1 with CURVE on tokio, interoperable with libzmq.
//!
//! This crate answers one question: how do two processes exchange ZeroMQ multipart messages over an
//! authenticated, encrypted TCP connection without libzmq? It knows nothing of what the messages mean.
//!
//! * [`Server`] is ROUTER-like: it binds, admits peers by public key and identity, and addresses each by
//!   [`PeerId`].
//! * [`Client`] is DEALER-like: it connects to one server. Reconnection is the caller's choice: after
//!   [`Event::Down`], call [`Client::connect`] again.
//! * Both give an [`Events`] receiver, and a `send` that never waits.
//!
//! Protocol: ZeroMQ RFC 23 and 37 (ZMTP 3.0, 3.1), RFC 26 (CurveZMQ). CURVE is the only mechanism: there is
//! no plaintext mode. The layers, from the bottom: [`keys`] and the cipher, the codec of greeting, frames and
//! commands, the handshake as a pure state machine (bytes in, bytes out), the sealed session, and the tokio
//! connection task.

#![forbid(unsafe_code)]

#[cfg(not(any(feature = "fast-crypto", feature = "audited-crypto")))]
compile_error!("flux-zmtp needs a cipher: enable the feature `fast-crypto` or `audited-crypto`");

mod addr;
mod auth;
mod cipher;
mod codec;
mod handshake;
mod limits;
mod net;
mod session;
mod z85;

#[doc(hidden)]
pub mod fuzz;
pub mod keys;
pub mod zcert;

pub use addr::{Endpoint, EndpointError};
pub use auth::{Authorizer, Expected, KeyTable, Refusal};
pub use handshake::{FrameError, GreetingError, HandshakeError};
pub use keys::{KeyError, Keypair, PublicKey, SecretKey};
pub use limits::{Heartbeat, Limits};
pub use net::{
    BindError, Client, ClientConfig, CloseReport, ConnectError, Credit, Down, Event, Events, Lane, PeerId,
    SendError, Server, ServerConfig, ServerStats,
};
pub use session::ProtocolError;
pub use zcert::{Certificate, CertificateError};
