//! Rows of signing keys: listed by everybody, written by whoever rotates.
//!
//! Two nodes may rotate at once, so an insert can be made conditional on the version of the section that
//! the decision was based on. Distrust is also written to every shard, for nodes that cannot reach us.

use super::client::{Directory, key_row};
use super::section::{KeyRow, Versioned};
use super::sql;
use crate::map::ShardId;
use crate::server::{connect, plain_options, within};
use chrono::{DateTime, Utc};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

/// Where a distrust mark could not be written. Repeat until nothing is left.
#[derive(Debug, Default)]
pub struct Distrusted {
    /// Whether the directory knew the key.
    pub known: bool,
    /// Shards that did not take the mark, with the reason.
    pub failed: Vec<(ShardId, String)>,
}

impl Directory {
    /// Every key, by `signs_from`, with the section's version.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub async fn list_keys(&self) -> Result<Versioned<Vec<KeyRow>>, sqlx::Error> {
        let mut connection = self.connect().await?;
        within(self.timeout, async {
            let mut tx = connection.begin_with(sql::READ_SNAPSHOT).await?;
            let versions: Vec<(String, i64)> =
                sqlx::query_as(sql::SECTION_VERSIONS).fetch_all(&mut *tx).await?;
            let version = versions.into_iter().find(|(name, _)| name == "keys").map_or(0, |(_, v)| v);
            let rows = sqlx::query(sql::KEYS).fetch_all(&mut *tx).await?;
            tx.rollback().await?;
            let content = rows.iter().map(key_row).collect::<Result<_, _>>()?;
            Ok(Versioned { version, content })
        })
        .await
    }

    /// Adds a key. With `if_version`, only while the section still has that version: of two nodes that
    /// rotate at once, one wins and the other reads again. Says whether it was added.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub async fn insert_key(&self, key: &KeyRow, if_version: Option<i64>) -> Result<bool, sqlx::Error> {
        let mut connection = self.connect().await?;
        within(self.timeout, async {
            let mut tx = connection.begin().await?;
            let version: i64 = sqlx::query_scalar(sql::LOCK_KEYS).fetch_one(&mut *tx).await?;
            if if_version.is_some_and(|expected| expected != version) {
                tx.rollback().await?;
                return Ok(false);
            }
            let done = sqlx::query(sql::INSERT_KEY)
                .bind(&key.kid)
                .bind(&key.alg)
                .bind(&key.public)
                .bind(&key.sealed_private)
                .bind(key.created_at)
                .bind(key.published_at)
                .bind(key.signs_from)
                .bind(key.signs_until)
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            Ok(done.rows_affected() == 1)
        })
        .await
    }

    /// Ends a key's signing; says whether there was such a key.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub async fn set_signs_until(&self, kid: &str, until: DateTime<Utc>) -> Result<bool, sqlx::Error> {
        self.update_key(sql::SET_SIGNS_UNTIL, kid, until).await
    }

    /// Takes a key out of the published set; says whether there was such a key.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub async fn remove_key(&self, kid: &str, at: DateTime<Utc>) -> Result<bool, sqlx::Error> {
        self.update_key(sql::REMOVE_KEY, kid, at).await
    }

    /// Declares a key compromised, in the directory and then on every shard.
    ///
    /// # Errors
    /// The directory cannot be written. A shard that cannot be is in the answer.
    pub async fn distrust_key(&self, kid: &str, at: DateTime<Utc>) -> Result<Distrusted, sqlx::Error> {
        let known = self.update_key(sql::DISTRUST_KEY, kid, at).await?;
        let mut failed = Vec::new();
        for shard in self.shards().await? {
            let outcome = async {
                let mut connection =
                    connect(&plain_options(&shard.primary, &self.login), self.timeout).await?;
                let mark = sqlx::query(sql::INSERT_DISTRUSTED).bind(kid).execute(&mut connection);
                within(self.timeout, mark).await
            };
            if let Err(error) = outcome.await {
                failed.push((shard.shard_id, error.to_string()));
            }
        }
        Ok(Distrusted { known, failed })
    }

    async fn update_key(
        &self,
        statement: &'static str,
        kid: &str,
        at: DateTime<Utc>,
    ) -> Result<bool, sqlx::Error> {
        let mut connection = self.connect().await?;
        let update = sqlx::query(statement).bind(kid).bind(at).execute(&mut connection);
        Ok(within(self.timeout, update).await?.rows_affected() == 1)
    }
}

/// The kids that a shard was told to distrust.
///
/// # Errors
/// The shard cannot be read.
pub async fn distrusted_kids(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(sql::DISTRUSTED_KIDS).fetch_all(connection).await
}
