//! How one PostgreSQL server is reached, and under which limits.

use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use std::fmt;
use std::time::Duration;

/// Where a server listens. Never a credential.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    /// Host name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Database on that server.
    pub dbname: String,
}

impl Address {
    /// The address of these parts.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16, dbname: impl Into<String>) -> Self {
        Self { host: host.into(), port, dbname: dbname.into() }
    }
}

/// `host:port`, which is what metrics and logs call a server.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Who we are on every server. From configuration and secrets, never from the directory.
#[derive(Clone)]
pub struct Login {
    /// Role name.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).field("password", &"[redacted]").finish()
    }
}

/// Limits of a connection that serves requests. `lock_timeout` stays unset: the statement's covers it.
const STATEMENT_TIMEOUT: (&str, &str) = ("statement_timeout", "1000");
const IDLE_IN_TRANSACTION_TIMEOUT: (&str, &str) = ("idle_in_transaction_session_timeout", "2000");

/// Options of a connection that serves requests: statements end after 1 s, open transactions after 2 s idle.
#[must_use]
pub fn request_options(address: &Address, login: &Login) -> PgConnectOptions {
    plain_options(address, login).options([STATEMENT_TIMEOUT, IDLE_IN_TRANSACTION_TIMEOUT])
}

/// Options without statement limits, for migrations and bootstrap. Of the environment only `PGSSL*` and
/// `PGOPTIONS` count; never a password file.
#[must_use]
pub fn plain_options(address: &Address, login: &Login) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host(&address.host)
        .port(address.port)
        .database(&address.dbname)
        .username(&login.user)
        .password(&login.password)
        .application_name("tessera")
        .disable_statement_logging()
}

/// Connects, or gives up after `limit`.
///
/// # Errors
/// What the server said, or `Io(TimedOut)`.
pub async fn connect(options: &PgConnectOptions, limit: Duration) -> Result<PgConnection, sqlx::Error> {
    within(limit, PgConnection::connect_with(options)).await
}

/// Bounds any database work in time. On a timeout the connection is in an unknown state: drop it.
pub(crate) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}
