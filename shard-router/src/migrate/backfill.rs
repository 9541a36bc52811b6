//! Rewriting rows that exist already: bucket by bucket, each by the shard that owns it, behind its replicas' pace.
//!
//! What is done is kept by bucket and not by shard, because buckets move and their rows with them: a bucket is rewritten
//! once, wherever it is then, and never by a shard that it has left. A batch commits before the directory hears of it,
//! so that a worker that died repeats one batch at most: steps must bear that.

use super::{MigrateError, at_directory, sql};
use crate::directory::{Directory, ShardRow};
use crate::map::ShardId;
use crate::ownership::Ownership;
use crate::server::{connect, plain_options};
use sqlx::Row;
use sqlx::postgres::PgConnection;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const LAG_POLL: Duration = Duration::from_millis(100);

/// One batch of a [`Backfill`], gated: `backfill_step!(keys; change)`.
///
/// `keys` selects the keys of at most `$3` rows `AS key`, in order, of bucket `$1` and after key `$2` (text; NULL at
/// the beginning). `change` rewrites the rows of `batch` and demands `o.state = 'A'` (checked at compile time).
///
/// ```
/// const STEP: &str = shard_router::backfill_step!(
///     "SELECT t.id AS key FROM shard.things t
///      WHERE t.bucket = $1 AND ($2 IS NULL OR t.id > $2::uuid) ORDER BY t.id LIMIT $3";
///     "UPDATE shard.things t SET wide = t.narrow FROM o, batch
///      WHERE o.state = 'A' AND t.bucket = $1 AND t.id = batch.key AND t.wide IS NULL"
/// );
/// assert!(STEP.contains("meta.bucket_owner"));
/// ```
#[macro_export]
macro_rules! backfill_step {
    ($keys:expr; $change:expr) => {{
        const _: () = assert!($crate::gate::mentions($change, "o.state"), "a write must demand o.state = 'A'");
        concat!(
            "WITH o AS (SELECT state, moved_to, epoch FROM meta.bucket_owner WHERE bucket = $1), batch AS (",
            $keys,
            "), changed AS (",
            $change,
            " RETURNING 1) SELECT o.state AS owner_state, o.moved_to AS owner_moved_to, o.epoch AS owner_epoch,
                (SELECT count(*) FROM batch) AS keys, (SELECT count(*) FROM changed) AS changed,
                (SELECT key::text FROM batch ORDER BY key DESC LIMIT 1) AS last_key FROM o"
        )
    }};
}

/// A rewriting of rows.
#[derive(Clone, Copy, Debug)]
pub struct Backfill {
    /// Its name in the directory, for ever: what is done under it is not done again.
    pub name: &'static str,
    /// A [`backfill_step!`](crate::backfill_step).
    pub step: &'static str,
}

/// How gently.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Rows in one statement.
    pub batch: i64,
    /// The next batch waits until every replica is closer than this.
    pub lag_bytes: i64,
    /// For so long at most.
    pub lag_wait: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { batch: 500, lag_bytes: 16 << 20, lag_wait: Duration::from_secs(600) }
    }
}

/// What a run has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backfilled {
    /// Rows that it rewrote.
    pub changed: i64,
    /// Buckets that were nobody's to touch, as in the window of a move: run again. 0: the backfill has ended.
    pub left: i64,
}

impl Backfill {
    /// Rewrites what is not done yet, on all shards at once. Every shard must have the columns already. May be killed
    /// and repeated at any time, and moves may go on.
    ///
    /// # Errors
    /// A database cannot be reached or refused a statement; replicas stayed behind. The next run goes on from there.
    pub async fn run(&self, directory: &Directory, pace: Pace) -> Result<Backfilled, MigrateError> {
        let mut ledger = directory.connect().await.map_err(at_directory)?;
        let begin = sqlx::query(sql::BEGIN_BACKFILL).bind(self.name);
        begin.execute(&mut ledger).await.map_err(at_directory)?;
        let mut changed = 0;
        loop {
            let (mut work, mut buckets) = (JoinSet::new(), 0);
            for shard in directory.shards().await.map_err(at_directory)? {
                let (backfill, directory) = (*self, directory.clone());
                work.spawn(
                    async move { Worker::open(backfill, &directory, &shard, pace).await?.round().await },
                );
            }
            while let Some(round) = work.join_next().await {
                let round: Round = round.expect("a worker neither panics nor is aborted")?;
                changed += round.changed;
                buckets += round.buckets;
            }
            let query = sqlx::query_scalar(sql::END_BACKFILL).bind(self.name);
            let left: i64 = query.fetch_one(&mut ledger).await.map_err(at_directory)?;
            // What is left while some got done may have moved to a shard that was through already.
            if left == 0 || buckets == 0 {
                return Ok(Backfilled { changed, left });
            }
        }
    }
}

#[derive(Default)]
struct Round {
    changed: i64,
    buckets: usize,
}

/// One shard's part.
struct Worker {
    backfill: Backfill,
    pace: Pace,
    id: ShardId,
    shard: PgConnection,
    ledger: PgConnection,
    /// Whether replicas may be further behind than when they were last asked.
    wrote: bool,
}

/// What one batch said.
enum Batch {
    NotOurs,
    Rows { keys: i64, changed: i64, last_key: Option<String> },
}

impl Worker {
    async fn open(
        backfill: Backfill,
        directory: &Directory,
        row: &ShardRow,
        pace: Pace,
    ) -> Result<Self, MigrateError> {
        let (id, options) = (row.shard_id, plain_options(&row.primary, &directory.login));
        let shard = connect(&options, CONNECT_TIMEOUT).await.map_err(|source| at(id, source))?;
        let ledger = directory.connect().await.map_err(at_directory)?;
        Ok(Self { backfill, pace, id, shard, ledger, wrote: true })
    }

    /// Every bucket that is ours and not done, beginning with the one that was interrupted.
    async fn round(mut self) -> Result<Round, MigrateError> {
        let owned: Vec<i32> = sqlx::query_scalar(sql::OWNED)
            .fetch_all(&mut self.shard)
            .await
            .map_err(|source| at(self.id, source))?;
        let query = sqlx::query_scalar(sql::NOT_DONE).bind(self.backfill.name).bind(owned);
        let mut todo: Vec<i32> = query.fetch_all(&mut self.ledger).await.map_err(at_directory)?;
        let query = sqlx::query_as(sql::READ_CURSOR).bind(self.backfill.name).bind(self.id.get());
        let cursor: Option<(i32, String)> =
            query.fetch_optional(&mut self.ledger).await.map_err(at_directory)?;
        let (interrupted, last_key) = cursor.map_or((None, None), |(bucket, key)| (Some(bucket), Some(key)));
        todo.sort_by_key(|bucket| (Some(*bucket) != interrupted, *bucket));
        let mut round = Round::default();
        for bucket in todo {
            let from = last_key.clone().filter(|_| interrupted == Some(bucket));
            self.bucket(bucket, from, &mut round).await?;
        }
        Ok(round)
    }

    async fn bucket(
        &mut self,
        bucket: i32,
        mut after: Option<String>,
        round: &mut Round,
    ) -> Result<(), MigrateError> {
        loop {
            if self.wrote {
                self.wait_for_replicas().await?;
            }
            let batch = self.batch(bucket, after.as_deref()).await.map_err(|source| at(self.id, source))?;
            let Batch::Rows { keys, changed, last_key } = batch else { return Ok(()) };
            round.changed += changed;
            self.wrote = changed > 0;
            let Some(last_key) = last_key.filter(|_| keys >= self.pace.batch) else { break };
            let place = sqlx::query(sql::WRITE_CURSOR).bind(self.backfill.name).bind(self.id.get());
            let place = place.bind(bucket).bind(&last_key);
            place.execute(&mut self.ledger).await.map_err(at_directory)?;
            after = Some(last_key);
        }
        let done = sqlx::query(sql::BUCKET_DONE).bind(self.backfill.name).bind(self.id.get()).bind(bucket);
        done.execute(&mut self.ledger).await.map_err(at_directory)?;
        round.buckets += 1;
        Ok(())
    }

    async fn batch(&mut self, bucket: i32, after: Option<&str>) -> Result<Batch, sqlx::Error> {
        let query = sqlx::query(self.backfill.step).bind(bucket).bind(after).bind(self.pace.batch);
        let row = match query.fetch_optional(&mut self.shard).await {
            Err(error) if Ownership::from_error(&error).is_some() => return Ok(Batch::NotOurs),
            row => row?,
        };
        match (Ownership::from_row(row.as_ref())?, row) {
            (Ownership::Active, Some(row)) => Ok(Batch::Rows {
                keys: row.try_get("keys")?,
                changed: row.try_get("changed")?,
                last_key: row.try_get("last_key")?,
            }),
            _ => Ok(Batch::NotOurs),
        }
    }

    async fn wait_for_replicas(&mut self) -> Result<(), MigrateError> {
        let give_up = Instant::now() + self.pace.lag_wait;
        loop {
            let query = sqlx::query_scalar(sql::LAG_BYTES).fetch_one(&mut self.shard);
            let lag: i64 = query.await.map_err(|source| at(self.id, source))?;
            if lag < self.pace.lag_bytes {
                return Ok(());
            }
            if Instant::now() >= give_up {
                return Err(MigrateError::GaveUp(format!(
                    "a replica of shard {} stays {lag} bytes behind",
                    self.id
                )));
            }
            tokio::time::sleep(LAG_POLL).await;
        }
    }
}

fn at(shard: ShardId, source: sqlx::Error) -> MigrateError {
    MigrateError::Connect { place: format!("shard {shard}"), source }
}
