//! A cluster's first hour: which shards there are, and who gets which buckets.
//!
//! Both steps may be repeated and interrupted anywhere: registering again updates addresses only, and
//! assigning again completes what is missing and changes nothing that exists.

use super::client::{Directory, read_fingerprints};
use super::section::ShardRow;
use super::sql;
use crate::map::{Placement, ShardId};
use crate::plan::first_placement;
use crate::server::{Address, connect, plain_options};
use shard_key::{Bucket, LookupKey, RoutingKey};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use std::collections::BTreeMap;
use std::time::Duration;

/// The epoch of a bucket that never moved.
const FIRST_EPOCH: i64 = 1;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A shard to register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewShard {
    /// Its number.
    pub shard_id: ShardId,
    /// Its primary.
    pub primary: Address,
    /// Its replicas; the database has the primary's name.
    pub replicas: Vec<Address>,
    /// Share of the first placement; 1 is ordinary.
    pub weight: u32,
}

/// Fingerprints of the permanent keys, made once and compared for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprints {
    /// [`RoutingKey::fingerprint`].
    pub routing: String,
    /// [`LookupKey::fingerprint`].
    pub lookup: String,
}

impl Fingerprints {
    /// Of these keys.
    #[must_use]
    pub fn of(routing: &RoutingKey, lookup: &LookupKey) -> Self {
        Self { routing: routing.fingerprint(), lookup: lookup.fingerprint() }
    }

    /// Name and fingerprint, as stored.
    pub(crate) fn rows(&self) -> [(&'static str, &str); 2] {
        [("routing", &self.routing), ("lookup", &self.lookup)]
    }

    /// The first key whose stored fingerprint is another one, or is missing.
    pub(crate) fn mismatch(&self, stored: &BTreeMap<String, String>) -> Option<KeyMismatch> {
        self.rows().into_iter().find_map(|(name, ours)| {
            let theirs = stored.get(name).map_or("none", String::as_str);
            (theirs != ours).then(|| KeyMismatch { name, ours: ours.to_owned(), stored: theirs.to_owned() })
        })
    }
}

/// A permanent key is not the one that the data was written with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {name} key has fingerprint {ours}, but the data was written with {stored}")]
pub struct KeyMismatch {
    /// `routing` or `lookup`.
    pub name: &'static str,
    /// Of the key that this process was given.
    pub ours: String,
    /// Of the key that the data was written with; `none` if it was never recorded.
    pub stored: String,
}

/// Why a bootstrap stopped.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// A database cannot be reached or refused.
    #[error("{place}: {source}")]
    Database {
        /// `directory` or `shard 2`.
        place: String,
        /// What it said.
        source: sqlx::Error,
    },
    /// A permanent key differs from the stored one.
    #[error("{place}: {source}")]
    Key {
        /// `directory` or `shard 2`.
        place: String,
        /// Which key.
        source: KeyMismatch,
    },
    /// There is nothing to place buckets on.
    #[error("no registered shard has weight")]
    NoShards,
    /// Some buckets are placed and others are not, which no bootstrap leaves behind.
    #[error("directory.bucket_map has {found} of {expected} rows: repair it by hand", expected = Bucket::COUNT)]
    HalfPlaced {
        /// Rows found.
        found: usize,
    },
}

fn at_directory(source: sqlx::Error) -> BootstrapError {
    BootstrapError::Database { place: "directory".to_owned(), source }
}

/// Writes `directory.shard`. Needs the owner's login.
///
/// # Errors
/// The directory cannot be written.
pub async fn register_shards(directory: &Directory, shards: &[NewShard]) -> Result<(), BootstrapError> {
    let mut connection = directory.connect().await.map_err(at_directory)?;
    register(&mut connection, shards).await.map_err(at_directory)
}

async fn register(connection: &mut PgConnection, shards: &[NewShard]) -> Result<(), sqlx::Error> {
    let mut tx = connection.begin().await?;
    for shard in shards {
        let replicas: Vec<_> = shard
            .replicas
            .iter()
            .map(|replica| serde_json::json!({ "host": replica.host, "port": replica.port }))
            .collect();
        sqlx::query(sql::UPSERT_SHARD)
            .bind(shard.shard_id.get())
            .bind(&shard.primary.host)
            .bind(i32::from(shard.primary.port))
            .bind(&shard.primary.dbname)
            .bind(sqlx::types::Json(replicas))
            .bind(i32::try_from(shard.weight).unwrap_or(i32::MAX))
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await
}

/// Places every bucket on the registered shards if none is placed yet, then makes each shard's ownership
/// rows and fingerprints agree. Needs the owner's login, and the shards migrated.
///
/// # Errors
/// A database refuses, or one of the keys is not the one that the data was written with.
pub async fn assign_buckets(
    directory: &Directory,
    fingerprints: &Fingerprints,
) -> Result<(), BootstrapError> {
    let shards = directory.shards().await.map_err(at_directory)?;
    let mut connection = directory.connect().await.map_err(at_directory)?;
    let owners = place(&mut connection, &shards, fingerprints).await?;
    for shard in &shards {
        let place = || format!("shard {}", shard.shard_id);
        let database = |source| BootstrapError::Database { place: place(), source };
        let options = plain_options(&shard.primary, &directory.login);
        let mut connection = connect(&options, CONNECT_TIMEOUT).await.map_err(database)?;
        write_fingerprints(&mut connection, sql::INSERT_SHARD_FINGERPRINT, fingerprints)
            .await
            .map_err(database)?;
        let stored = read_fingerprints(&mut connection, sql::SHARD_FINGERPRINTS).await.map_err(database)?;
        if let Some(source) = fingerprints.mismatch(&stored) {
            return Err(BootstrapError::Key { place: place(), source });
        }
        // A row that is missing for a bucket which has moved since is not ours to invent: it stays `I`.
        let mine: Vec<bool> =
            owners.iter().map(|p| p.shard == shard.shard_id && p.epoch == FIRST_EPOCH).collect();
        sqlx::query(sql::INSERT_OWNERS)
            .bind(bucket_numbers())
            .bind(mine)
            .execute(&mut connection)
            .await
            .map_err(database)?;
    }
    Ok(())
}

/// The placement of every bucket: what the directory says, or the first placement, written down there.
async fn place(
    connection: &mut PgConnection,
    shards: &[ShardRow],
    fingerprints: &Fingerprints,
) -> Result<Vec<Placement>, BootstrapError> {
    let mut tx = connection.begin().await.map_err(at_directory)?;
    sqlx::query(sql::LOCK_BOOTSTRAP).execute(&mut *tx).await.map_err(at_directory)?;
    write_fingerprints(&mut tx, sql::INSERT_FINGERPRINT, fingerprints).await.map_err(at_directory)?;
    let stored = read_fingerprints(&mut tx, sql::FINGERPRINTS).await.map_err(at_directory)?;
    if let Some(source) = fingerprints.mismatch(&stored) {
        return Err(BootstrapError::Key { place: "directory".to_owned(), source });
    }
    let placed: Vec<(i32, i16, i64)> =
        sqlx::query_as(sql::BUCKETS).fetch_all(&mut *tx).await.map_err(at_directory)?;
    let owners = match placed.len() {
        0 => {
            let weights: Vec<_> = shards.iter().map(|row| (row.shard_id, row.weight)).collect();
            let owners = first_placement(&weights);
            if owners.is_empty() {
                return Err(BootstrapError::NoShards);
            }
            sqlx::query(sql::INSERT_PLACEMENTS)
                .bind(bucket_numbers())
                .bind(owners.iter().map(|owner| owner.get()).collect::<Vec<_>>())
                .execute(&mut *tx)
                .await
                .map_err(at_directory)?;
            owners.into_iter().map(|shard| Placement { shard, epoch: FIRST_EPOCH }).collect()
        }
        Bucket::COUNT => placed
            .iter()
            .filter_map(|(_, shard, epoch)| Some(Placement { shard: ShardId::new(*shard)?, epoch: *epoch }))
            .collect(),
        found => return Err(BootstrapError::HalfPlaced { found }),
    };
    tx.commit().await.map_err(at_directory)?;
    Ok(owners)
}

fn bucket_numbers() -> Vec<i32> {
    Bucket::all().map(i32::from).collect()
}

async fn write_fingerprints(
    connection: &mut PgConnection,
    statement: &'static str,
    fingerprints: &Fingerprints,
) -> Result<(), sqlx::Error> {
    for (name, fingerprint) in fingerprints.rows() {
        sqlx::query(statement).bind(name).bind(fingerprint).execute(&mut *connection).await?;
    }
    Ok(())
}
