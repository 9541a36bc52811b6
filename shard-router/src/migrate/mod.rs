//! Schema changes on the directory and on N shards, while nodes of two releases serve: **expand**, **backfill**,
//! **contract**.
//!
//! The SQL is embedded in the binary. What an operator does, and how a migration is written, stands in
//! `docs/operations/migrations.md`; why it is so, in ADR 15. In one breath: a migration adds, unless its name says
//! that it takes away; a [`Rollout`] brings it to a canary and then to the other shards in waves, and is refused while
//! a move is open; a [`Backfill`] rewrites rows bucket by bucket; a node serves a shard whose history it knows and
//! that has lost nothing since.

mod apply;
mod backfill;
mod rollout;
mod schema;
mod sql;

pub use apply::Retry;
pub use backfill::{Backfill, Backfilled, Pace};
pub use rollout::{Migrated, Rolled, Rollout};
pub(crate) use schema::{Applied, version_of};
pub use schema::{Misfit, Schema, Stage};
pub(crate) use sql::SHARD_HISTORY;

use crate::directory::Directory;
use crate::map::ShardId;
use crate::server::{Address, Login};
use apply::Target;
use sqlx::migrate::MigrateError as SqlxError;
use sqlx::postgres::PgConnection;

/// Why a migration stopped.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database cannot be reached, or cannot be asked.
    #[error("{place}: {source}")]
    Connect {
        /// `directory` or `shard 2`.
        place: String,
        /// What it said.
        source: sqlx::Error,
    },
    /// Its history is not one that this binary can build on.
    #[error("{place}: {source}")]
    History {
        /// `directory` or `shard 2`.
        place: String,
        /// What is wrong with it.
        source: Misfit,
    },
    /// A statement failed.
    #[error("{place}: {source}")]
    Migrate {
        /// `directory` or `shard 2`.
        place: String,
        /// What is wrong.
        source: SqlxError,
    },
    /// Not now: nothing was changed.
    #[error("refused: {0}")]
    Refused(String),
    /// A replica stayed too far behind.
    #[error("gave up: {0}")]
    GaveUp(String),
}

fn at_directory(source: sqlx::Error) -> MigrateError {
    MigrateError::Connect { place: "directory".to_owned(), source }
}

/// Brings the directory up to date. Its migrations only add.
///
/// # Errors
/// It cannot be reached, or its history differs from ours.
pub async fn migrate_directory(address: &Address, login: &Login) -> Result<(), MigrateError> {
    let schema = Schema::of_directory();
    let target = Target { place: "directory".to_owned(), address, login };
    target.bring_to(&schema, schema.latest(), Retry::default()).await.map(|_| ())
}

/// Brings a database that is not listed as a shard yet to what the listed ones have, so that buckets can move there;
/// the first of all, to everything that there is.
///
/// # Errors
/// It cannot be reached, or its history differs from ours; or the directory cannot be read.
pub async fn migrate_new_shard(
    directory: &Directory,
    shard_id: ShardId,
    address: &Address,
) -> Result<(), MigrateError> {
    let schema = Schema::of_shards();
    let mut connection = directory.connect().await.map_err(at_directory)?;
    let least: Option<i64> =
        sqlx::query_scalar(sql::LEAST_VERSION).fetch_one(&mut connection).await.map_err(at_directory)?;
    let target = Target { place: format!("shard {shard_id}"), address, login: &directory.login };
    target.bring_to(&schema, least.unwrap_or(schema.latest()), Retry::default()).await.map(|_| ())
}

/// The ordinary [`Rollout`]: everything that adds, on every shard that the directory lists.
///
/// # Errors
/// As [`Rollout::run`].
pub async fn migrate_shards(directory: &Directory) -> Result<Vec<Migrated>, MigrateError> {
    Rollout::default().run(directory).await.map(|rolled| rolled.shards)
}

/// What a shard has applied, ascending.
pub(crate) async fn shard_history(connection: &mut PgConnection) -> Result<Vec<Applied>, sqlx::Error> {
    sqlx::query_as(SHARD_HISTORY).fetch_all(connection).await
}
