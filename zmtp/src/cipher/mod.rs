//! Which cipher seals CURVE's boxes? The one place where the implementation is chosen.
//!
//! CURVE (ZeroMQ RFC 26) uses NaCl's `crypto_box`: X25519, XSalsa20, Poly1305. Two implementations stand behind
//! [`BoxCipher`]: `dryoc` (feature `fast-crypto`, vectorised, not audited) and RustCrypto's `crypto_box` (feature
//! `audited-crypto`, no `unsafe`, slower). With both features on the audited one is used; a test checks that the
//! two agree.

#[cfg(all(feature = "fast-crypto", any(test, not(feature = "audited-crypto"))))]
mod fast;

#[cfg(feature = "audited-crypto")]
mod audited;

#[cfg(test)]
mod tests;

#[cfg(feature = "audited-crypto")]
pub(crate) use audited::AuditedCipher as Cipher;
#[cfg(all(feature = "fast-crypto", not(feature = "audited-crypto")))]
pub(crate) use fast::FastCipher as Cipher;

/// Bytes of a nonce.
pub(crate) const NONCE_BYTES: usize = 24;
/// Bytes that sealing adds: the Poly1305 tag, which stands before the ciphertext.
pub(crate) const TAG_BYTES: usize = 16;

/// A nonce: a prefix that names its use and a short nonce that is never repeated.
pub(crate) type Nonce = [u8; NONCE_BYTES];
/// An authentication tag.
pub(crate) type Tag = [u8; TAG_BYTES];

/// A box that does not open: forged, damaged or sealed with another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("box does not open")]
pub(crate) struct BadBox;

/// `crypto_box` with the shared key computed once. Implementations wipe the key when dropped.
pub(crate) trait BoxCipher: Sized + Send + Sync {
    /// Computes the shared key of `secret` and the peer's `public` key. Fails for a low-order public key.
    fn new(public: &[u8; 32], secret: &[u8; 32]) -> Result<Self, BadBox>;

    /// Computes the public key of `secret`.
    fn public_key(secret: &[u8; 32]) -> [u8; 32];

    /// Encrypts `data` where it stands and returns its tag.
    fn seal_in_place(&self, nonce: &Nonce, data: &mut [u8]) -> Tag;

    /// Checks `tag` and decrypts `data` where it stands. On failure `data` is worthless.
    fn open_in_place(&self, nonce: &Nonce, tag: &Tag, data: &mut [u8]) -> Result<(), BadBox>;

    /// Checks `tag` and decrypts `sealed` into `plain`, which has the same length.
    fn open_into(&self, nonce: &Nonce, tag: &Tag, sealed: &[u8], plain: &mut [u8]) -> Result<(), BadBox>;
}

/// Computes the public key of `secret` with the chosen cipher.
pub(crate) fn public_key(secret: &[u8; 32]) -> [u8; 32] {
    Cipher::public_key(secret)
}
