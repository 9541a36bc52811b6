//! Schema changes on the directory and on N shards.
//!
//! The SQL is embedded in the binary. A database whose applied migrations are not a prefix of the embedded
//! ones, byte for byte, is refused: somebody changed history, or an older binary came back. Each shard's
//! state is recorded in the directory, so that a stopped rollout finds its place again.

use crate::directory::Directory;
use crate::directory::sql;
use crate::map::ShardId;
use crate::server::{Address, Login, connect, plain_options};
use sha2::{Digest, Sha256};
use sqlx::Connection;
use sqlx::migrate::{MigrateError as SqlxError, Migrator};
use sqlx::postgres::PgConnection;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a migration stopped.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database cannot be reached.
    #[error("{place}: {source}")]
    Connect {
        /// `directory` or `shard 2`.
        place: String,
        /// What it said.
        source: sqlx::Error,
    },
    /// Its history differs from ours, or a statement failed.
    #[error("{place}: {source}")]
    Migrate {
        /// `directory` or `shard 2`.
        place: String,
        /// What is wrong.
        source: SqlxError,
    },
}

/// A shard that is up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Which.
    pub shard_id: ShardId,
    /// The highest migration it has.
    pub version: i64,
}

/// Version and checksum of a migration.
pub(crate) type Applied = (i64, Vec<u8>);

fn directory_migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("../migrations/directory");
    migrator.dangerous_set_table_name("directory.applied_migration");
    migrator.create_schema("directory");
    migrator
}

fn shard_migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("../migrations/shard");
    migrator.dangerous_set_table_name("meta.applied_migration");
    migrator.create_schema("meta");
    migrator
}

/// Names the shards' schema: SHA-256 over the embedded migrations' versions and checksums, 16 hex digits.
#[must_use]
pub fn schema_hash() -> String {
    let mut hash = Sha256::new();
    for (version, checksum) in embedded_shard_migrations() {
        hash.update(version.to_be_bytes());
        hash.update(&checksum);
    }
    hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The highest embedded migration of shards.
#[must_use]
pub fn schema_version() -> i64 {
    embedded_shard_migrations().last().map_or(0, |(version, _)| *version)
}

/// Version and checksum of each embedded migration of shards, ascending.
pub(crate) fn embedded_shard_migrations() -> Vec<Applied> {
    shard_migrator().iter().map(|migration| (migration.version, migration.checksum.to_vec())).collect()
}

/// Brings the directory up to date.
///
/// # Errors
/// It cannot be reached, or its history differs from ours.
pub async fn migrate_directory(address: &Address, login: &Login) -> Result<(), MigrateError> {
    run(&directory_migrator(), "directory".to_owned(), address, login).await
}

/// Brings one shard up to date; what it now has is not recorded anywhere.
///
/// # Errors
/// It cannot be reached, or its history differs from ours.
pub async fn migrate_shard(shard_id: ShardId, address: &Address, login: &Login) -> Result<(), MigrateError> {
    run(&shard_migrator(), format!("shard {shard_id}"), address, login).await
}

/// Brings every shard that the directory lists up to date, one after the other, and records each. Stops at
/// the first that fails; the next run passes quickly over those that are done.
///
/// # Errors
/// As [`migrate_shard`], or the directory cannot be read or written.
pub async fn migrate_shards(directory: &Directory) -> Result<Vec<Migrated>, MigrateError> {
    let at_directory = |source| MigrateError::Connect { place: "directory".to_owned(), source };
    let mut done = Vec::new();
    for shard in directory.shards().await.map_err(at_directory)? {
        migrate_shard(shard.shard_id, &shard.primary, &directory.login).await?;
        let version = schema_version();
        let mut connection = directory.connect().await.map_err(at_directory)?;
        sqlx::query(sql::RECORD_SCHEMA)
            .bind(shard.shard_id.get())
            .bind(schema_hash())
            .bind(version)
            .execute(&mut connection)
            .await
            .map_err(at_directory)?;
        done.push(Migrated { shard_id: shard.shard_id, version });
    }
    Ok(done)
}

async fn run(
    migrator: &Migrator,
    place: String,
    address: &Address,
    login: &Login,
) -> Result<(), MigrateError> {
    let mut connection = match connect(&plain_options(address, login), CONNECT_TIMEOUT).await {
        Ok(connection) => connection,
        Err(source) => return Err(MigrateError::Connect { place, source }),
    };
    let outcome = migrator.run(&mut connection).await;
    // The migrator's lock belongs to the session, so it ends with it, also after an error.
    let _ = connection.close().await;
    outcome.map_err(|source| MigrateError::Migrate { place, source })
}

/// Version and checksum of each migration that a shard has applied, ascending.
pub(crate) async fn applied_shard_migrations(
    connection: &mut PgConnection,
) -> Result<Vec<Applied>, sqlx::Error> {
    sqlx::query_as(sql::APPLIED_SHARD_MIGRATIONS).fetch_all(connection).await
}
