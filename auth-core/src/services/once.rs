//! Idempotency keys: the client's text bound to route and principal, and a fingerprint of its request.
use crate::crypto::mac;
use crate::ports::{Idempotency, Once};

/// An `Idempotency-Key` header: 1–255 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnceKey(String);

impl OnceKey {
    /// Parses the header value.
    pub fn parse(raw: &str) -> Option<Self> {
        let fits = (1..=255).contains(&raw.len()) && raw.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self(raw.to_owned()))
    }
}

/// Why an idempotency key stopped a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnceError {
    /// The key was used for another request.
    Mismatch,
    /// The first call with the key is still running.
    Running,
}

/// Makes the stored form of idempotency keys.
pub struct OnceKeys {
    key: [u8; 32],
}

impl OnceKeys {
    /// `key`: secret and the same on all nodes; derived from a permanent key by the caller.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// Binds a key to its route and principal, and fingerprints the request's open fields and secrets.
    ///
    /// Of secrets only 16 bits go in: a stored fast MAC of a whole password would let whoever steals the database and
    /// this key skip the slow hash (docs/adr/0004).
    pub fn bind(
        &self,
        key: &OnceKey,
        route: &str,
        principal: &[u8],
        open: &[&[u8]],
        secret: &[&[u8]],
    ) -> Idempotency {
        let key_hash = mac::mac(&self.key, &[b"key", route.as_bytes(), principal, key.0.as_bytes()]);
        let mut parts: Vec<&[u8]> = vec![b"request", route.as_bytes()];
        parts.extend_from_slice(open);
        let short: Vec<[u8; 2]> = secret.iter().map(|s| self.sixteen_bits(s)).collect();
        parts.extend(short.iter().map(|s| s.as_slice()));
        Idempotency { key_hash, request_mac: mac::mac(&self.key, &parts) }
    }

    fn sixteen_bits(&self, secret: &[u8]) -> [u8; 2] {
        let whole = mac::mac(&self.key, &[b"secret", secret]);
        [whole[0], whole[1]]
    }
}

impl<T> Once<T> {
    /// The value of a call that ran, the id of one that ran before, or why it may not run.
    pub(super) fn settle(self, replayed: impl FnOnce(Option<uuid::Uuid>) -> T) -> Result<T, OnceError> {
        match self {
            Once::Done(value) => Ok(value),
            Once::Replayed(id) => Ok(replayed(id)),
            Once::Mismatch => Err(OnceError::Mismatch),
            Once::Running => Err(OnceError::Running),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bound_to_route_principal_and_request() {
        let keys = OnceKeys::new([7; 32]);
        let key = |k: &str| OnceKey::parse(k).unwrap();
        let base = keys.bind(&key("k1"), "register", b"p", &[b"a"], &[b"secret"]);
        let same = keys.bind(&key("k1"), "register", b"p", &[b"a"], &[b"secret"]);
        assert_eq!((base.key_hash, base.request_mac), (same.key_hash, same.request_mac));
        assert_ne!(base.key_hash, keys.bind(&key("k2"), "register", b"p", &[b"a"], &[b"secret"]).key_hash);
        assert_ne!(base.key_hash, keys.bind(&key("k1"), "me", b"p", &[b"a"], &[b"secret"]).key_hash);
        assert_ne!(base.key_hash, keys.bind(&key("k1"), "register", b"q", &[b"a"], &[b"secret"]).key_hash);
        assert_ne!(
            base.request_mac,
            keys.bind(&key("k1"), "register", b"p", &[b"b"], &[b"secret"]).request_mac
        );
        assert_ne!(
            base.request_mac,
            keys.bind(&key("k1"), "register", b"p", &[b"a"], &[b"other"]).request_mac
        );
    }

    #[test]
    fn header_values_are_bounded() {
        assert!(OnceKey::parse("").is_none());
        assert!(OnceKey::parse("a b").is_none());
        assert!(OnceKey::parse(&"a".repeat(256)).is_none());
        assert!(OnceKey::parse(&"a".repeat(255)).is_some());
    }
}
