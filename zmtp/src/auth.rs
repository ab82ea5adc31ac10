//! Who may connect? A decision on the client's public key and the identity it claims.

use std::collections::HashMap;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use crate::keys::PublicKey;

/// Decides whether a client may connect under the identity it claims.
///
/// Called once per connection, after the client has proven that it holds the secret half of `key`. It runs on the
/// connection's task and must not block.
pub trait Authorizer: Send + Sync + 'static {
    /// Admits or refuses the client.
    ///
    /// # Errors
    /// The reason for the refusal.
    fn authorize(&self, key: &PublicKey, identity: &[u8]) -> Result<(), Refusal>;
}

impl<F> Authorizer for F
where
    F: Fn(&PublicKey, &[u8]) -> Result<(), Refusal> + Send + Sync + 'static,
{
    fn authorize(&self, key: &PublicKey, identity: &[u8]) -> Result<(), Refusal> {
        self(key, identity)
    }
}

/// Why a client that holds its key is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The key is not known.
    #[error("unknown public key")]
    UnknownKey,
    /// The key is known, the identity is not the one bound to it.
    #[error("public key is bound to another identity")]
    WrongIdentity,
    /// The authorizer refuses for a reason of its own.
    #[error("not authorized")]
    NotAuthorized,
}

/// The identity that a public key may claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// This identity only.
    Identity(Box<[u8]>),
    /// Any identity: a certificate shared by several peers.
    Any,
}

/// A table from client public key to expected identity that may change while the server runs.
///
/// A change applies to connections made afterwards.
#[derive(Default)]
pub struct KeyTable {
    keys: RwLock<HashMap<PublicKey, Expected>>,
}

impl KeyTable {
    /// Makes an empty table, which admits nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Admits `key`, as `expected`. Returns what it was admitted as before.
    pub fn insert(&self, key: PublicKey, expected: Expected) -> Option<Expected> {
        self.keys
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, expected)
    }

    /// Refuses `key` from now on. Returns what it was admitted as.
    pub fn remove(&self, key: &PublicKey) -> Option<Expected> {
        self.keys
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key)
    }
}

impl FromIterator<(PublicKey, Expected)> for KeyTable {
    fn from_iter<I: IntoIterator<Item = (PublicKey, Expected)>>(keys: I) -> Self {
        Self {
            keys: RwLock::new(keys.into_iter().collect()),
        }
    }
}

impl fmt::Debug for KeyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.keys.read().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_struct("KeyTable").field("keys_count", &count).finish()
    }
}

impl Authorizer for KeyTable {
    fn authorize(&self, key: &PublicKey, identity: &[u8]) -> Result<(), Refusal> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        match keys.get(key) {
            None => Err(Refusal::UnknownKey),
            Some(Expected::Any) => Ok(()),
            Some(Expected::Identity(expected)) if **expected == *identity => Ok(()),
            Some(Expected::Identity(_)) => Err(Refusal::WrongIdentity),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_binds_keys_to_identities() {
        let (bound, shared, unknown) = (
            PublicKey::from_bytes([1; 32]),
            PublicKey::from_bytes([2; 32]),
            PublicKey::from_bytes([3; 32]),
        );
        let table = KeyTable::from_iter([
            (bound, Expected::Identity((*b"7").into())),
            (shared, Expected::Any),
        ]);
        assert_eq!(table.authorize(&bound, b"7"), Ok(()));
        assert_eq!(table.authorize(&bound, b"8"), Err(Refusal::WrongIdentity));
        assert_eq!(table.authorize(&bound, b""), Err(Refusal::WrongIdentity));
        assert_eq!(table.authorize(&shared, b"anything"), Ok(()));
        assert_eq!(table.authorize(&unknown, b"7"), Err(Refusal::UnknownKey));
        assert_eq!(table.remove(&shared), Some(Expected::Any));
        assert_eq!(table.authorize(&shared, b"anything"), Err(Refusal::UnknownKey));
        assert_eq!(table.insert(unknown, Expected::Any), None);
        assert_eq!(table.authorize(&unknown, b"x"), Ok(()));
        assert_eq!(format!("{table:?}"), "KeyTable { keys_count: 2 }");
    }
}
