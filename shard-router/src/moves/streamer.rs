//! The role that takers log in as at their givers. A subscription keeps its password in the catalogue, and so do
//! backups: it may read what is moved, and nothing else.

use super::mover::Mover;
use super::site::{READER, Site};
use super::{MoveError, sql};
use crate::server::Login;
use sqlx::Connection;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

impl Mover {
    /// Streams as this role. Without it, moves that stream already are taken care of, and none begins.
    #[must_use]
    pub fn streaming_as(self, login: Login) -> Self {
        Self { streamer: Some(login), ..self }
    }

    pub(super) fn streamer(&self) -> Result<&Login, MoveError> {
        self.streamer.as_ref().ok_or_else(no_login)
    }
}

pub(super) fn no_login() -> MoveError {
    MoveError::NotReady("no role for streams: its password is to be in postgres-stream.password".to_owned())
}

/// Why no stream could come from a server, if it is the role's fault: it is tried.
pub(super) async fn against(site: &Site, login: &Login) -> Result<Option<String>, MoveError> {
    let (place, user) = (site.place, &login.user);
    let mut there = match Site::open(place, &site.address, login, READER, LIMIT).await {
        Ok(there) => there,
        Err(error) if error.sqlstate().is_some() => {
            return Ok(Some(format!("{place}: role {user} cannot log in: {}", error.said())));
        }
        Err(error) => return Err(error),
    };
    let row: Option<bool> = there.all(sqlx::query_scalar(sql::MAY_STREAM)).await?.into_iter().next();
    let closed = there.connection.close().await;
    closed.map_err(place.said())?;
    Ok((row != Some(true)).then(|| format!("{place}: role {user} lacks REPLICATION, or is a superuser")))
}

/// Lets the role read what is moved. Two movers on one shard take turns: a grant that meets another one fails.
pub(super) async fn grant(site: &mut Site, tables: &[String], login: &Login) -> Result<(), MoveError> {
    let query = sqlx::query_scalar(sql::MAY_READ).bind(tables.to_vec()).bind(&login.user);
    if site.one(query).await? {
        return Ok(());
    }
    let schemas: Vec<String> = site.all(sqlx::query_scalar(sql::SCHEMAS)).await?;
    let (role, tables, schemas) =
        (format!("\"{}\"", login.user.replace('"', "\"\"")), tables.join(", "), schemas.join(", "));
    site.command(format!(
        "BEGIN; SELECT pg_advisory_xact_lock(7305019); GRANT USAGE ON SCHEMA meta, {schemas} TO {role};
         GRANT SELECT ON meta.move_marker, {tables} TO {role}; COMMIT"
    ))
    .await
}
