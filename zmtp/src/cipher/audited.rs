//! `crypto_box` by RustCrypto: audited, no `unsafe` of its own.

use crypto_box::aead::AeadInPlace as _;
use crypto_box::{PublicKey, SalsaBox, SecretKey};

use super::{BadBox, BoxCipher, Nonce, Tag};

/// The audited implementation.
pub(crate) struct AuditedCipher(SalsaBox);

impl BoxCipher for AuditedCipher {
    fn new(public: &[u8; 32], secret: &[u8; 32]) -> Result<Self, BadBox> {
        // SalsaBox accepts a low-order point, whose shared secret is all zeros whatever the secret key; refuse
        // as libsodium does.
        if is_low_order(public) {
            return Err(BadBox);
        }
        Ok(Self(SalsaBox::new(
            &PublicKey::from(*public),
            &SecretKey::from(*secret),
        )))
    }

    fn public_key(secret: &[u8; 32]) -> [u8; 32] {
        *SecretKey::from(*secret).public_key().as_bytes()
    }

    fn seal_in_place(&self, nonce: &Nonce, data: &mut [u8]) -> Tag {
        match self.0.encrypt_in_place_detached(nonce.into(), &[], data) {
            Ok(tag) => tag.into(),
            // Only reached above 2^70 bytes; an all-zero tag does not open.
            Err(_) => Tag::default(),
        }
    }

    fn open_in_place(&self, nonce: &Nonce, tag: &Tag, data: &mut [u8]) -> Result<(), BadBox> {
        self.0
            .decrypt_in_place_detached(nonce.into(), &[], data, tag.into())
            .map_err(|_| BadBox)
    }

    fn open_into(&self, nonce: &Nonce, tag: &Tag, sealed: &[u8], plain: &mut [u8]) -> Result<(), BadBox> {
        if plain.len() != sealed.len() {
            return Err(BadBox);
        }
        plain.copy_from_slice(sealed);
        self.open_in_place(nonce, tag, plain)
    }
}

/// Tells whether multiplying the point by any clamped scalar gives zero.
fn is_low_order(public: &[u8; 32]) -> bool {
    // Any one scalar decides: a low-order point times a multiple of the cofactor 8 is the neutral element.
    // The shared secret itself is not visible through SalsaBox, so compare boxes: sealing under two different
    // secret keys gives the same tag exactly when the shared secret does not depend on the secret key.
    let tag = |secret: u8| {
        let cipher = SalsaBox::new(&PublicKey::from(*public), &SecretKey::from([secret; 32]));
        cipher
            .encrypt_in_place_detached((&[0u8; 24]).into(), &[], &mut [])
            .ok()
    };
    tag(1) == tag(3)
}
