//! What a node asks before it serves: are the keys and the schema those that the data was written with?

use crate::directory::sql;
use crate::directory::{Fingerprints, KeyMismatch, read_fingerprints};
use crate::map::ShardId;
use crate::migrate::{Applied, applied_shard_migrations, embedded_shard_migrations};
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
    /// A shard's applied migrations are not those embedded in this binary.
    #[error("shard {shard}: its schema differs from this binary's at migration {version}")]
    Schema {
        /// Which shard.
        shard: ShardId,
        /// The first migration that is missing, altered or unknown.
        version: i64,
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

    /// Demands that every reachable shard has exactly the embedded migrations.
    ///
    /// # Errors
    /// A shard has others, named; or it answered with an error.
    pub async fn check_schema(&self) -> Result<(), CheckError> {
        let embedded = embedded_shard_migrations();
        for shard in self.shards() {
            let Some(mut conn) = self.reachable(shard).await else { continue };
            let applied = applied_shard_migrations(&mut conn)
                .await
                .map_err(|source| CheckError::Database { shard, source })?;
            conn.release();
            if let Some(version) = first_difference(&embedded, &applied) {
                return Err(CheckError::Schema { shard, version });
            }
        }
        Ok(())
    }

    /// An outage of one shard must not keep a node from starting.
    async fn reachable(&self, shard: ShardId) -> Option<Conn> {
        match self.primary(shard).await {
            Ok(conn) => Some(conn),
            Err(error) => {
                tracing::warn!(shard.id = %shard, %error, "shard not checked: it cannot be reached");
                None
            }
        }
    }
}

/// The first migration that only one side has, or that differs.
fn first_difference(ours: &[Applied], theirs: &[Applied]) -> Option<i64> {
    let differs = |(a, b): (&Applied, &Applied)| (a != b).then_some(a.0.min(b.0));
    ours.iter().zip(theirs).find_map(differs).or_else(|| {
        let common = ours.len().min(theirs.len());
        ours.get(common).or_else(|| theirs.get(common)).map(|(version, _)| *version)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named() {
        let row = |version, checksum: u8| (version, vec![checksum]);
        let ours = [row(1, 1), row(2, 2)];
        assert_eq!(first_difference(&ours, &ours), None);
        assert_eq!(first_difference(&ours, &[row(1, 1)]), Some(2));
        assert_eq!(first_difference(&ours, &[]), Some(1));
        assert_eq!(first_difference(&ours, &[row(1, 1), row(2, 2), row(3, 3)]), Some(3));
        assert_eq!(first_difference(&ours, &[row(1, 9), row(2, 2)]), Some(1));
    }
}
