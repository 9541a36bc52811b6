//! From a login identifier to its bucket, and to the hash under which it is stored.
//!
//! Both are HMAC-SHA256 over `tenant ‖ kind ‖ normalised value`, each part prefixed with its length as a
//! big-endian `u32`; the tenant is a big-endian `i32`, the kind its label. Two permanent keys, so that the
//! stored hash says nothing about the bucket and nobody outside can aim sign-ups at one bucket.

use crate::Bucket;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;

/// The tenant an identifier belongs to: the same e-mail address in two tenants is two people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(i32);

impl TenantId {
    /// The only tenant until there are organisations (slug `default`).
    pub const DEFAULT: Self = Self(1);

    /// The tenant of that number.
    #[must_use]
    pub const fn new(id: i32) -> Self {
        Self(id)
    }

    /// Its number, as stored in `tenant_id int`.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }
}

impl From<TenantId> for i32 {
    fn from(tenant: TenantId) -> Self {
        tenant.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What sort of name somebody logs in with. Codes and labels are stored and hashed: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum IdentifierKind {
    /// An e-mail address.
    Email,
}

impl IdentifierKind {
    /// The stored code (`kind smallint`).
    #[must_use]
    pub const fn code(self) -> i16 {
        match self {
            Self::Email => 1,
        }
    }

    /// The label that is hashed.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Email => "email",
        }
    }

    /// The kind with that stored code.
    #[must_use]
    pub const fn from_code(code: i16) -> Option<Self> {
        match code {
            1 => Some(Self::Email),
            _ => None,
        }
    }
}

/// Decides the bucket of an identifier. Permanent: with another key nobody is found again.
#[derive(Clone)]
pub struct RoutingKey([u8; 32]);

/// Hashes identifiers for storage. Permanent, and different from the routing key.
#[derive(Clone)]
pub struct LookupKey([u8; 32]);

/// The keyed hash under which an identifier is stored; unique within a tenant and kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupHash([u8; 32]);

impl RoutingKey {
    /// Takes the 32 bytes of the key.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bucket of an identifier: the first two bytes of the HMAC, big-endian, `& 0x3FFF`.
    #[must_use]
    pub fn bucket_of(&self, tenant: TenantId, kind: IdentifierKind, normalised: &str) -> Bucket {
        let mac = identifier_mac(&self.0, tenant, kind, normalised);
        Bucket::from_low_bits(u16::from_be_bytes([mac[0], mac[1]]))
    }

    /// Names the key without giving it away: 8 bytes as 16 hex digits. Stands in the directory and in every
    /// shard, and a node whose key has another one refuses to start.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.0, b"tessera/fingerprint/routing-key/v1")
    }

    /// Whether both keys are made of the same bytes, which a node must refuse.
    #[must_use]
    pub fn is_same_secret_as(&self, other: &LookupKey) -> bool {
        // Not a comparison with anything a stranger sends: timing is of no interest.
        self.0 == other.0
    }
}

impl LookupKey {
    /// Takes the 32 bytes of the key.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash under which an identifier is stored and found.
    #[must_use]
    pub fn lookup_hash(&self, tenant: TenantId, kind: IdentifierKind, normalised: &str) -> LookupHash {
        LookupHash(identifier_mac(&self.0, tenant, kind, normalised))
    }

    /// As [`RoutingKey::fingerprint`].
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.0, b"tessera/fingerprint/lookup-key/v1")
    }
}

impl LookupHash {
    /// The bytes, as stored in `lookup_hash bytea`.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for LookupHash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for LookupHash {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for RoutingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RoutingKey([redacted])")
    }
}

impl fmt::Debug for LookupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LookupKey([redacted])")
    }
}

/// Four bytes tell rows apart in a log; the whole hash would be a handle on a person.
impl fmt::Debug for LookupHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LookupHash({}…)", hex(&self.0[..4]))
    }
}

fn identifier_mac(key: &[u8; 32], tenant: TenantId, kind: IdentifierKind, normalised: &str) -> [u8; 32] {
    let mut mac = new_mac(key);
    for part in [&tenant.0.to_be_bytes()[..], kind.label().as_bytes(), normalised.as_bytes()] {
        let length = u32::try_from(part.len()).expect("identifiers are bounded far below 4 GiB");
        mac.update(&length.to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// The labels cannot collide with an identifier's message, which starts with `00 00 00 04`.
fn fingerprint(key: &[u8; 32], label: &[u8]) -> String {
    let mut mac = new_mac(key);
    mac.update(label);
    hex(&mac.finalize().into_bytes()[..8])
}

fn new_mac(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
