//! Signing keys, as rows of the directory.
use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::StoreError;
use crate::domain::KeyRecord;

/// A stored key. The private half is sealed.
#[derive(Clone)]
pub struct KeyRow {
    /// Its times.
    pub record: KeyRecord,
    /// The public key, 32 bytes.
    pub public: Vec<u8>,
    /// The sealed private key.
    pub sealed_private: Vec<u8>,
}

impl std::fmt::Debug for KeyRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRow").field("record", &self.record).finish_non_exhaustive()
    }
}

/// A key to insert.
pub type NewKey = KeyRow;

/// The key repository; the directory, not a shard.
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// The last good rows: from memory, else from disk. Never waits for the directory.
    fn snapshot(&self) -> Vec<KeyRow>;

    /// Kids that shards name as distrusted, although the directory may be away.
    fn distrusted(&self) -> Vec<String>;

    /// The rows as the directory has them now.
    async fn list(&self) -> Result<Vec<KeyRow>, StoreError>;

    /// Adds a key if the directory still holds exactly `seen` keys: two nodes cannot both add the next one.
    async fn insert(&self, key: &NewKey, seen: usize) -> Result<bool, StoreError>;

    /// Ends a key's signing at `until`.
    async fn set_signs_until(&self, kid: &str, until: DateTime<Utc>) -> Result<bool, StoreError>;

    /// Distrusts a key in the directory and on every shard. Returns the shards that could not be told.
    async fn distrust(&self, kid: &str) -> Result<Vec<String>, StoreError>;
}
