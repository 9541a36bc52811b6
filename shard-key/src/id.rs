//! Ids that say where their row lives: a version 8 UUID (RFC 9562, section 5.8) laid out like version 7,
//! with the bucket in the first 14 of the lower random bits.
//!
//! ```text
//!  bits  0..48   milliseconds since 1970, big-endian     time-ordered inside a bucket
//!       48..52   version, 8
//!       52..64   12 random bits
//!       64..66   variant, 0b10
//!       66..80   the bucket
//!       80..128  48 random bits
//! ```
//! Sixty random bits a millisecond name a row; they are no secret and must not serve as one.

use crate::Bucket;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// Why a text or a UUID is not one of our ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseIdError {
    /// Not the canonical text: 36 characters, hexadecimal with four hyphens.
    NotCanonical,
    /// A UUID, but not version 8 of the RFC 9562 variant.
    NotVersion8,
}

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotCanonical => "not a UUID in canonical form",
            Self::NotVersion8 => "not a version 8 UUID",
        })
    }
}

impl std::error::Error for ParseIdError {}

fn generate(bucket: Bucket, unix_ms: u64, random: [u8; 8]) -> Uuid {
    let [a, b, tail @ ..] = random;
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
    bytes[6] = 0x80 | (a & 0x0F);
    bytes[7] = b;
    bytes[8..10].copy_from_slice(&(0x8000 | bucket.get()).to_be_bytes());
    bytes[10..].copy_from_slice(&tail);
    Uuid::from_bytes(bytes)
}

fn bucket(id: &Uuid) -> Bucket {
    let bytes = id.as_bytes();
    Bucket::from_low_bits(u16::from_be_bytes([bytes[8], bytes[9]]))
}

fn unix_ms(id: &Uuid) -> u64 {
    let [a, b, c, d, e, f, ..] = *id.as_bytes();
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

fn check(id: Uuid) -> Result<Uuid, ParseIdError> {
    let bytes = id.as_bytes();
    if bytes[6] >> 4 == 8 && bytes[8] >> 6 == 0b10 { Ok(id) } else { Err(ParseIdError::NotVersion8) }
}

/// The uuid crate also takes braces, `urn:uuid:` and no hyphens: one id would have many texts.
fn parse(text: &str) -> Result<Uuid, ParseIdError> {
    let bytes = text.as_bytes();
    let hyphens = [8, 13, 18, 23];
    if bytes.len() != 36 || hyphens.iter().any(|&at| bytes[at] != b'-') {
        return Err(ParseIdError::NotCanonical);
    }
    check(Uuid::try_parse(text).map_err(|_| ParseIdError::NotCanonical)?)
}

/// One id type. Distinct types, so that a session id cannot stand where a user id belongs.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id. `unix_ms` keeps its low 48 bits (until the year 10889), `random` gives 60 bits.
            #[must_use]
            pub fn generate(bucket: Bucket, unix_ms: u64, random: [u8; 8]) -> Self {
                Self(generate(bucket, unix_ms, random))
            }

            /// The bucket of the row, for ever.
            #[must_use]
            pub fn bucket(&self) -> Bucket {
                bucket(&self.0)
            }

            /// When it was made, in milliseconds since 1970.
            #[must_use]
            pub fn unix_ms(&self) -> u64 {
                unix_ms(&self.0)
            }

            /// The UUID, as stored.
            #[must_use]
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl TryFrom<Uuid> for $name {
            type Error = ParseIdError;

            fn try_from(id: Uuid) -> Result<Self, ParseIdError> {
                check(id).map(Self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// A user. Its bucket is the bucket of the identifier that they signed up with.
    UserId
}

id! {
    /// A session. Its bucket is its user's.
    SessionId
}
