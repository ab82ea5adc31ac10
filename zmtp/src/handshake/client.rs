//! How does the client side of a CURVE handshake go?

use bytes::{Bytes, BytesMut};
use zeroize::Zeroizing;

use super::{
    COOKIE_BYTES, Established, Handshake, HandshakeError, long_nonce, named, open, put_command, seal,
    short_nonce, take_command, take_greeting,
};
use crate::cipher::{BoxCipher as _, Cipher, TAG_BYTES};
use crate::codec::command;
use crate::codec::greeting;
use crate::codec::metadata::{self, Metadata};
use crate::keys::{Keypair, PublicKey};

const WELCOME: &str = "WELCOME";
const READY: &str = "READY";
/// RFC 28: the socket types that talk to a DEALER.
const COMPATIBLE: [&[u8]; 3] = [b"ROUTER", b"DEALER", b"REP"];
/// The counters of what the client sends before the first message.
const HELLO_NONCE: u64 = 1;
const INITIATE_NONCE: u64 = 2;
/// The longest status that is shown.
const STATUS_CHARS_MAX: usize = 32;

enum State {
    Start,
    Greeting,
    Welcome,
    Ready { cipher: Option<Cipher> },
    Done,
}

/// The client's side of one handshake.
pub(crate) struct ClientHandshake {
    state: State,
    keypair: Keypair,
    server_key: PublicKey,
    identity: Bytes,
    /// c', the secret key of this connection.
    secret: Zeroizing<[u8; 32]>,
    vouch_nonce: [u8; 16],
}

impl Handshake for ClientHandshake {
    fn advance(
        &mut self,
        input: &mut BytesMut,
        out: &mut Vec<u8>,
    ) -> Result<Option<Established>, HandshakeError> {
        loop {
            match &mut self.state {
                State::Start => {
                    out.extend_from_slice(&greeting::encode(false));
                    self.state = State::Greeting;
                }
                State::Greeting => {
                    if !take_greeting(input)? {
                        return Ok(None);
                    }
                    self.put_hello(out)?;
                    self.state = State::Welcome;
                }
                State::Welcome => {
                    let Some(body) = take_command(input, WELCOME)? else {
                        return Ok(None);
                    };
                    refuse_error(&body)?;
                    let cipher = self.on_welcome(&body, out)?;
                    self.state = State::Ready { cipher: Some(cipher) };
                }
                State::Ready { cipher } => {
                    let Some(body) = take_command(input, READY)? else {
                        return Ok(None);
                    };
                    refuse_error(&body)?;
                    let cipher = cipher.take().ok_or(HandshakeError::Expected(READY))?;
                    self.state = State::Done;
                    return self.on_ready(cipher, &body).map(Some);
                }
                State::Done => return Ok(None),
            }
        }
    }
}

impl ClientHandshake {
    /// Starts a handshake. `entropy` is random: the connection's secret key and the vouch's nonce.
    pub(crate) fn new(keypair: Keypair, server_key: PublicKey, identity: Bytes, entropy: &[u8; 48]) -> Self {
        let mut secret = Zeroizing::new([0u8; 32]);
        let mut vouch_nonce = [0u8; 16];
        for (field, value) in secret.iter_mut().chain(&mut vouch_nonce).zip(entropy) {
            *field = *value;
        }
        Self {
            state: State::Start,
            keypair,
            server_key,
            identity,
            secret,
            vouch_nonce,
        }
    }

    /// Draws the random numbers of a handshake from the system.
    pub(crate) fn draw_entropy() -> Result<Zeroizing<[u8; 48]>, getrandom::Error> {
        let mut entropy = Zeroizing::new([0u8; 48]);
        getrandom::fill(entropy.as_mut_slice())?;
        Ok(entropy)
    }

    fn server_cipher(&self) -> Result<Cipher, HandshakeError> {
        Cipher::new(self.server_key.as_bytes(), &self.secret).map_err(|_| HandshakeError::Box(WELCOME))
    }

    fn put_hello(&self, out: &mut Vec<u8>) -> Result<(), HandshakeError> {
        let mut zeros = [0u8; 64];
        let tag = seal(
            &self.server_cipher()?,
            &short_nonce(b"CurveZMQHELLO---", HELLO_NONCE),
            &mut zeros,
        );
        let client = Cipher::public_key(&self.secret);
        put_command(
            out,
            "HELLO",
            &[
                &[1, 0],
                &[0; 72],
                &client,
                &HELLO_NONCE.to_be_bytes(),
                &tag,
                &zeros,
            ],
        );
        Ok(())
    }

    fn on_welcome(&self, body: &[u8], out: &mut Vec<u8>) -> Result<Cipher, HandshakeError> {
        let malformed = HandshakeError::Malformed(WELCOME);
        let (nonce, sealed) = named(body, WELCOME)?
            .split_first_chunk::<16>()
            .ok_or(malformed.clone())?;
        if sealed.len() != TAG_BYTES + 32 + COOKIE_BYTES {
            return Err(malformed);
        }
        let plain = open(&self.server_cipher()?, &long_nonce(b"WELCOME-", nonce), sealed)
            .ok_or(HandshakeError::Box(WELCOME))?;
        let (server, cookie) = plain.split_first_chunk::<32>().ok_or(malformed)?;

        let client = Cipher::public_key(&self.secret);
        let mut vouch = [0u8; 64];
        for (field, value) in vouch
            .iter_mut()
            .zip(client.iter().chain(self.server_key.as_bytes()))
        {
            *field = *value;
        }
        let voucher =
            Cipher::new(server, self.keypair.secret.as_bytes()).map_err(|_| HandshakeError::Box(WELCOME))?;
        let vouch_tag = seal(&voucher, &long_nonce(b"VOUCH---", &self.vouch_nonce), &mut vouch);

        let mut initiate = Vec::with_capacity(32 + 16 + 80 + 64 + self.identity.len());
        for field in [
            self.keypair.public.as_bytes().as_slice(),
            &self.vouch_nonce,
            &vouch_tag,
            &vouch,
        ] {
            initiate.extend_from_slice(field);
        }
        metadata::encode(
            &mut initiate,
            Metadata {
                socket_type: b"DEALER",
                identity: &self.identity,
            },
        );
        let cipher = Cipher::new(server, &self.secret).map_err(|_| HandshakeError::Box(WELCOME))?;
        let tag = seal(
            &cipher,
            &short_nonce(b"CurveZMQINITIATE", INITIATE_NONCE),
            &mut initiate,
        );
        put_command(
            out,
            "INITIATE",
            &[cookie, &INITIATE_NONCE.to_be_bytes(), &tag, &initiate],
        );
        Ok(cipher)
    }

    fn on_ready(&self, cipher: Cipher, body: &[u8]) -> Result<Established, HandshakeError> {
        let malformed = HandshakeError::Malformed(READY);
        let (nonce, sealed) = named(body, READY)?
            .split_first_chunk::<8>()
            .ok_or(malformed.clone())?;
        let received_nonce = u64::from_be_bytes(*nonce);
        let plain = open(&cipher, &short_nonce(b"CurveZMQREADY---", received_nonce), sealed)
            .ok_or(HandshakeError::Box(READY))?;
        let peer = metadata::decode(&plain).ok_or(malformed)?;
        if !COMPATIBLE.contains(&peer.socket_type) {
            return Err(HandshakeError::SocketType);
        }
        Ok(Established {
            cipher,
            is_server: false,
            send_nonce: INITIATE_NONCE + 1,
            received_nonce,
            peer_key: self.server_key,
            identity: Bytes::copy_from_slice(peer.identity),
        })
    }
}

/// Turns an ERROR command into the refusal it stands for.
fn refuse_error(body: &[u8]) -> Result<(), HandshakeError> {
    let Some(found) = command::split(body).filter(|found| found.name == b"ERROR") else {
        return Ok(());
    };
    let reason = match found.data.split_first() {
        Some((length, reason)) if usize::from(*length) == reason.len() => reason,
        _ => return Err(HandshakeError::Malformed("ERROR")),
    };
    // The reason is the peer's text and not authenticated: show printable characters only, and few.
    let status = reason
        .iter()
        .filter(|byte| byte.is_ascii_graphic())
        .take(STATUS_CHARS_MAX);
    Err(HandshakeError::RefusedByServer {
        status: status.map(|byte| char::from(*byte)).collect(),
    })
}
