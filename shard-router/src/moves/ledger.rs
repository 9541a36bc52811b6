//! The directory's side of a move: the record, and every change of it as a compare-and-set.

use super::record::{BucketRange, Direction, Move, MoveId, MoveState};
use super::site::{MOVER, Site};
use super::{MoveError, Place, sql};
use crate::directory::{Directory, ShardRow};
use crate::map::ShardId;
use shard_key::Bucket;
use sqlx::Row;
use sqlx::postgres::PgRow;
use std::time::{Duration, Instant};

const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(50);

/// A connection to the directory that writes down moves.
pub(super) struct Ledger {
    site: Site,
    directory: Directory,
}

/// What became of a compare-and-set that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Ours,
    Refused,
}

impl Ledger {
    pub async fn open(directory: &Directory, limit: Duration) -> Result<Self, MoveError> {
        let (address, login) = (directory.address(), &directory.login);
        let site = Site::open(Place::Directory, address, login, MOVER, limit).await?;
        Ok(Self { site, directory: directory.clone() })
    }

    /// Writes a move down. Nothing happens on the shards yet.
    pub async fn plan(&mut self, range: BucketRange, src: ShardId, dst: ShardId) -> Result<Move, MoveError> {
        if src == dst {
            return Err(MoveError::BadRange(format!("shard {src} cannot move buckets to itself")));
        }
        let query = sqlx::query(sql::PLAN).bind(range.lo()).bind(range.hi()).bind(src.get()).bind(dst.get());
        match self.site.row(query).await {
            Ok(Some(row)) => read(&row),
            Ok(None) => Err(MoveError::BadRange(format!("buckets {range} are not all on shard {src}"))),
            Err(error) => Err(match error.sqlstate().as_deref() {
                Some("23P01") => {
                    MoveError::BadRange(format!("some of the buckets {range} are in an open move"))
                }
                Some("SH409") => MoveError::NotReady(error.said()),
                Some("23503") => MoveError::BadRange(format!("there is no shard {dst}, or no shard {src}")),
                _ => error,
            }),
        }
    }

    pub async fn get(&mut self, id: MoveId) -> Result<Move, MoveError> {
        let row = self.site.row(sqlx::query(sql::GET).bind(id.0)).await?;
        row.as_ref().map_or_else(|| Err(MoveError::WrongState(format!("there is no move {id}"))), read)
    }

    /// Every move that has not ended, oldest first.
    pub async fn open_moves(&mut self) -> Result<Vec<Move>, MoveError> {
        self.site.rows(sqlx::query(sql::OPEN)).await?.iter().map(read).collect()
    }

    /// The latest moves, newest first.
    pub async fn latest(&mut self, count: i64) -> Result<Vec<Move>, MoveError> {
        self.site.rows(sqlx::query(sql::LATEST).bind(count)).await?.iter().map(read).collect()
    }

    /// A fresh connection. The lock is gone with the old one; every change is conditional all the same.
    pub async fn reconnect(&mut self, limit: Duration) -> Result<(), MoveError> {
        *self = Self::open(&self.directory, limit).await?;
        Ok(())
    }

    /// Whether its window is open and has run out.
    pub async fn is_overdue(&mut self, id: MoveId) -> Result<bool, MoveError> {
        self.site.one(sqlx::query_scalar(sql::IS_OVERDUE).bind(id.0)).await
    }

    /// Becomes the one mover of this pair, until this connection ends. Waits a moment: the server may not have noticed
    /// yet that the last one has gone.
    pub async fn lock(&mut self, record: &Move) -> Result<(), MoveError> {
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match self.try_lock(record).await {
                Err(MoveError::Superseded(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(LOCK_POLL).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// The same, at once or not at all.
    pub async fn try_lock(&mut self, record: &Move) -> Result<(), MoveError> {
        let (low, high) = (record.src.min(record.dst), record.src.max(record.dst));
        let query = sqlx::query_scalar(sql::LOCK_PAIR).bind(low.get()).bind(high.get());
        if self.site.one::<bool>(query).await? {
            return Ok(());
        }
        Err(MoveError::Superseded(format!("another mover is at work between shards {low} and {high}")))
    }

    /// From one state to the next.
    pub async fn advance(&mut self, record: &Move, to: MoveState) -> Result<Move, MoveError> {
        let query = sqlx::query(sql::ADVANCE)
            .bind(record.id.0)
            .bind(record.state.name())
            .bind(record.attempt)
            .bind(to.name());
        self.changed(record, query).await
    }

    /// Begins an attempt: allocates its number and its epoch.
    pub async fn open_window(
        &mut self,
        record: &Move,
        way: Direction,
        limit: Duration,
    ) -> Result<Move, MoveError> {
        let query = sqlx::query(sql::OPEN_WINDOW)
            .bind(record.id.0)
            .bind(way.before.name())
            .bind(record.attempt)
            .bind(way.open.name())
            .bind(limit.as_millis() as f64);
        self.changed(record, query).await
    }

    /// Decides that nothing changes hands. `Refused`: it has been decided already, one way or the other.
    pub async fn undo_window(
        &mut self,
        record: &Move,
        way: Direction,
        why: &str,
    ) -> Result<Decision, MoveError> {
        let query = sqlx::query(sql::UNDO_WINDOW)
            .bind(record.id.0)
            .bind(way.open.name())
            .bind(record.attempt)
            .bind(way.before.name())
            .bind(why.to_owned());
        Ok(decision(self.site.run(query).await?))
    }

    /// Decides that the range changes hands. An error says nothing: it may have been decided.
    pub async fn decide(
        &mut self,
        record: &Move,
        way: Direction,
        reverse_from: &str,
    ) -> Result<Decision, MoveError> {
        let query = sqlx::query(sql::DECIDE)
            .bind(record.id.0)
            .bind(way.open.name())
            .bind(record.attempt)
            .bind(way.decided.name())
            .bind(reverse_from.to_owned())
            .bind(way.to.get());
        Ok(decision(self.site.run(query).await?))
    }

    pub async fn note(&mut self, record: &Move, note: &str) -> Result<(), MoveError> {
        let query = sqlx::query(sql::SET_NOTE).bind(record.id.0).bind(record.attempt).bind(note.to_owned());
        self.site.run(query).await.map(|_| ())
    }

    pub async fn set_rows(&mut self, record: &Move, rows: i64) -> Result<(), MoveError> {
        self.site.run(sqlx::query(sql::SET_ROWS).bind(record.id.0).bind(rows)).await.map(|_| ())
    }

    pub async fn set_reversible(&mut self, record: &Move, reversible: bool) -> Result<(), MoveError> {
        let query = sqlx::query(sql::SET_REVERSIBLE).bind(record.id.0).bind(record.attempt).bind(reversible);
        self.site.run(query).await.map(|_| ())
    }

    /// Writes the timeline of a taker down, unless one stands there; which one does.
    pub async fn keep_timeline(&mut self, record: &Move, taker: ShardId, now: i32) -> Result<i32, MoveError> {
        let set = if taker == record.dst { sql::SET_DST_TIMELINE } else { sql::SET_SRC_TIMELINE };
        self.site.one(sqlx::query_scalar(set).bind(record.id.0).bind(now)).await
    }

    pub async fn set_verified(&mut self, record: &Move, equal: bool) -> Result<(), MoveError> {
        let query = sqlx::query(sql::SET_VERIFIED).bind(record.id.0).bind(record.attempt).bind(equal);
        self.site.run(query).await.map(|_| ())
    }

    /// Whether the move has not ended.
    pub async fn pause(&mut self, id: MoveId, paused: bool) -> Result<bool, MoveError> {
        Ok(self.site.run(sqlx::query(sql::SET_PAUSED).bind(id.0).bind(paused)).await? == 1)
    }

    /// The address of a shard's primary, as of now.
    pub async fn shard(&self, shard: ShardId) -> Result<ShardRow, MoveError> {
        let rows = self.directory.shards().await.map_err(Place::Directory.said())?;
        let found = rows.into_iter().find(|row| row.shard_id == shard);
        found.ok_or_else(|| MoveError::BadRange(format!("there is no shard {shard}")))
    }

    async fn changed(
        &mut self,
        record: &Move,
        query: sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments>,
    ) -> Result<Move, MoveError> {
        match self.site.row(query).await? {
            Some(row) => read(&row),
            None => Err(MoveError::Superseded(format!(
                "move {} is no longer {} in attempt {}, or it is paused",
                record.id, record.state, record.attempt
            ))),
        }
    }
}

fn decision(buckets: u64) -> Decision {
    if buckets > 0 { Decision::Ours } else { Decision::Refused }
}

fn read(row: &PgRow) -> Result<Move, MoveError> {
    parse(row).map_err(Place::Directory.said())
}

fn parse(row: &PgRow) -> Result<Move, sqlx::Error> {
    let nonsense = |what: &str| sqlx::Error::Decode(format!("directory.move: {what}").into());
    let bucket = |name: &str| {
        let number: i32 = row.try_get(name)?;
        Bucket::try_from(number).map_err(|_| nonsense("a bucket that there is not"))
    };
    let shard =
        |name: &str| ShardId::new(row.try_get(name)?).ok_or_else(|| nonsense("a shard that there is not"));
    let state: String = row.try_get("state")?;
    Ok(Move {
        id: MoveId(row.try_get("move_id")?),
        range: BucketRange::new(bucket("lo")?, bucket("hi")?).ok_or_else(|| nonsense("hi before lo"))?,
        src: shard("src")?,
        dst: shard("dst")?,
        state: MoveState::parse(&state).ok_or_else(|| nonsense("a state that there is not"))?,
        attempt: row.try_get("attempt")?,
        epoch: row.try_get("epoch")?,
        fence_deadline: row.try_get("fence_deadline")?,
        reverse_from: row.try_get("reverse_from")?,
        dst_timeline: row.try_get("dst_timeline")?,
        src_timeline: row.try_get("src_timeline")?,
        reversible: row.try_get("reversible")?,
        verified: row.try_get("verified")?,
        paused: row.try_get("paused")?,
        rows_estimated: row.try_get("rows_estimated")?,
        note: row.try_get("note")?,
        created_at: row.try_get("created_at")?,
        changed_at: row.try_get("changed_at")?,
        soaking_since: row.try_get("soaking_since")?,
    })
}
