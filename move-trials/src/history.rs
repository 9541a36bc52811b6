//! Every operation of a load, and what the shards must therefore hold.

use crate::{Problem, SHARDS, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

/// A counter: bucket and number.
pub(crate) type CounterId = (i32, i32);

/// An operation: bucket and sequence number.
pub(crate) type OpId = (i32, i64);

/// What was asked and answered. Shared by everything that runs.
#[derive(Debug)]
pub struct History {
    counters: BTreeMap<CounterId, Bounds>,
    ops: Mutex<Ops>,
    stale: Mutex<Vec<String>>,
}

/// How often a counter was certainly raised, and at most.
#[derive(Debug, Default)]
struct Bounds {
    acknowledged: AtomicI64,
    begun: AtomicI64,
}

#[derive(Debug, Default)]
struct Ops {
    /// Acknowledged and not removed.
    present: BTreeSet<OpId>,
    /// Asked for and never answered: may be there or not.
    unknown: BTreeSet<OpId>,
    count: u64,
}

/// What the checker found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verdict {
    /// Operations that were acknowledged.
    pub operations: u64,
    /// Acknowledged, and not on the owner.
    pub lost: Vec<String>,
    /// On the owner, and never asked for or removed.
    pub ghosts: Vec<String>,
    /// Counters that were raised more or less often than there were operations.
    pub miscounted: Vec<String>,
    /// Reads that showed less than had been acknowledged before they began, or more than had been asked for.
    pub stale_reads: Vec<String>,
    /// Buckets that do not have exactly one owner, or not the one that the directory names.
    pub misplaced: Vec<String>,
}

impl Verdict {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty()
            && self.ghosts.is_empty()
            && self.miscounted.is_empty()
            && self.stale_reads.is_empty()
            && self.misplaced.is_empty()
    }
}

impl History {
    /// Of these counters, all at 0.
    #[must_use]
    pub fn new(buckets: std::ops::Range<i32>, counters: i32) -> Self {
        let ids = buckets.flat_map(|bucket| (1..=counters).map(move |id| (bucket, id)));
        Self {
            counters: ids.map(|id| (id, Bounds::default())).collect(),
            ops: Mutex::default(),
            stale: Mutex::default(),
        }
    }

    pub(crate) fn begin_add(&self, counter: CounterId) {
        self.counters[&counter].begun.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn end_add(&self, counter: CounterId, op: OpId, acknowledged: bool) {
        let mut ops = self.ops.lock().unwrap_or_else(PoisonError::into_inner);
        if acknowledged {
            self.counters[&counter].acknowledged.fetch_add(1, Ordering::SeqCst);
            ops.present.insert(op);
            ops.count += 1;
        } else {
            ops.unknown.insert(op);
        }
    }

    /// An operation to remove, taken out of what must be there.
    pub(crate) fn begin_remove(&self, bucket: i32, near: i64) -> Option<OpId> {
        let mut ops = self.ops.lock().unwrap_or_else(PoisonError::into_inner);
        let found = *ops.present.range((bucket, 0)..(bucket, near)).next_back()?;
        ops.present.remove(&found);
        ops.unknown.insert(found);
        Some(found)
    }

    pub(crate) fn end_remove(&self, op: OpId, acknowledged: bool) {
        let mut ops = self.ops.lock().unwrap_or_else(PoisonError::into_inner);
        if acknowledged {
            ops.unknown.remove(&op);
            ops.count += 1;
        }
    }

    /// The least that a read which begins now may show.
    pub(crate) fn begin_read(&self, counter: CounterId) -> i64 {
        self.counters[&counter].acknowledged.load(Ordering::SeqCst)
    }

    pub(crate) fn end_read(&self, counter: CounterId, least: i64, shown: i64) {
        let most = self.counters[&counter].begun.load(Ordering::SeqCst);
        if !(least..=most).contains(&shown) {
            let report = format!("counter {counter:?} showed {shown}, not {least} to {most}");
            self.stale.lock().unwrap_or_else(PoisonError::into_inner).push(report);
        }
        self.ops.lock().unwrap_or_else(PoisonError::into_inner).count += 1;
    }

    /// Counts an operation as acknowledged that somebody else has carried out: for planting faults.
    pub fn acknowledge(&self, bucket: i32, seq: i64) {
        let mut ops = self.ops.lock().unwrap_or_else(PoisonError::into_inner);
        ops.present.insert((bucket, seq));
    }

    /// Asks every shard what it holds, once nothing is under way any more.
    ///
    /// # Errors
    /// A database cannot be read.
    pub async fn check(&self, stage: &Stage) -> Result<Verdict, Problem> {
        let (misplaced, owners) = owners(stage).await?;
        let mut counters: BTreeMap<CounterId, i64> = BTreeMap::new();
        let mut found: BTreeSet<OpId> = BTreeSet::new();
        for number in 1..=SHARDS {
            let mut connection = stage.on_shard(number).await?;
            let owned = |bucket: i32| owners.get(&bucket) == Some(&number);
            let rows: Vec<(i32, i32, i64)> =
                sqlx::query_as("SELECT bucket, id, n FROM trial.counter").fetch_all(&mut connection).await?;
            counters.extend(rows.into_iter().filter(|(b, ..)| owned(*b)).map(|(b, id, n)| ((b, id), n)));
            let rows: Vec<OpId> =
                sqlx::query_as("SELECT bucket, seq FROM trial.op").fetch_all(&mut connection).await?;
            found.extend(rows.into_iter().filter(|(bucket, _)| owned(*bucket)));
        }
        let ops = self.ops.lock().unwrap_or_else(PoisonError::into_inner);
        let named = |ids: Vec<&OpId>| ids.iter().map(|id| format!("{id:?}")).collect();
        let ghost = |id: &&OpId| !ops.present.contains(*id) && !ops.unknown.contains(*id);
        Ok(Verdict {
            operations: ops.count,
            lost: named(ops.present.difference(&found).collect()),
            ghosts: named(found.iter().filter(ghost).collect()),
            miscounted: self.miscounted(&counters),
            stale_reads: self.stale.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            misplaced,
        })
    }

    fn miscounted(&self, found: &BTreeMap<CounterId, i64>) -> Vec<String> {
        let wrong = self.counters.iter().filter_map(|(id, bounds)| {
            let least = bounds.acknowledged.load(Ordering::SeqCst);
            let most = bounds.begun.load(Ordering::SeqCst);
            let n = found.get(id).copied();
            let right = n.is_some_and(|n| (least..=most).contains(&n));
            (!right).then(|| format!("counter {id:?} is {n:?}, not {least} to {most}"))
        });
        wrong.collect()
    }
}

/// Who owns what according to the shards, and where that is not one, or not the directory's.
async fn owners(stage: &Stage) -> Result<(Vec<String>, BTreeMap<i32, u16>), Problem> {
    let mut active: BTreeMap<i32, Vec<(u16, i64)>> = BTreeMap::new();
    for number in 1..=SHARDS {
        let mut connection = stage.on_shard(number).await?;
        let sql = "SELECT bucket, epoch FROM meta.bucket_owner WHERE state = 'A'";
        let rows: Vec<(i32, i64)> = sqlx::query_as(sql).fetch_all(&mut connection).await?;
        for (bucket, epoch) in rows {
            active.entry(bucket).or_default().push((number, epoch));
        }
    }
    let sql = "SELECT bucket, shard_id, epoch FROM directory.bucket_map ORDER BY bucket";
    let map: Vec<(i32, i16, i64)> = sqlx::query_as(sql).fetch_all(&mut stage.on_directory().await?).await?;
    let mut misplaced = Vec::new();
    let mut owners = BTreeMap::new();
    for (bucket, shard, epoch) in map {
        let number = u16::try_from(shard)?;
        owners.insert(bucket, number);
        let told = active.get(&bucket).cloned().unwrap_or_default();
        if told != [(number, epoch)] {
            misplaced.push(format!("bucket {bucket}: directory says {number}@{epoch}, active on {told:?}"));
        }
    }
    Ok((misplaced, owners))
}
