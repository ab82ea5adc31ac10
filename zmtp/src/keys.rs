//! What is a CURVE key, and how is a keypair made, written and compared?

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::cipher;
use crate::z85::{self, KEY_BYTES};

/// A peer's public key: 32 bytes, written as 40 Z85 characters. ZeroMQ RFC 26.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; KEY_BYTES]);

impl PublicKey {
    /// Wraps 32 raw bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Returns the raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Returns the 40 Z85 characters.
    #[must_use]
    pub fn to_z85(&self) -> String {
        z85::encode_key(&self.0)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_z85())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.to_z85())
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    /// Reads 40 Z85 characters.
    ///
    /// # Errors
    /// [`KeyError::Text`] for anything else.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        z85::decode_key(text).map(Self).ok_or(KeyError::Text)
    }
}

/// A secret key: wiped when dropped, compared in constant time, never shown by `Debug`.
#[derive(Clone)]
pub struct SecretKey(Zeroizing<[u8; KEY_BYTES]>);

impl SecretKey {
    /// Wraps 32 raw bytes. The caller wipes its own copy.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Returns the raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Returns the 40 Z85 characters, wiped when dropped.
    #[must_use]
    pub fn to_z85(&self) -> Zeroizing<String> {
        Zeroizing::new(z85::encode_key(&self.0))
    }

    /// Computes the public key that belongs to this secret key.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(cipher::public_key(&self.0))
    }
}

impl PartialEq for SecretKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&*other.0).into()
    }
}

impl Eq for SecretKey {}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    /// Reads 40 Z85 characters.
    ///
    /// # Errors
    /// [`KeyError::Text`] for anything else.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        z85::decode_key(text).map(Self::from_bytes).ok_or(KeyError::Text)
    }
}

/// A public key with its secret key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keypair {
    /// The half that peers know.
    pub public: PublicKey,
    /// The half that stays here.
    pub secret: SecretKey,
}

impl Keypair {
    /// Makes a keypair from the system's random numbers.
    ///
    /// # Errors
    /// [`KeyError::Random`] when the system gives none.
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0u8; KEY_BYTES]);
        getrandom::fill(bytes.as_mut_slice()).map_err(KeyError::Random)?;
        Ok(Self::from_secret(SecretKey(bytes)))
    }

    /// Computes the pair from its secret half.
    #[must_use]
    pub fn from_secret(secret: SecretKey) -> Self {
        Self {
            public: secret.public_key(),
            secret,
        }
    }
}

/// Why a key cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text is not 40 Z85 characters. The text itself is not shown: it may be a secret.
    #[error("key is not 40 Z85 characters")]
    Text,
    /// The system's random number generator failed.
    #[error("no random numbers")]
    Random(#[source] getrandom::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 26 "Test Cases".
    const SECRET_TEXT: &str = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs";
    const PUBLIC_TEXT: &str = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";

    #[test]
    fn the_documented_pair_belongs_together() {
        let secret: SecretKey = SECRET_TEXT.parse().unwrap();
        assert_eq!(secret.public_key().to_z85(), PUBLIC_TEXT);
        assert_eq!(*secret.to_z85(), SECRET_TEXT);
        assert_eq!(Keypair::from_secret(secret).public.to_string(), PUBLIC_TEXT);
    }

    #[test]
    fn generated_pairs_differ_and_belong_together() {
        let (one, two) = (Keypair::generate().unwrap(), Keypair::generate().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.secret.public_key(), one.public);
    }

    #[test]
    fn debug_and_errors_show_no_secret() {
        let pair = Keypair::from_secret(SECRET_TEXT.parse().unwrap());
        let shown = format!("{pair:?}");
        assert!(
            shown.contains("SecretKey(..)") && !shown.contains(SECRET_TEXT),
            "{shown}"
        );
        let err = SECRET_TEXT[1..].parse::<SecretKey>().unwrap_err();
        assert_eq!(err.to_string(), "key is not 40 Z85 characters");
    }
}
