//! How does the server side of a CURVE handshake go?

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{
    COOKIE_BYTES, Established, Handshake, HandshakeError, long_nonce, named, open, put_command, seal,
    short_nonce, take_command, take_greeting,
};
use crate::auth::Authorizer;
use crate::cipher::{BoxCipher as _, Cipher};
use crate::codec::greeting;
use crate::codec::metadata::{self, Metadata};
use crate::keys::{Keypair, PublicKey};

const HELLO: &str = "HELLO";
const INITIATE: &str = "INITIATE";
/// RFC 28: the socket types that talk to a ROUTER.
const COMPATIBLE: [&[u8]; 3] = [b"DEALER", b"REQ", b"ROUTER"];
/// The ZAP status of a refused client, RFC 27.
const REFUSED_STATUS: &[u8] = b"\x03400";
/// The nonce of READY, the first that the server sends.
const READY_NONCE: u64 = 1;

/// The random numbers of one server handshake.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct ServerEntropy {
    secret: [u8; 32],
    cookie: [u8; COOKIE_BYTES],
    nonce: [u8; 16],
}

impl ServerEntropy {
    /// Draws from the system.
    pub(crate) fn draw() -> Result<Self, getrandom::Error> {
        let mut bytes = zeroize::Zeroizing::new([0u8; 32 + COOKIE_BYTES + 16]);
        getrandom::fill(bytes.as_mut_slice())?;
        Ok(Self::from_bytes(&bytes))
    }

    /// Takes given bytes. Tests and fuzzing want repeatable runs.
    pub(crate) fn from_bytes(bytes: &[u8; 32 + COOKIE_BYTES + 16]) -> Self {
        let mut entropy = Self {
            secret: [0; 32],
            cookie: [0; COOKIE_BYTES],
            nonce: [0; 16],
        };
        let fields = entropy
            .secret
            .iter_mut()
            .chain(&mut entropy.cookie)
            .chain(&mut entropy.nonce);
        for (field, value) in fields.zip(bytes) {
            *field = *value;
        }
        entropy
    }
}

enum State {
    Greeting,
    Hello,
    Initiate { client: [u8; 32], hello_nonce: u64 },
    Done,
}

/// The server's side of one handshake.
pub(crate) struct ServerHandshake {
    state: State,
    greeted: bool,
    keypair: Arc<Keypair>,
    authorizer: Arc<dyn Authorizer>,
    entropy: ServerEntropy,
}

impl Handshake for ServerHandshake {
    fn advance(
        &mut self,
        input: &mut BytesMut,
        out: &mut Vec<u8>,
    ) -> Result<Option<Established>, HandshakeError> {
        if !self.greeted {
            self.greeted = true;
            out.extend_from_slice(&greeting::encode(true));
        }
        loop {
            match self.state {
                State::Greeting => {
                    if !take_greeting(input)? {
                        return Ok(None);
                    }
                    self.state = State::Hello;
                }
                State::Hello => {
                    let Some(body) = take_command(input, HELLO)? else {
                        return Ok(None);
                    };
                    self.state = self.on_hello(&body, out)?;
                }
                State::Initiate { client, hello_nonce } => {
                    let Some(body) = take_command(input, INITIATE)? else {
                        return Ok(None);
                    };
                    self.state = State::Done;
                    return self.on_initiate(&client, hello_nonce, &body, out).map(Some);
                }
                State::Done => return Ok(None),
            }
        }
    }
}

impl ServerHandshake {
    /// Starts a handshake.
    pub(crate) fn new(
        keypair: Arc<Keypair>,
        authorizer: Arc<dyn Authorizer>,
        entropy: ServerEntropy,
    ) -> Self {
        Self {
            state: State::Greeting,
            greeted: false,
            keypair,
            authorizer,
            entropy,
        }
    }

    fn on_hello(&self, body: &[u8], out: &mut Vec<u8>) -> Result<State, HandshakeError> {
        let hello = Hello::split(named(body, HELLO)?).ok_or(HandshakeError::Malformed(HELLO))?;
        let cipher = Cipher::new(hello.client, self.keypair.secret.as_bytes())
            .map_err(|_| HandshakeError::Box(HELLO))?;
        let hello_nonce = u64::from_be_bytes(*hello.nonce);
        let plain = open(
            &cipher,
            &short_nonce(b"CurveZMQHELLO---", hello_nonce),
            hello.sealed,
        )
        .ok_or(HandshakeError::Box(HELLO))?;
        if !bool::from(plain.as_slice().ct_eq(&[0u8; 64])) {
            return Err(HandshakeError::Malformed(HELLO));
        }
        let mut welcome = zeroize::Zeroizing::new(Vec::with_capacity(32 + COOKIE_BYTES));
        welcome.extend_from_slice(&Cipher::public_key(&self.entropy.secret));
        welcome.extend_from_slice(&self.entropy.cookie);
        let tag = seal(
            &cipher,
            &long_nonce(b"WELCOME-", &self.entropy.nonce),
            &mut welcome,
        );
        put_command(out, "WELCOME", &[&self.entropy.nonce, &tag, &welcome]);
        Ok(State::Initiate {
            client: *hello.client,
            hello_nonce,
        })
    }

    fn on_initiate(
        &self,
        client: &[u8; 32],
        hello_nonce: u64,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Established, HandshakeError> {
        let malformed = HandshakeError::Malformed(INITIATE);
        let data = named(body, INITIATE)?;
        let (cookie, data) = data
            .split_first_chunk::<COOKIE_BYTES>()
            .ok_or(malformed.clone())?;
        if !bool::from(cookie.ct_eq(&self.entropy.cookie)) {
            return Err(HandshakeError::Cookie);
        }
        let (nonce, sealed) = data.split_first_chunk::<8>().ok_or(malformed.clone())?;
        let received_nonce = u64::from_be_bytes(*nonce);
        if received_nonce <= hello_nonce {
            return Err(HandshakeError::Nonce(INITIATE));
        }
        let cipher = Cipher::new(client, &self.entropy.secret).map_err(|_| HandshakeError::Box(INITIATE))?;
        let plain = open(&cipher, &short_nonce(b"CurveZMQINITIATE", received_nonce), sealed)
            .ok_or(HandshakeError::Box(INITIATE))?;
        let (key, rest) = plain.split_first_chunk::<32>().ok_or(malformed.clone())?;
        let (vouch_nonce, rest) = rest.split_first_chunk::<16>().ok_or(malformed.clone())?;
        let (vouch, properties) = rest.split_first_chunk::<80>().ok_or(malformed.clone())?;
        self.check_vouch(client, key, vouch_nonce, vouch)?;
        let peer = metadata::decode(properties).ok_or(malformed)?;
        if !COMPATIBLE.contains(&peer.socket_type) {
            return Err(HandshakeError::SocketType);
        }
        if !metadata::is_identity(peer.identity) {
            return Err(HandshakeError::Identity);
        }
        let peer_key = PublicKey::from_bytes(*key);
        if let Err(refusal) = self.authorizer.authorize(&peer_key, peer.identity) {
            put_command(out, "ERROR", &[REFUSED_STATUS]);
            return Err(HandshakeError::Refused {
                key: peer_key,
                refusal,
            });
        }
        let mut ready = Vec::new();
        metadata::encode(
            &mut ready,
            Metadata {
                socket_type: b"ROUTER",
                identity: b"",
            },
        );
        let tag = seal(
            &cipher,
            &short_nonce(b"CurveZMQREADY---", READY_NONCE),
            &mut ready,
        );
        put_command(out, "READY", &[&READY_NONCE.to_be_bytes(), &tag, &ready]);
        Ok(Established {
            cipher,
            is_server: true,
            send_nonce: READY_NONCE + 1,
            received_nonce,
            peer_key,
            identity: Bytes::copy_from_slice(peer.identity),
        })
    }

    /// Checks that the holder of `key` vouches for this connection: `Box [C',S](C->S')`.
    fn check_vouch(
        &self,
        client: &[u8; 32],
        key: &[u8; 32],
        nonce: &[u8; 16],
        vouch: &[u8; 80],
    ) -> Result<(), HandshakeError> {
        let cipher = Cipher::new(key, &self.entropy.secret).map_err(|_| HandshakeError::Vouch)?;
        let plain = open(&cipher, &long_nonce(b"VOUCH---", nonce), vouch).ok_or(HandshakeError::Vouch)?;
        let (vouched_client, vouched_server) =
            plain.split_first_chunk::<32>().ok_or(HandshakeError::Vouch)?;
        let same = vouched_client.ct_eq(client) & vouched_server.ct_eq(self.keypair.public.as_bytes());
        if bool::from(same) {
            Ok(())
        } else {
            Err(HandshakeError::Vouch)
        }
    }
}

/// The fields of a HELLO: version 1.0, padding of 72 bytes, C', a short nonce, a box of 64 zeros.
struct Hello<'a> {
    client: &'a [u8; 32],
    nonce: &'a [u8; 8],
    sealed: &'a [u8],
}

impl<'a> Hello<'a> {
    fn split(data: &'a [u8]) -> Option<Self> {
        let (version, data) = data.split_first_chunk::<2>()?;
        let (_padding, data) = data.split_first_chunk::<72>()?;
        let (client, data) = data.split_first_chunk::<32>()?;
        let (nonce, sealed) = data.split_first_chunk::<8>()?;
        (*version == [1, 0] && sealed.len() == 80).then_some(Self {
            client,
            nonce,
            sealed,
        })
    }
}
