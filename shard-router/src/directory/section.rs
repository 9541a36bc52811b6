//! What the directory tells the nodes, in two sections that are fetched, checked and kept whole.
//!
//! A section is believed all or not at all: one bad row means that somebody made a mistake, and the last
//! good section is the better answer than most of a bad one.

use crate::map::{BucketMap, MAX_EPOCH, Placement, ShardId};
use crate::server::Address;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shard_key::Bucket;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A section of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// Shards, bucket map, fingerprints of the permanent keys.
    Topology,
    /// Signing keys.
    Keys,
}

impl Section {
    /// Its name in `directory.section_version`, in metrics and on disk.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Topology => "topology",
            Self::Keys => "keys",
        }
    }
}

/// A content and the version that the directory gave it.
#[derive(Clone, Debug, PartialEq)]
pub struct Versioned<T> {
    /// Grows with every change, in commit order.
    pub version: i64,
    /// The content.
    pub content: T,
}

/// Everything that this node holds of the directory.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Shards, map, fingerprints.
    pub topology: Versioned<Topology>,
    /// Signing keys, by `signs_from`; version 0 if none were ever read.
    pub keys: Versioned<Vec<KeyRow>>,
}

/// Shards, bucket map and fingerprints of the permanent keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    /// By id, ascending.
    pub shards: Vec<ShardRow>,
    /// One for each bucket, in order.
    pub buckets: Vec<Placement>,
    /// Name of a permanent key (`routing`, `lookup`) → its fingerprint.
    pub fingerprints: BTreeMap<String, String>,
}

/// A row of `directory.shard`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRow {
    /// Its number.
    pub shard_id: ShardId,
    /// Where its primary is reached.
    pub primary: Address,
    /// Where its replicas are reached.
    pub replicas: Vec<Address>,
    /// Share of the first placement.
    pub weight: u32,
}

/// A row of `directory.signing_key`. The private half is sealed with a key that is in no database.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    /// Key id, as in the tokens' header.
    pub kid: String,
    /// JOSE algorithm, one a key (`EdDSA`).
    pub alg: String,
    /// Public key; 32 bytes for `EdDSA`.
    pub public: Vec<u8>,
    /// Sealed private key.
    pub sealed_private: Vec<u8>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// From when verifiers may see it.
    pub published_at: DateTime<Utc>,
    /// From when it signs.
    pub signs_from: DateTime<Utc>,
    /// Until when it signs; `None` while it has no successor.
    pub signs_until: Option<DateTime<Utc>>,
    /// When it left the published set.
    pub removed_at: Option<DateTime<Utc>>,
    /// When it was declared compromised.
    pub distrusted_at: Option<DateTime<Utc>>,
}

impl fmt::Debug for KeyRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRow")
            .field("kid", &self.kid)
            .field("alg", &self.alg)
            .field("sealed_private", &"[redacted]")
            .field("signs_from", &self.signs_from)
            .field("signs_until", &self.signs_until)
            .finish_non_exhaustive()
    }
}

/// Why a section is not believed. For people: it names the row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("section {section} is refused: {reason}", section = section.name())]
pub struct BadSection {
    /// Which section.
    pub section: Section,
    /// What is wrong with it.
    pub reason: String,
}

impl Topology {
    /// Checks that the map is whole and names only shards that exist.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), BadSection> {
        let bad = |reason| Err(BadSection { section: Section::Topology, reason });
        if self.shards.is_empty() {
            return bad("directory.shard has no rows".to_owned());
        }
        if self.buckets.len() != Bucket::COUNT {
            return bad(format!(
                "directory.bucket_map has {} of {} buckets",
                self.buckets.len(),
                Bucket::COUNT
            ));
        }
        let known: BTreeSet<_> = self.shards.iter().map(|row| row.shard_id).collect();
        if known.len() != self.shards.len() {
            return bad("directory.shard names a shard twice".to_owned());
        }
        for (bucket, placement) in self.buckets.iter().enumerate() {
            if !known.contains(&placement.shard) {
                return bad(format!("bucket {bucket} is placed on unknown shard {}", placement.shard));
            }
            if !(0..=MAX_EPOCH).contains(&placement.epoch) {
                return bad(format!("bucket {bucket} has epoch {}", placement.epoch));
            }
        }
        Ok(())
    }

    /// The map of a topology that was checked.
    pub(crate) fn map(&self) -> Option<BucketMap> {
        BucketMap::new(&self.buckets)
    }
}

const MAX_KID_BYTES: usize = 128;
const ED25519_PUBLIC_BYTES: usize = 32;

/// Checks every key row.
///
/// # Errors
/// The first row that is wrong.
pub fn check_keys(keys: &[KeyRow]) -> Result<(), BadSection> {
    let mut seen = BTreeSet::new();
    for key in keys {
        let wrong = if key.kid.is_empty() || key.kid.len() > MAX_KID_BYTES {
            Some(format!("a kid has {} bytes", key.kid.len()))
        } else if !seen.insert(&key.kid) {
            Some(format!("kid {} stands twice", key.kid))
        } else if key.public.is_empty() || (key.alg == "EdDSA" && key.public.len() != ED25519_PUBLIC_BYTES) {
            Some(format!("the public key of {} ({}) has {} bytes", key.kid, key.alg, key.public.len()))
        } else if key.sealed_private.is_empty() {
            Some(format!("key {} has no private half", key.kid))
        } else if key.published_at > key.signs_from || key.signs_until.is_some_and(|end| end < key.signs_from)
        {
            Some(format!("the times of key {} are out of order", key.kid))
        } else {
            None
        };
        if let Some(reason) = wrong {
            return Err(BadSection { section: Section::Keys, reason });
        }
    }
    Ok(())
}
