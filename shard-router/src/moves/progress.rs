//! How far a move has come, for people who wait for it.

use super::mover::Mover;
use super::record::{Move, MoveState};
use super::site::{READER, Site};
use super::stream::Stream;
use super::{MoveError, sql};
use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;
use std::time::Duration;

/// What the shards say about a move.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Progress {
    /// Rows at the target.
    pub rows_copied: i64,
    /// Rows at the source when the move was prepared.
    pub rows_estimated: Option<i64>,
    /// Tables whose changes stream, and all tables.
    pub tables: (i64, i64),
    /// What the stream's taker has yet to confirm.
    pub lag_bytes: Option<i64>,
    /// Errors of the stream's workers; a stream that works has none.
    pub stream_errors: i64,
    /// How long the copy will take from now on, if it goes on as so far.
    pub eta: Option<Duration>,
}

impl Progress {
    /// Share of the copy that is done, from 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        match self.rows_estimated {
            Some(all) if all > 0 => (self.rows_copied as f64 / all as f64).min(1.0),
            _ => f64::from(u8::from(self.tables.0 == self.tables.1)),
        }
    }
}

impl Mover {
    /// Asks both shards. `now` is for the estimate.
    ///
    /// # Errors
    /// One of them cannot be reached.
    pub async fn progress(&self, record: &Move, now: DateTime<Utc>) -> Result<Progress, MoveError> {
        let ledger = self.ledger().await?;
        let mut src = self.site(&ledger, record.src, READER).await?;
        let mut dst = self.site(&ledger, record.dst, READER).await?;
        let dbname = src.address.dbname.clone();
        let there = Stream::of(record, record.src, record.dst, &dbname);
        let back = Stream::of(record, record.dst, record.src, &dbname);
        let mut progress = Progress { rows_estimated: record.rows_estimated, ..Progress::default() };
        match record.state {
            MoveState::Planned | MoveState::Done | MoveState::Aborted | MoveState::RolledBack => {}
            MoveState::Copying | MoveState::Fencing | MoveState::Aborting => {
                let found = there.progress(&mut dst).await?;
                (progress.tables, progress.stream_errors) = ((found.ready, found.tables), found.errors);
                progress.lag_bytes = there.lag_bytes(&mut src).await?;
                progress.rows_copied = rows(&mut dst, record).await?;
            }
            _ => {
                let found = back.progress(&mut src).await?;
                (progress.tables, progress.stream_errors) = ((found.ready, found.tables), found.errors);
                progress.lag_bytes = back.lag_bytes(&mut dst).await?;
                progress.rows_copied = record.rows_estimated.unwrap_or_default();
            }
        }
        progress.eta = eta(&progress, record, now);
        Ok(progress)
    }
}

/// Rows that are there, and rows of table copies that have not committed yet.
async fn rows(site: &mut Site, record: &Move) -> Result<i64, MoveError> {
    let mut rows: i64 = site.one(sqlx::query_scalar(sql::COPYING_ROWS)).await?;
    for table in site.all::<String>(sqlx::query_scalar(sql::TABLES)).await? {
        let count = format!("SELECT count(*) FROM {table} WHERE bucket BETWEEN $1 AND $2");
        let query = sqlx::query_scalar(AssertSqlSafe(count)).bind(record.range.lo()).bind(record.range.hi());
        rows += site.one::<i64>(query).await?;
    }
    Ok(rows)
}

fn eta(progress: &Progress, record: &Move, now: DateTime<Utc>) -> Option<Duration> {
    if record.state != MoveState::Copying || progress.rows_copied == 0 {
        return None;
    }
    let spent = (now - record.changed_at).to_std().ok()?;
    let left = (progress.rows_estimated? - progress.rows_copied).max(0);
    Some(spent.mul_f64(left as f64 / progress.rows_copied as f64))
}
