//! How is a blob of the content store named? (RFC 10 blobref.)

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};
use sha1::Digest;

/// Digest size of the longest hash.
const DIGEST_MAX: usize = 32;

/// Why a text or digest is not a blobref.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobRefError {
    /// The hash is neither sha1 nor sha256.
    #[error("unknown hash type in blobref")]
    Hash,
    /// The digest has the wrong length or is not lower-case hexadecimal.
    #[error("invalid digest in blobref")]
    Digest,
}

/// The hash of an instance's content store (attribute `content.hash`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HashType {
    /// 20 bytes.
    #[default]
    Sha1,
    /// 32 bytes.
    Sha256,
}

impl HashType {
    /// Returns `sha1` or `sha256`.
    pub const fn name(self) -> &'static str {
        match self {
            HashType::Sha1 => "sha1",
            HashType::Sha256 => "sha256",
        }
    }

    /// Returns the size of a digest in bytes.
    pub const fn digest_size(self) -> usize {
        match self {
            HashType::Sha1 => 20,
            HashType::Sha256 => DIGEST_MAX,
        }
    }
}

impl FromStr for HashType {
    type Err = BlobRefError;
    fn from_str(name: &str) -> Result<Self, BlobRefError> {
        match name {
            "sha1" => Ok(HashType::Sha1),
            "sha256" => Ok(HashType::Sha256),
            _ => Err(BlobRefError::Hash),
        }
    }
}

/// The name of a blob: hash type and digest; 33 bytes, copied freely.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobRef {
    hash: HashType,
    /// The digest, followed by zeros for SHA-1.
    digest: [u8; DIGEST_MAX],
}

impl BlobRef {
    /// Returns the name of `blob`.
    pub fn compute(hash: HashType, blob: &[u8]) -> Self {
        let mut digest = [0; DIGEST_MAX];
        let fill = |digest: &mut [u8], from: &[u8]| digest.iter_mut().zip(from).for_each(|(to, b)| *to = *b);
        match hash {
            HashType::Sha1 => fill(&mut digest, sha1::Sha1::digest(blob).as_slice()),
            HashType::Sha256 => fill(&mut digest, sha2::Sha256::digest(blob).as_slice()),
        }
        BlobRef { hash, digest }
    }

    /// Returns the name with this raw digest, as content RPCs carry it.
    ///
    /// # Errors
    /// [`BlobRefError::Digest`] when the length is not that of the hash.
    pub fn from_digest(hash: HashType, raw: &[u8]) -> Result<Self, BlobRefError> {
        if raw.len() != hash.digest_size() {
            return Err(BlobRefError::Digest);
        }
        let mut digest = [0; DIGEST_MAX];
        digest.iter_mut().zip(raw).for_each(|(to, b)| *to = *b);
        Ok(BlobRef { hash, digest })
    }

    /// Returns the hash type.
    pub fn hash_type(&self) -> HashType {
        self.hash
    }

    /// Returns the raw digest, 20 or 32 bytes.
    pub fn digest(&self) -> &[u8] {
        self.digest.get(..self.hash.digest_size()).unwrap_or(&self.digest)
    }
}

impl fmt::Display for BlobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0u8; DIGEST_MAX * 2];
        let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.digest()) {
            if let [high, low] = pair {
                *high = digit(byte >> 4);
                *low = digit(byte & 15);
            }
        }
        let hex = text.get(..self.hash.digest_size() * 2).unwrap_or_default();
        f.write_str(self.hash.name())?;
        f.write_str("-")?;
        f.write_str(std::str::from_utf8(hex).unwrap_or(""))
    }
}

impl fmt::Debug for BlobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlobRef {
    type Err = BlobRefError;

    fn from_str(text: &str) -> Result<Self, BlobRefError> {
        let (name, hex) = text.split_once('-').ok_or(BlobRefError::Hash)?;
        let hash: HashType = name.parse()?;
        let hex = hex.as_bytes();
        if hex.len() != hash.digest_size() * 2 {
            return Err(BlobRefError::Digest);
        }
        let nibble = |c: u8| match c {
            b'0'..=b'9' => Ok(c - b'0'),
            b'a'..=b'f' => Ok(c - b'a' + 10),
            _ => Err(BlobRefError::Digest),
        };
        let mut digest = [0; DIGEST_MAX];
        for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
            if let [high, low] = pair {
                *byte = nibble(*high)? << 4 | nibble(*low)?;
            }
        }
        Ok(BlobRef { hash, digest })
    }
}

impl Serialize for BlobRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlobRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = BlobRef;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a blobref string")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<BlobRef, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden() {
        // flux content store of "hi\n"
        let blobref = BlobRef::compute(HashType::Sha1, b"hi\n");
        assert_eq!(
            blobref.to_string(),
            "sha1-55ca6286e3e4f4fba5d0448333fa99fc5a404a73"
        );
        assert_eq!(
            BlobRef::compute(HashType::Sha256, b"").to_string(),
            "sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        for bad in [
            "",
            "sha1",
            "sha1-",
            "md5-55ca6286e3e4f4fba5d0448333fa99fc5a404a73",
            "sha1-55CA6286e3e4f4fba5d0448333fa99fc5a404a73",
            "sha1-55ca6286e3e4f4fba5d0448333fa99fc5a404a7",
            "sha1-55ca6286e3e4f4fba5d0448333fa99fc5a404a7z",
        ] {
            assert!(bad.parse::<BlobRef>().is_err(), "{bad}");
        }
        assert!(BlobRef::from_digest(HashType::Sha1, &[0; 19]).is_err());
    }

    proptest! {
        #[test]
        fn round_trip(blob: Vec<u8>, sha1: bool) {
            let hash = if sha1 { HashType::Sha1 } else { HashType::Sha256 };
            let blobref = BlobRef::compute(hash, &blob);
            prop_assert_eq!(blobref.to_string().parse(), Ok(blobref));
            prop_assert_eq!(BlobRef::from_digest(hash, blobref.digest()), Ok(blobref));
        }
    }
}
