//! How are bytes that are not text carried in JSON? (RFC 4648, padded)

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Returns the base64 text of bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Returns the bytes of base64 text, or `None` when it is malformed.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}
