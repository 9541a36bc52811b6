//! What a node asks before it serves: are the keys and the schema those that the data was written with?

use crate::directory::sql;
use crate::directory::{Fingerprints, KeyMismatch, read_fingerprints};
use crate::map::ShardId;
use crate::migrate::{Misfit, shard_history};
use crate::pool::Conn;
use crate::router::Router;

/// Why a node must not serve.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A permanent key is not the one that the data was written with.
    #[error("{place}: {source}")]
    Key {
        /// `directory` or `shard 2`.
        place: String,
        /// Which key, and both fingerprints.
        source: KeyMismatch,
    },
    /// This binary does not serve a shard's schema.
    #[error("shard {shard}: {source}")]
    Schema {
        /// Which shard.
        shard: ShardId,
        /// Why not, and which schemas it serves.
        source: Misfit,
    },
    /// A shard answered with an error that is no outage.
    #[error("shard {shard}: {source}")]
    Database {
        /// Which shard.
        shard: ShardId,
        /// What it said.
        source: sqlx::Error,
    },
}

impl Router {
    /// Compares our permanent keys with what the data was written with: the directory's word (or the disk
    /// copy's) and every reachable shard's. On an error the process must end with code 2 before it listens.
    ///
    /// # Errors
    /// A key differs, named; or a shard answered with an error.
    pub async fn check_fingerprints(&self, routing: &str, lookup: &str) -> Result<(), CheckError> {
        let ours = Fingerprints { routing: routing.to_owned(), lookup: lookup.to_owned() };
        if let Some(source) = ours.mismatch(&self.snapshot().topology.content.fingerprints) {
            return Err(CheckError::Key { place: "directory".to_owned(), source });
        }
        for shard in self.shards() {
            let Some(mut conn) = self.reachable(shard).await else { continue };
            let stored = read_fingerprints(&mut conn, sql::SHARD_FINGERPRINTS)
                .await
                .map_err(|source| CheckError::Database { shard, source })?;
            conn.release();
            if let Some(source) = ours.mismatch(&stored) {
                return Err(CheckError::Key { place: format!("shard {shard}"), source });
            }
        }
        Ok(())
    }

    /// Demands that this binary serves the schema of every reachable shard. While it runs, a shard that comes to have
    /// another schema is shed ([`PoolError::Schema`](crate::PoolError::Schema)).
    ///
    /// # Errors
    /// A shard has one that it does not serve, named; or it answered with an error.
    pub async fn check_schema(&self) -> Result<(), CheckError> {
        for shard in self.shards() {
            let Some(mut conn) = self.reachable(shard).await else { continue };
            let applied =
                shard_history(&mut conn).await.map_err(|source| CheckError::Database { shard, source })?;
            conn.release();
            self.schema().serves(&applied).map_err(|source| CheckError::Schema { shard, source })?;
        }
        Ok(())
    }

    /// An outage of one shard must not keep a node from starting.
    async fn reachable(&self, shard: ShardId) -> Option<Conn> {
        match self.primary_unjudged(shard).await {
            Ok(conn) => Some(conn),
            Err(error) => {
                tracing::warn!(shard.id = %shard, %error, "shard not checked: it cannot be reached");
                None
            }
        }
    }
}
