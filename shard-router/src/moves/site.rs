//! A database that takes part in a move, with the owner's rights. Direct connections only: no pooler in between.

use super::{MoveError, Place};
use crate::server::{Address, Login, connect, plain_options, within};
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::query::{Query, QueryScalar};
use sqlx::{AssertSqlSafe, Decode, Postgres, Type};
use std::time::Duration;

/// What our connections are called on the servers.
pub(super) const MOVER: &str = "tessera-mover";
/// Connections that only read, and that a drain therefore need not wait for.
pub(super) const READER: &str = "tessera-mover-reader";

/// One connection.
pub(super) struct Site {
    pub place: Place,
    pub address: Address,
    pub connection: PgConnection,
    limit: Duration,
}

impl Site {
    /// Connects as the owner. `limit` bounds every statement.
    pub async fn open(
        place: Place,
        address: &Address,
        login: &Login,
        name: &str,
        limit: Duration,
    ) -> Result<Self, MoveError> {
        // Whom policies bind would move, compare and delete what they show: such a role is refused instead.
        let options = plain_options(address, login).application_name(name).options([("row_security", "off")]);
        let connection = connect(&options, limit).await.map_err(place.said())?;
        Ok(Self { place, address: address.clone(), connection, limit })
    }

    /// Bounds statements differently from now on.
    pub fn bound(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Runs a statement; how many rows it touched.
    pub async fn run(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<u64, MoveError> {
        let done = within(self.limit, query.execute(&mut self.connection)).await;
        done.map(|done| done.rows_affected()).map_err(self.place.said())
    }

    /// The row, if there is one.
    pub async fn row(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<Option<PgRow>, MoveError> {
        within(self.limit, query.fetch_optional(&mut self.connection)).await.map_err(self.place.said())
    }

    /// Every row.
    pub async fn rows(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, MoveError> {
        within(self.limit, query.fetch_all(&mut self.connection)).await.map_err(self.place.said())
    }

    /// The one value.
    pub async fn one<T>(&mut self, query: QueryScalar<'_, Postgres, T, PgArguments>) -> Result<T, MoveError>
    where
        T: Send + Unpin + for<'r> Decode<'r, Postgres> + Type<Postgres>,
    {
        within(self.limit, query.fetch_one(&mut self.connection)).await.map_err(self.place.said())
    }

    /// The first column of every row.
    pub async fn all<T>(
        &mut self,
        query: QueryScalar<'_, Postgres, T, PgArguments>,
    ) -> Result<Vec<T>, MoveError>
    where
        T: Send + Unpin + for<'r> Decode<'r, Postgres> + Type<Postgres>,
    {
        within(self.limit, query.fetch_all(&mut self.connection)).await.map_err(self.place.said())
    }

    /// Statements put together from names that the catalogue quoted and from numbers. Each commits by itself.
    pub async fn command(&mut self, text: String) -> Result<(), MoveError> {
        let done = within(self.limit, sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut self.connection)).await;
        done.map(|_| ()).map_err(self.place.said())
    }
}

impl MoveError {
    /// The server's SQLSTATE, if it was the server that refused.
    pub(super) fn sqlstate(&self) -> Option<String> {
        let Self::Database { source, .. } = self else { return None };
        Some(source.as_database_error()?.code()?.into_owned())
    }

    /// What the server said, if it was the server that refused; else all there is to say.
    pub(super) fn said(&self) -> String {
        let Self::Database { source, .. } = self else { return self.to_string() };
        source.as_database_error().map_or_else(|| self.to_string(), |error| error.message().to_owned())
    }
}
