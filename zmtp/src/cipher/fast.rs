//! `crypto_box` by dryoc: vectorised (AVX2, AVX-512, NEON) where the CPU can, not audited.

use dryoc::classic::crypto_box as dry;
use dryoc::classic::crypto_core::crypto_scalarmult_base;
use zeroize::Zeroizing;

use super::{BadBox, BoxCipher, Nonce, Tag};

/// The fast implementation.
pub(crate) struct FastCipher(Zeroizing<[u8; 32]>);

impl BoxCipher for FastCipher {
    fn new(public: &[u8; 32], secret: &[u8; 32]) -> Result<Self, BadBox> {
        dry::crypto_box_beforenm(public, secret)
            .map(|key| Self(Zeroizing::new(key)))
            .map_err(|_| BadBox)
    }

    fn public_key(secret: &[u8; 32]) -> [u8; 32] {
        let mut public = [0u8; 32];
        crypto_scalarmult_base(&mut public, secret);
        public
    }

    fn seal_in_place(&self, nonce: &Nonce, data: &mut [u8]) -> Tag {
        let mut tag = Tag::default();
        dry::crypto_box_detached_afternm_inplace(data, &mut tag, nonce, &self.0);
        tag
    }

    fn open_in_place(&self, nonce: &Nonce, tag: &Tag, data: &mut [u8]) -> Result<(), BadBox> {
        dry::crypto_box_open_detached_afternm_inplace(data, tag, nonce, &self.0).map_err(|_| BadBox)
    }

    fn open_into(&self, nonce: &Nonce, tag: &Tag, sealed: &[u8], plain: &mut [u8]) -> Result<(), BadBox> {
        dry::crypto_box_open_detached_afternm(plain, sealed, tag, nonce, &self.0).map_err(|_| BadBox)
    }
}
