//! One change of schema over all shards: a canary, then waves of a quarter, stopped by the first failure.
//!
//! The shards say what is pending; the directory holds who was touched when, with what outcome, and the one open
//! rollout. So a run that was interrupted anywhere is taken up by the next one.

use super::apply::{LOCK_NOT_AVAILABLE, Retry, Target};
use super::schema::{Applied, Schema, Stage, hash_of, stage_of, version_of};
use super::{Backfill, MigrateError, at_directory, sql};
use crate::directory::{Directory, ShardRow};
use crate::map::ShardId;
use sqlx::postgres::PgConnection;
use std::collections::BTreeMap;
use tokio::task::JoinSet;

/// A wave is one shard in so many.
const WAVES: usize = 4;
/// What the directory answers while a move is open.
const SQLSTATE_EXCLUDED: &str = "SH409";

/// What to bring to the shards, and how.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// The migrations.
    pub schema: Schema,
    /// How far to go: [`Expand`](Stage::Expand) stops before the first migration that takes something away. Shards
    /// that are all empty get everything.
    pub stage: Stage,
    /// Which shard goes first; the lightest one that has any weight, unless told.
    pub canary: Option<ShardId>,
    /// Stops after the canary, so that somebody can look at it. The rollout stays open.
    pub canary_only: bool,
    /// What must have ended before anything is taken away.
    pub backfills: Vec<Backfill>,
    /// What to do about locks.
    pub retry: Retry,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            schema: Schema::of_shards(),
            stage: Stage::Expand,
            canary: None,
            canary_only: false,
            backfills: Vec::new(),
            retry: Retry::default(),
        }
    }
}

/// A shard that is where it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Which.
    pub shard_id: ShardId,
    /// The highest migration it has.
    pub version: i64,
    /// In which wave of this run it was changed: 0 is the canary's. `None`: nothing was pending.
    pub wave: Option<usize>,
}

/// What a run has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rolled {
    /// The shards that are up to date, in the order in which they became so.
    pub shards: Vec<Migrated>,
    /// Those that wait for the next run.
    pub waiting: Vec<ShardId>,
}

/// A listed shard and its history.
struct Listed {
    row: ShardRow,
    applied: Vec<Applied>,
}

impl Rollout {
    /// Brings what is pending to every shard that the directory lists. Needs the owner's login everywhere. Where
    /// nothing is pending nothing is refused.
    ///
    /// # Errors
    /// [`Refused`](MigrateError::Refused): a move is open, another run is at work, or a backfill has not ended. Else
    /// the first shard that failed: the waves after its own were not begun, and the next run goes on from there.
    pub async fn run(&self, directory: &Directory) -> Result<Rolled, MigrateError> {
        let mut ledger = directory.connect().await.map_err(at_directory)?;
        lock(&mut ledger).await?;
        let outcome = self.alone(directory, &mut ledger).await;
        // At once: the server takes a moment to see that a connection is gone.
        let _ = sqlx::query(sql::UNLOCK_ROLLOUT).execute(&mut ledger).await;
        outcome
    }

    async fn alone(&self, directory: &Directory, ledger: &mut PgConnection) -> Result<Rolled, MigrateError> {
        let listed = self.survey(directory).await?;
        let open: Option<(i64, i16)> =
            sqlx::query_as(sql::OPEN_ROLLOUT).fetch_optional(&mut *ledger).await.map_err(at_directory)?;
        let target = self.target(&listed, open.map(|(target, _)| target))?;
        let (behind, mut rolled) = self.split(ledger, &listed, target).await?;
        if behind.is_empty() {
            end(ledger).await?;
            return Ok(rolled);
        }
        self.check_backfills(ledger, &listed, &behind, target).await?;
        let rows: Vec<&ShardRow> = listed.iter().map(|shard| &shard.row).collect();
        let begun = open.and_then(|(_, canary)| ShardId::new(canary));
        let canary = canary(&rows, begun.or(self.canary))?;
        begin(ledger, open.is_some(), target, canary).await?;
        for (wave, ids) in waves(&rows, canary).into_iter().enumerate() {
            let shards: Vec<_> = behind.iter().copied().filter(|s| ids.contains(&s.row.shard_id)).collect();
            if wave > 0 && self.canary_only {
                rolled.waiting.extend(shards.iter().map(|shard| shard.row.shard_id));
                continue;
            }
            self.wave(directory, ledger, &shards, (wave, target), &mut rolled).await?;
        }
        if rolled.waiting.is_empty() {
            end(ledger).await?;
        }
        Ok(rolled)
    }

    /// Every shard must answer before the first one is touched.
    async fn survey(&self, directory: &Directory) -> Result<Vec<Listed>, MigrateError> {
        let mut listed = Vec::new();
        for row in directory.shards().await.map_err(at_directory)? {
            let applied = target(directory, &row).history(&self.schema).await?;
            listed.push(Listed { row, applied });
        }
        Ok(listed)
    }

    /// A contraction that some shard has seen is finished on all; another one only begins if that was asked for.
    fn target(&self, listed: &[Listed], open: Option<i64>) -> Result<i64, MigrateError> {
        let latest = self.schema.latest();
        if let Some(open) = open.filter(|open| *open > latest) {
            let why = format!(
                "a rollout to migration {open} has not ended, and this binary knows {latest} at most"
            );
            return Err(MigrateError::Refused(why));
        }
        let furthest = listed.iter().map(|shard| version_of(&shard.applied)).max().unwrap_or(0);
        if self.stage == Stage::Contract || furthest == 0 {
            return Ok(latest);
        }
        Ok(self.schema.expanded(furthest.max(open.unwrap_or(0))))
    }

    /// Who has something pending; the others are recorded as they are.
    async fn split<'a>(
        &self,
        ledger: &mut PgConnection,
        listed: &'a [Listed],
        target: i64,
    ) -> Result<(Vec<&'a Listed>, Rolled), MigrateError> {
        let (mut behind, mut shards) = (Vec::new(), Vec::new());
        for shard in listed {
            let version = version_of(&shard.applied);
            if self.schema.pending(version, target).next().is_some() {
                behind.push(shard);
            } else {
                record(ledger, sql::SHARD_IS_AT, shard.row.shard_id, &shard.applied).await?;
                shards.push(Migrated { shard_id: shard.row.shard_id, version, wave: None });
            }
        }
        Ok((behind, Rolled { shards, waiting: Vec::new() }))
    }

    /// Rows that nobody rewrote must not lose what they were to be rewritten from. Empty shards have none.
    async fn check_backfills(
        &self,
        ledger: &mut PgConnection,
        listed: &[Listed],
        behind: &[&Listed],
        target: i64,
    ) -> Result<(), MigrateError> {
        let contracts = behind.iter().any(|shard| self.schema.contracts(version_of(&shard.applied), target));
        if !contracts || listed.iter().all(|shard| shard.applied.is_empty()) {
            return Ok(());
        }
        for backfill in &self.backfills {
            let query = sqlx::query_scalar(sql::BACKFILL_ENDED).bind(backfill.name);
            if !query.fetch_one(&mut *ledger).await.map_err(at_directory)? {
                let why = format!("backfill {} has not ended: `auth-node migrate backfill`", backfill.name);
                return Err(MigrateError::Refused(why));
            }
        }
        Ok(())
    }

    /// All shards of a wave at once. What was begun is brought to its end and recorded, also beside a failure.
    async fn wave(
        &self,
        directory: &Directory,
        ledger: &mut PgConnection,
        shards: &[&Listed],
        (wave, version): (usize, i64),
        rolled: &mut Rolled,
    ) -> Result<(), MigrateError> {
        let mut work = JoinSet::new();
        for shard in shards {
            record(ledger, sql::SHARD_BEGINS, shard.row.shard_id, &shard.applied).await?;
            let (directory, row) = (directory.clone(), shard.row.clone());
            let (schema, retry) = (self.schema.clone(), self.retry);
            work.spawn(async move {
                (row.shard_id, target(&directory, &row).bring_to(&schema, version, retry).await)
            });
        }
        let mut failures = BTreeMap::new();
        while let Some(done) = work.join_next().await {
            let (shard_id, outcome) = done.expect("a migration neither panics nor is aborted");
            match outcome {
                Ok(applied) => {
                    record(ledger, sql::SHARD_IS_AT, shard_id, &applied).await?;
                    let version = version_of(&applied);
                    rolled.shards.push(Migrated { shard_id, version, wave: Some(wave) });
                }
                Err(error) => {
                    let query = sqlx::query(sql::SHARD_FAILED).bind(shard_id.get()).bind(error.to_string());
                    query.execute(&mut *ledger).await.map_err(at_directory)?;
                    failures.insert(shard_id, error);
                }
            }
        }
        failures.into_values().next().map_or(Ok(()), Err)
    }
}

fn target<'a>(directory: &'a Directory, row: &'a ShardRow) -> Target<'a> {
    Target { place: format!("shard {}", row.shard_id), address: &row.primary, login: &directory.login }
}

async fn lock(ledger: &mut PgConnection) -> Result<(), MigrateError> {
    sqlx::query(sql::WAIT_FOR_ROLLOUTS).execute(&mut *ledger).await.map_err(at_directory)?;
    match sqlx::query(sql::LOCK_ROLLOUT).execute(ledger).await {
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(LOCK_NOT_AVAILABLE) => {
            Err(MigrateError::Refused("another run of migrations is at work".to_owned()))
        }
        Err(error) => Err(at_directory(error)),
    }
}

/// The lightest shard; one that is being emptied proves little, and comes last.
fn canary(rows: &[&ShardRow], wanted: Option<ShardId>) -> Result<ShardId, MigrateError> {
    match wanted {
        Some(id) if rows.iter().any(|row| row.shard_id == id) => Ok(id),
        Some(id) => Err(MigrateError::Refused(format!("there is no shard {id}"))),
        None => {
            let lightest = rows.iter().min_by_key(|row| (row.weight == 0, row.weight, row.shard_id));
            Ok(lightest.expect("something is behind").shard_id)
        }
    }
}

/// The canary alone, and then a quarter of all shards at a time.
fn waves(rows: &[&ShardRow], canary: ShardId) -> Vec<Vec<ShardId>> {
    let others: Vec<ShardId> = rows.iter().map(|row| row.shard_id).filter(|id| *id != canary).collect();
    let quarter = rows.len().div_ceil(WAVES);
    std::iter::once(vec![canary]).chain(others.chunks(quarter).map(<[ShardId]>::to_vec)).collect()
}

/// Opens a rollout, or takes up the open one. From here on no move can be planned.
async fn begin(
    ledger: &mut PgConnection,
    is_open: bool,
    target: i64,
    canary: ShardId,
) -> Result<(), MigrateError> {
    let query = if is_open {
        sqlx::query(sql::EXTEND_ROLLOUT).bind(target)
    } else {
        sqlx::query(sql::BEGIN_ROLLOUT).bind(target).bind(canary.get())
    };
    match query.execute(ledger).await {
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(SQLSTATE_EXCLUDED) => {
            Err(MigrateError::Refused(error.message().to_owned()))
        }
        Err(error) => Err(at_directory(error)),
    }
}

async fn end(ledger: &mut PgConnection) -> Result<(), MigrateError> {
    sqlx::query(sql::END_ROLLOUT).execute(ledger).await.map(|_| ()).map_err(at_directory)
}

async fn record(
    ledger: &mut PgConnection,
    statement: &'static str,
    shard: ShardId,
    applied: &[Applied],
) -> Result<(), MigrateError> {
    let query = sqlx::query(statement)
        .bind(shard.get())
        .bind(hash_of(applied))
        .bind(version_of(applied))
        .bind(stage_of(applied).name());
    query.execute(ledger).await.map(|_| ()).map_err(at_directory)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::server::Address;

    fn rows(weights: &[u32]) -> Vec<ShardRow> {
        let row = |(id, weight): (i16, &u32)| ShardRow {
            shard_id: ShardId::new(id).unwrap(),
            primary: Address::new("nowhere", 1, "x"),
            replicas: Vec::new(),
            weight: *weight,
        };
        (1_i16..).zip(weights).map(row).collect()
    }

    fn numbers(weights: &[u32], wanted: Option<i16>) -> Vec<Vec<i16>> {
        let rows = rows(weights);
        let rows: Vec<&ShardRow> = rows.iter().collect();
        let canary = canary(&rows, wanted.and_then(ShardId::new)).unwrap();
        waves(&rows, canary).iter().map(|wave| wave.iter().map(|id| id.get()).collect()).collect()
    }

    #[test]
    fn the_lightest_shard_goes_first_and_then_quarters() {
        assert_eq!(numbers(&[3, 2, 1, 1], None), [vec![3], vec![1], vec![2], vec![4]]);
        assert_eq!(numbers(&[1; 9], Some(5)), [vec![5], vec![1, 2, 3], vec![4, 6, 7], vec![8, 9]]);
        assert_eq!(numbers(&[0, 4], None), [vec![2], vec![1]], "an empty shard proves nothing");
        assert_eq!(numbers(&[1], None), [[1]]);
        let rows = rows(&[1, 1]);
        let rows: Vec<&ShardRow> = rows.iter().collect();
        assert!(matches!(canary(&rows, ShardId::new(3)), Err(MigrateError::Refused(_))));
    }
}
