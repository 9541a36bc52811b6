//! Whether two shards are fit for a move. Looks, and changes nothing.

use super::site::{READER, Site};
use super::standbys::candidates;
use super::{MoveError, sql, streamer};
use crate::migrate::{Applied, shard_history};
use crate::server::Login;
use sqlx::Row;

const MOST_TRANSACTION_AGE_S: f64 = 5.0;
/// The stream, the way back, and two table copies at a time on either side.
const SLOTS_WANTED: i64 = 4;
/// Row filters and error statistics of subscriptions came with it.
const OLDEST_SERVER: i32 = 150_000;
/// From here on a subscription can leave out what arrived by replication.
const ORIGIN_SERVER: i32 = 160_000;

/// Names every reason against the move at once.
pub(super) async fn check(
    (from, to): (&mut Site, &mut Site),
    listed: (usize, usize),
    streamer: &Login,
) -> Result<(), MoveError> {
    let mut against = Vec::new();
    for (site, listed) in [(&mut *from, listed.0), (&mut *to, listed.1)] {
        server(site, &mut against).await?;
        tables(site, &mut against).await?;
        match candidates(site, listed).await {
            Err(MoveError::NotReady(why)) => against.push(why),
            outcome => drop(outcome?),
        }
        against.extend(streamer::against(site, streamer).await?);
    }
    if history(from).await? != history(to).await? {
        against
            .push(format!("{} and {} differ in their migrations: `auth-node migrate`", from.place, to.place));
    } else if shape(from).await? != shape(to).await? {
        against
            .push(format!("{} and {} differ in their tables, which no migration did", from.place, to.place));
    }
    let query = sqlx::query_scalar(sql::OLD_TRANSACTIONS).bind(MOST_TRANSACTION_AGE_S).bind(READER);
    let old: i64 = from.one(query).await?;
    if old > 0 {
        against.push(format!("{}: {old} transactions are older than {MOST_TRANSACTION_AGE_S} s", from.place));
    }
    if against.is_empty() {
        return Ok(());
    }
    Err(MoveError::NotReady(against.join("; ")))
}

async fn server(site: &mut Site, against: &mut Vec<String>) -> Result<(), MoveError> {
    let place = site.place;
    let row = site.row(sqlx::query(sql::SERVER)).await?;
    let row = row.ok_or_else(|| place.said()(sqlx::Error::RowNotFound))?;
    let read = || -> Result<(i32, String, i32, bool), sqlx::Error> {
        Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
    };
    let (version, wal_level, prepared, recovering) = read().map_err(place.said())?;
    if version < OLDEST_SERVER {
        against.push(format!("{place}: PostgreSQL {} is too old, 15 is the first", version / 10_000));
    }
    if wal_level != "logical" {
        against.push(format!("{place}: wal_level is {wal_level}, not logical"));
    }
    if prepared > 0 {
        against.push(format!("{place}: max_prepared_transactions is {prepared}: a drain cannot see those"));
    }
    if recovering {
        against.push(format!("{place}: its address leads to a replica"));
    }
    let free: i64 = site.one(sqlx::query_scalar(sql::FREE_SLOTS)).await?;
    if free < SLOTS_WANTED {
        against.push(format!("{place}: {free} replication slots are free, {SLOTS_WANTED} are wanted"));
    }
    Ok(())
}

async fn tables(site: &mut Site, against: &mut Vec<String>) -> Result<(), MoveError> {
    let bare: Vec<String> = site.all(sqlx::query_scalar(sql::UNPROTECTED)).await?;
    if !bare.is_empty() {
        against.push(format!(
            "{}: no ownership trigger or no row security on {}",
            site.place,
            bare.join(", ")
        ));
    }
    Ok(())
}

async fn history(site: &mut Site) -> Result<Vec<Applied>, MoveError> {
    shard_history(&mut site.connection).await.map_err(site.place.said())
}

async fn shape(site: &mut Site) -> Result<String, MoveError> {
    site.one(sqlx::query_scalar(sql::SHAPE)).await
}

/// As a number: 150018 is 15.18.
pub(super) async fn version(site: &mut Site) -> Result<i32, MoveError> {
    site.one(sqlx::query_scalar(sql::VERSION)).await
}

/// Whether a subscription between this server and another such one may ask for `origin = none`.
pub(super) async fn knows_origins(site: &mut Site) -> Result<bool, MoveError> {
    Ok(version(site).await? >= ORIGIN_SERVER)
}
