//! Signing keys: the directory's rows, through `shard-router`. No SQL of its own.
use std::sync::Arc;

use async_trait::async_trait;
use auth_core::domain::KeyRecord;
use auth_core::ports::{Clock, KeyRow, KeyStore, NewKey, StoreError};
use chrono::{DateTime, Duration, Utc};
use shard_router::{Router, directory};

/// The algorithm of the keys that we make; one algorithm a key, told by the row and never by a token.
const ALGORITHM: &str = "EdDSA";
/// A row without an end has no successor and goes on; far enough, and safe to add to.
const NO_END: Duration = Duration::days(36_500);

/// The key store over the directory.
#[derive(Clone)]
pub struct Keys {
    router: Router,
    clock: Arc<dyn Clock>,
}

impl Keys {
    /// The keys of the directory that `router` polls.
    pub fn new(router: Router, clock: Arc<dyn Clock>) -> Self {
        Self { router, clock }
    }
}

/// Rows of other algorithms, or taken out of the set, are nobody's to sign with or publish.
fn usable(rows: &[directory::KeyRow]) -> impl Iterator<Item = KeyRow> + '_ {
    rows.iter().filter(|row| row.removed_at.is_none() && row.alg == ALGORITHM).map(|row| KeyRow {
        record: KeyRecord {
            kid: row.kid.clone(),
            published_at: row.published_at,
            signs_from: row.signs_from,
            signs_until: row.signs_until.unwrap_or(row.signs_from + NO_END),
            distrusted_at: row.distrusted_at,
        },
        public: row.public.clone(),
        sealed_private: row.sealed_private.clone(),
    })
}

/// Anything but a lost commit: the statements of the directory are conditional, so asking again is harmless.
fn unavailable(error: sqlx::Error) -> StoreError {
    let (_, why) = crate::errors::TxError::Sql(error).fault();
    StoreError::Unavailable(format!("directory: {why}"))
}

#[async_trait]
impl KeyStore for Keys {
    fn snapshot(&self) -> Vec<KeyRow> {
        usable(&self.router.snapshot().keys.content).collect()
    }

    fn distrusted(&self) -> Vec<String> {
        self.router.distrusted_kids().iter().cloned().collect()
    }

    async fn list(&self) -> Result<Vec<KeyRow>, StoreError> {
        let held = self.router.directory().list_keys().await.map_err(unavailable)?;
        Ok(usable(&held.content).collect())
    }

    async fn insert(&self, key: &NewKey, seen: usize) -> Result<bool, StoreError> {
        let held = self.router.directory().list_keys().await.map_err(unavailable)?;
        if usable(&held.content).count() != seen {
            return Ok(false);
        }
        let row = directory::KeyRow {
            kid: key.record.kid.clone(),
            alg: ALGORITHM.to_owned(),
            public: key.public.clone(),
            sealed_private: key.sealed_private.clone(),
            created_at: self.clock.now(),
            published_at: key.record.published_at,
            signs_from: key.record.signs_from,
            signs_until: Some(key.record.signs_until),
            removed_at: None,
            distrusted_at: None,
        };
        let inserted =
            self.router.directory().insert_key(&row, Some(held.version)).await.map_err(unavailable)?;
        self.router.refresh_soon();
        Ok(inserted)
    }

    async fn set_signs_until(&self, kid: &str, until: DateTime<Utc>) -> Result<bool, StoreError> {
        let known = self.router.directory().set_signs_until(kid, until).await.map_err(unavailable)?;
        self.router.refresh_soon();
        Ok(known)
    }

    async fn distrust(&self, kid: &str) -> Result<Vec<String>, StoreError> {
        let told = self.router.directory().distrust_key(kid, self.clock.now()).await.map_err(unavailable)?;
        self.router.refresh_soon();
        Ok(told.failed.into_iter().map(|(shard, why)| format!("shard {shard}: {why}")).collect())
    }
}
