//! How many callers may wait for a fenced bucket.
//!
//! A move's fence lasts tens of milliseconds, but a stuck one must not collect every worker of the node:
//! without a limit, 30 % of the traffic aimed at a stuck range starved the healthy 70 %.

use crate::map::ShardId;
use shard_key::Bucket;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Callers of one node waiting for one bucket.
pub const MAX_WAITERS_PER_BUCKET: u32 = 32;
/// Callers of one node waiting for buckets of one shard.
pub const MAX_WAITERS_PER_SHARD: u32 = 128;

/// Too many wait already: answer 503 with `Retry-After`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many callers wait for this bucket or shard")]
pub struct FenceFull;

#[derive(Debug, Default)]
struct Waiters {
    buckets: HashMap<(ShardId, Bucket), u32>,
    shards: HashMap<ShardId, u32>,
}

/// Counts the waiters of this node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bulkhead(Arc<Mutex<Waiters>>);

/// The right to wait for a fenced bucket. Hold it across the sleeps, not across a connection.
#[derive(Debug)]
pub struct FencePermit {
    bulkhead: Bulkhead,
    shard: ShardId,
    bucket: Bucket,
}

impl Bulkhead {
    pub(crate) fn enter(&self, shard: ShardId, bucket: Bucket) -> Result<FencePermit, FenceFull> {
        let mut waiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_bucket = waiters.buckets.get(&(shard, bucket)).copied().unwrap_or(0);
        let of_shard = waiters.shards.get(&shard).copied().unwrap_or(0);
        if of_bucket >= MAX_WAITERS_PER_BUCKET || of_shard >= MAX_WAITERS_PER_SHARD {
            return Err(FenceFull);
        }
        waiters.buckets.insert((shard, bucket), of_bucket + 1);
        waiters.shards.insert(shard, of_shard + 1);
        Ok(FencePermit { bulkhead: self.clone(), shard, bucket })
    }
}

impl Drop for FencePermit {
    fn drop(&mut self) {
        let mut waiters = self.bulkhead.0.lock().unwrap_or_else(PoisonError::into_inner);
        leave(&mut waiters.buckets, (self.shard, self.bucket));
        leave(&mut waiters.shards, self.shard);
    }
}

fn leave<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: K) {
    if let std::collections::hash_map::Entry::Occupied(mut entry) = counts.entry(key) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_and_a_shard_have_limits_and_permits_come_back() {
        let bulkhead = Bulkhead::default();
        let (shard, other) = (ShardId::new(1).unwrap(), ShardId::new(2).unwrap());
        let bucket = |n| Bucket::new(n).unwrap();
        let mut held: Vec<_> = (0..32).map(|_| bulkhead.enter(shard, bucket(0)).unwrap()).collect();
        assert_eq!(bulkhead.enter(shard, bucket(0)).unwrap_err(), FenceFull);
        held.extend((0..96).map(|n| bulkhead.enter(shard, bucket(1 + n)).unwrap()));
        assert_eq!(bulkhead.enter(shard, bucket(500)).unwrap_err(), FenceFull);
        assert!(bulkhead.enter(other, bucket(500)).is_ok());
        drop(held);
        assert!(bulkhead.enter(shard, bucket(0)).is_ok());
        let waiters = bulkhead.0.lock().unwrap();
        assert!(waiters.buckets.is_empty() && waiters.shards.is_empty());
    }
}
