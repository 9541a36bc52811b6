//! Shards that may believe in an ownership that is over.
//!
//! A shard that was restored to a point in time, or whose replica was promoted by force, shows the ownership of an
//! earlier moment: what it gave away since it would serve again. So before the network opens it is put in quarantine,
//! every bucket `I`; then it is reconciled with the directory, which knows the owners. A promotion that lost nothing
//! needs neither: the ownership rows are as durable as the data beside them.

use crate::directory::{Directory, ShardRow, sql};
use crate::map::ShardId;
use crate::moves::{MoveError, Place};
use crate::server::{Address, Login, connect, plain_options, within};
use serde::Serialize;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

/// What reconciling came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    /// Buckets that the shard serves again, each at a fresh epoch.
    pub active: usize,
    /// Buckets of other shards: it redirects.
    pub moved: usize,
    /// Buckets that the directory gives to this shard, and whose rows it does not have: they came after the moment
    /// that was restored. Nobody serves them.
    pub missing: Vec<i32>,
    /// Buckets that another shard serves although the directory gives them to this one. Nothing was touched.
    pub contested: Vec<i32>,
}

/// Puts a shard in quarantine: it answers for no bucket any more. May be repeated. Needs the owner's login, and should
/// run before nodes can reach the shard.
///
/// # Errors
/// The shard cannot be reached.
pub async fn quarantine(directory: &Directory, shard: ShardId) -> Result<u64, MoveError> {
    let row = row(directory, shard).await?;
    quarantine_at(&row.primary, &directory.login, shard).await
}

/// As [`quarantine`], at an address that the directory need not know yet: before it learns of a promotion, say.
///
/// # Errors
/// The shard cannot be reached.
pub async fn quarantine_at(address: &Address, login: &Login, shard: ShardId) -> Result<u64, MoveError> {
    let options = plain_options(address, login);
    let mut connection = connect(&options, LIMIT).await.map_err(Place::Shard(shard).said())?;
    let work = async {
        let mut tx = connection.begin().await?;
        sqlx::query(sql::REMEMBER_OWNERS).execute(&mut *tx).await?;
        let done = sqlx::query(sql::OWN_NOTHING).execute(&mut *tx).await?.rows_affected();
        tx.commit().await?;
        Ok(done)
    };
    within(LIMIT, work).await.map_err(Place::Shard(shard).said())
}

/// Ends a quarantine: the shard serves what the directory gives it and what it has, at epochs above everybody's. Looks
/// at all other shards first, and refuses if one of them cannot be asked.
///
/// # Errors
/// A shard or the directory cannot be reached; the shard is not in quarantine; a move of its buckets is open.
pub async fn reconcile(directory: &Directory, shard: ShardId) -> Result<Reconciled, MoveError> {
    let mut ledger = directory.connect().await.map_err(Place::Directory.said())?;
    let mut here = open(directory, shard).await?;
    let believed = remembered(&mut here).await.map_err(Place::Shard(shard).said())?;
    if believed.is_empty() {
        return Err(MoveError::WrongState(format!("shard {shard} is not in quarantine")));
    }
    let elsewhere = active_elsewhere(directory, shard).await?;
    let work = async {
        let mut tx = ledger.begin().await?;
        let open: i64 = sqlx::query_scalar(sql::OPEN_MOVES_OF).bind(shard.get()).fetch_one(&mut *tx).await?;
        if open > 0 {
            return Ok(Err(format!(
                "{open} open moves name shard {shard}: recover, abort or roll back first"
            )));
        }
        let map: Vec<(i32, i16, i64)> = sqlx::query_as(sql::LOCKED_BUCKETS).fetch_all(&mut *tx).await?;
        let found = sort(&map, shard, &believed, &elsewhere);
        // The directory first: an epoch that it does not know of would be beyond it for ever.
        let mine = found.mine.clone();
        sqlx::query(sql::RAISE_EPOCHS).bind(&mine).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(Ok((map, found)))
    };
    let told = within(LIMIT, work).await.map_err(Place::Directory.said())?;
    let (map, found) = told.map_err(MoveError::NotReady)?;
    give(&mut here, shard, &map, &found).await.map_err(Place::Shard(shard).said())?;
    Ok(found.report)
}

struct Sorted {
    mine: Vec<i32>,
    report: Reconciled,
}

/// Which of the directory's buckets the shard may serve.
fn sort(
    map: &[(i32, i16, i64)],
    shard: ShardId,
    believed: &BTreeMap<i32, i8>,
    elsewhere: &BTreeSet<i32>,
) -> Sorted {
    let mut sorted = Sorted { mine: Vec::new(), report: Reconciled::default() };
    let had = |bucket: &i32| matches!(believed.get(bucket).map(|state| *state as u8), Some(b'A' | b'F'));
    for (bucket, owner, _) in map {
        if *owner != shard.get() {
            sorted.report.moved += 1;
        } else if elsewhere.contains(bucket) {
            sorted.report.contested.push(*bucket);
        } else if had(bucket) {
            sorted.mine.push(*bucket);
        } else if believed.contains_key(bucket) {
            sorted.report.missing.push(*bucket);
        }
        // What is not remembered was settled by an earlier run.
    }
    sorted.report.active = sorted.mine.len();
    sorted
}

async fn give(
    here: &mut PgConnection,
    shard: ShardId,
    map: &[(i32, i16, i64)],
    found: &Sorted,
) -> Result<(), sqlx::Error> {
    let mut tx = here.begin().await?;
    let others: Vec<&(i32, i16, i64)> = map.iter().filter(|(_, owner, _)| *owner != shard.get()).collect();
    sqlx::query(sql::REDIRECT)
        .bind(others.iter().map(|(bucket, ..)| *bucket).collect::<Vec<_>>())
        .bind(others.iter().map(|(_, owner, _)| *owner).collect::<Vec<_>>())
        .bind(others.iter().map(|(.., epoch)| *epoch).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await?;
    let epochs: BTreeMap<i32, i64> = map.iter().map(|(bucket, _, epoch)| (*bucket, *epoch + 1)).collect();
    let mine: Vec<i64> = found.mine.iter().filter_map(|bucket| epochs.get(bucket).copied()).collect();
    sqlx::query(sql::SERVE_AGAIN).bind(&found.mine).bind(mine).execute(&mut *tx).await?;
    let open: Vec<i32> = [&found.report.contested[..], &found.report.missing[..]].concat();
    sqlx::query(sql::FORGET_QUARANTINE).bind(open).execute(&mut *tx).await?;
    tx.commit().await
}

async fn row(directory: &Directory, shard: ShardId) -> Result<ShardRow, MoveError> {
    let rows = directory.shards().await.map_err(Place::Directory.said())?;
    let row = rows.into_iter().find(|row| row.shard_id == shard);
    row.ok_or_else(|| MoveError::BadRange(format!("there is no shard {shard}")))
}

async fn open(directory: &Directory, shard: ShardId) -> Result<PgConnection, MoveError> {
    let row = row(directory, shard).await?;
    connect(&plain_options(&row.primary, &directory.login), LIMIT).await.map_err(Place::Shard(shard).said())
}

/// What the shard believed, by bucket; empty outside a quarantine.
async fn remembered(here: &mut PgConnection) -> Result<BTreeMap<i32, i8>, sqlx::Error> {
    let rows: Vec<(i32, i8)> = within(LIMIT, sqlx::query_as(sql::REMEMBERED).fetch_all(here)).await?;
    Ok(rows.into_iter().collect())
}

async fn active_elsewhere(directory: &Directory, shard: ShardId) -> Result<BTreeSet<i32>, MoveError> {
    let mut active = BTreeSet::new();
    for row in directory.shards().await.map_err(Place::Directory.said())? {
        if row.shard_id == shard {
            continue;
        }
        let mut there = open(directory, row.shard_id).await?;
        let buckets: Vec<i32> = within(LIMIT, sqlx::query_scalar(sql::OWNED).fetch_all(&mut there))
            .await
            .map_err(Place::Shard(row.shard_id).said())?;
        active.extend(buckets);
    }
    Ok(active)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_served_only_where_directory_and_data_agree() {
        let shard = ShardId::new(1).unwrap();
        let map = [(0, 1, 5), (1, 1, 5), (2, 2, 5), (3, 1, 5), (4, 1, 5)];
        let believed = [(0, b'A'), (1, b'I'), (2, b'A'), (3, b'A'), (4, b'F')].map(|(b, s)| (b, s as i8));
        let sorted = sort(&map, shard, &believed.into_iter().collect(), &BTreeSet::from([3]));
        assert_eq!(sorted.mine, [0, 4]);
        let expected = Reconciled { active: 2, moved: 1, missing: vec![1], contested: vec![3] };
        assert_eq!(sorted.report, expected);
    }
}
