//! Migrations on one database: each by itself, never in front of a queue for longer than [`LOCK_TIMEOUT`].
//!
//! A statement that waits for a lock on a table makes everybody wait who comes after it. So it gives up soon, and
//! tries again later, a bounded number of times.

use super::schema::{Applied, Schema, version_of};
use super::{MigrateError, sql};
use crate::server::{Address, Login, connect, plain_options};
use sqlx::migrate::{MigrateError as SqlxError, Migration};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a migration may wait for a lock before it makes room for requests.
const LOCK_TIMEOUT: &str = "2s";
/// A concurrent build waits for other transactions without anybody waiting for it.
const CONCURRENT_LOCK_TIMEOUT: &str = "10min";
pub(super) const LOCK_NOT_AVAILABLE: &str = "55P03";
const DEADLOCK: &str = "40P01";

/// How often a migration that found a lock taken is tried, and how long to wait in between.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// All attempts together.
    pub attempts: u32,
    /// Between two of them, ± a half.
    pub pause: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 10, pause: Duration::from_secs(3) }
    }
}

/// A database to be migrated.
#[derive(Clone)]
pub(super) struct Target<'a> {
    /// `directory` or `shard 2`.
    pub place: String,
    pub address: &'a Address,
    pub login: &'a Login,
}

impl Target<'_> {
    async fn connect(&self, lock_timeout: &str) -> Result<PgConnection, MigrateError> {
        let options = plain_options(self.address, self.login).options([("lock_timeout", lock_timeout)]);
        connect(&options, CONNECT_TIMEOUT).await.map_err(|source| self.unreachable(source))
    }

    fn unreachable(&self, source: sqlx::Error) -> MigrateError {
        MigrateError::Connect { place: self.place.clone(), source }
    }

    /// What the database has, if it is a history that `schema` can build on.
    pub async fn history(&self, schema: &Schema) -> Result<Vec<Applied>, MigrateError> {
        let mut connection = self.connect(LOCK_TIMEOUT).await?;
        let applied = history(&mut connection, schema).await.map_err(|source| self.unreachable(source))?;
        schema
            .history(&applied)
            .map_err(|source| MigrateError::History { place: self.place.clone(), source })?;
        Ok(applied)
    }

    /// Applies what is pending up to `version`, in order. Answers the history as it is then.
    pub async fn bring_to(
        &self,
        schema: &Schema,
        version: i64,
        retry: Retry,
    ) -> Result<Vec<Applied>, MigrateError> {
        let before = version_of(&self.history(schema).await?);
        for migration in schema.pending(before, version) {
            let mut attempt = 1;
            while let Err(error) = self.apply(schema, migration).await {
                if !error.is_passing() || attempt >= retry.attempts {
                    return Err(error);
                }
                tracing::warn!(place = self.place, migration = migration.version, attempt, %error, "trying again");
                attempt += 1;
                tokio::time::sleep(retry.pause.mul_f64(rand::random_range(0.5..1.5))).await;
            }
        }
        self.history(schema).await
    }

    /// On a connection of its own: the runner's lock belongs to the session, and ends with it after an error.
    async fn apply(&self, schema: &Schema, migration: &Migration) -> Result<(), MigrateError> {
        let wait = if migration.no_tx { CONCURRENT_LOCK_TIMEOUT } else { LOCK_TIMEOUT };
        let mut connection = self.connect(wait).await?;
        if migration.no_tx {
            drop_half_built(&mut connection, migration).await.map_err(|source| self.failed(source.into()))?;
        }
        // `run_to`, without its generic argument, which no spawned task can have.
        let outcome = schema.migrator().run_direct(Some(migration.version), &mut connection, false).await;
        let _ = connection.close().await;
        outcome.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: SqlxError) -> MigrateError {
        MigrateError::Migrate { place: self.place.clone(), source }
    }
}

impl MigrateError {
    /// Whether somebody else's lock was in the way.
    fn is_passing(&self) -> bool {
        let Self::Migrate {
            source: SqlxError::Execute(error) | SqlxError::ExecuteMigration(error, _), ..
        } = self
        else {
            return false;
        };
        let code = error.as_database_error().and_then(|error| error.code());
        code.is_some_and(|code| code == LOCK_NOT_AVAILABLE || code == DEADLOCK)
    }
}

async fn history(connection: &mut PgConnection, schema: &Schema) -> Result<Vec<Applied>, sqlx::Error> {
    let namespace = schema.namespace();
    let exists: bool =
        sqlx::query_scalar(sql::HAS_HISTORY).bind(namespace).fetch_one(&mut *connection).await?;
    if !exists {
        return Ok(Vec::new());
    }
    let statement = if namespace == "directory" { sql::DIRECTORY_HISTORY } else { sql::SHARD_HISTORY };
    sqlx::query_as(statement).fetch_all(connection).await
}

async fn drop_half_built(connection: &mut PgConnection, migration: &Migration) -> Result<(), sqlx::Error> {
    let half_built: Vec<String> =
        sqlx::query_scalar(sql::HALF_BUILT).bind(migration.sql.as_str()).fetch_all(&mut *connection).await?;
    for statement in half_built {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *connection).await?;
    }
    Ok(())
}
