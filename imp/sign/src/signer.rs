//! Who signs and checks with the site's configuration? The [`Signer`].

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::kv::{Kv, Value};
use crate::munge::{self, Connect, SOCKET_DEFAULT};
use crate::token::{self, Mechanism, Parts, SignError, Unwrapped};

/// First byte of a MUNGE payload: which hash follows.
const HASH_SHA256: u8 = 1;
/// Random bytes in a header's `nonce`.
const NONCE_SIZE: usize = 16;

/// Signs payloads and checks tokens as `[sign]` says.
#[derive(Clone, Debug)]
pub struct Signer {
    config: Config,
    connect: Connect,
}

impl Signer {
    /// Returns a signer that reaches munged through the standard library.
    pub fn new(config: Config) -> Self {
        Signer::with_connect(config, munge::connect)
    }

    /// Returns a signer that reaches munged through `connect`.
    pub fn with_connect(config: Config, connect: Connect) -> Self {
        Signer { config, connect }
    }

    /// Returns the configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Signs `payload` for `userid`, by the configured mechanism unless one is named. Whether the mechanism is allowed
    /// is asked when the token is checked, not here.
    ///
    /// # Errors
    /// [`SignError::WrapMechanism`], [`SignError::MechanismUnavailable`], [`SignError::MungeSign`].
    pub fn wrap(&self, payload: &[u8], mechanism: Option<&str>, userid: u32) -> Result<String, SignError> {
        let mechanism = match mechanism {
            None => self.config.default_type,
            Some(name) => {
                Mechanism::from_name(name).ok_or_else(|| SignError::WrapMechanism(name.to_owned()))?
            }
        };
        if mechanism != Mechanism::Munge {
            return token::wrap_as(payload, mechanism, userid);
        }
        let mut header = token::header(mechanism, userid)?;
        let mut put = |key: &str, text: String| {
            header
                .put(key, Value::String(text))
                .map_err(|err| SignError::Header(Some(err)))
        };
        if let Some(cluster) = &self.config.cluster {
            put("cluster", cluster.clone())?;
        }
        put(
            "nonce",
            nonce().map_err(|err| SignError::MungeSign(err.to_string()))?,
        )?;
        let mut signed = token::signed_part(&header, payload);
        let credential = munge::encode(self.socket(), self.connect, &digest(&signed))
            .map_err(|err| SignError::MungeSign(err.to_string()))?;
        signed.push('.');
        signed.push_str(&credential);
        Ok(signed)
    }

    /// Checks a token's signature, mechanism and age; `real_userid` is the user of the calling process.
    ///
    /// # Errors
    /// Any [`SignError`] of unwrapping.
    pub fn unwrap(&self, token: &str, real_userid: u32) -> Result<Unwrapped, SignError> {
        self.check(token, real_userid, Some(&self.config.allowed_types))
    }

    /// Like [`unwrap`](Signer::unwrap), whatever mechanisms are allowed; the caller must judge the mechanism.
    ///
    /// # Errors
    /// Any [`SignError`] of unwrapping.
    pub fn unwrap_any_mechanism(&self, token: &str, real_userid: u32) -> Result<Unwrapped, SignError> {
        self.check(token, real_userid, None)
    }

    fn check(
        &self,
        token: &str,
        real_userid: u32,
        allowed: Option<&[Mechanism]>,
    ) -> Result<Unwrapped, SignError> {
        let Parts {
            mut unwrapped,
            signed,
            signature,
        } = token::split(token, allowed)?;
        match unwrapped.mechanism {
            Mechanism::None => token::verify_none(&unwrapped, signature, real_userid)?,
            Mechanism::Munge => {
                let made = self.verify_munge(&unwrapped.header, signed, signature, now()?)?;
                unwrapped.signed_at = Some(made);
            }
            Mechanism::Curve => return Err(SignError::MechanismUnavailable(Mechanism::Curve)),
        }
        Ok(unwrapped)
    }

    /// Returns when the credential was made.
    fn verify_munge(&self, header: &Kv, signed: &str, signature: &str, now: i64) -> Result<i64, SignError> {
        let credential = munge::decode(self.socket(), self.connect, signature)
            .map_err(|err| SignError::MungeDecode(err.to_string()))?;
        if credential.payload.first() != Some(&HASH_SHA256) {
            return Err(SignError::HashType);
        }
        if credential.payload != digest(signed) {
            return Err(SignError::HashMismatch);
        }
        if header.get_int("userid") != Some(i64::from(credential.uid)) {
            return Err(SignError::UidMismatch);
        }
        let made = i64::from(credential.encode_time);
        if made.saturating_add(self.config.max_ttl) < now {
            return Err(SignError::TtlExceeded);
        }
        Ok(made)
    }

    fn socket(&self) -> &Path {
        self.config
            .munge_socket
            .as_ref()
            .map_or(Path::new(SOCKET_DEFAULT), PathBuf::as_path)
    }
}

/// What MUNGE signs: the kind of hash and the hash of `HEADER.PAYLOAD`.
fn digest(signed: &str) -> Vec<u8> {
    let mut payload = vec![HASH_SHA256];
    payload.extend_from_slice(&Sha256::digest(signed.as_bytes()));
    payload
}

/// Makes two requests for the same work differ.
fn nonce() -> io::Result<String> {
    let mut bytes = [0; NONCE_SIZE];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn now() -> Result<i64, SignError> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|_| SignError::Clock)?;
    i64::try_from(since.as_secs()).map_err(|_| SignError::Clock)
}

#[cfg(test)]
#[path = "signer_tests.rs"]
mod tests;
