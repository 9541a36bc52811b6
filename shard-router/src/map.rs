//! Bucket → shard, held whole by every node.
//!
//! Each bucket is one atomic word (16 bits of shard, 48 bits of epoch), so that a look-up is one load and a
//! redirect's hint is one compare-and-swap: buckets are independent, each with its own epoch, and there is
//! no moment at which the map as a whole must change at once. An epoch never falls (ARCHITECTURE, invariant 14).

use serde::{Deserialize, Serialize};
use shard_key::Bucket;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

const EPOCH_BITS: u32 = 48;
/// The largest epoch there can be; the databases check the same bound.
pub const MAX_EPOCH: i64 = (1 << EPOCH_BITS) - 1;

/// A shard's number, from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i16", into = "i16")]
pub struct ShardId(i16);

impl ShardId {
    /// The shard of that number, or `None` below 1.
    #[must_use]
    pub const fn new(id: i16) -> Option<Self> {
        if id >= 1 { Some(Self(id)) } else { None }
    }

    /// Its number, as stored in `shard_id smallint`.
    #[must_use]
    pub const fn get(self) -> i16 {
        self.0
    }
}

impl TryFrom<i16> for ShardId {
    type Error = String;

    fn try_from(id: i16) -> Result<Self, String> {
        Self::new(id).ok_or_else(|| format!("{id} is no shard id"))
    }
}

impl From<ShardId> for i16 {
    fn from(id: ShardId) -> Self {
        id.0
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a bucket lives, and since which change of owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The owner.
    pub shard: ShardId,
    /// Grows by at least one with every change of owner.
    pub epoch: i64,
}

/// What a shard says about a bucket that it gave away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The new owner.
    pub to: ShardId,
    /// The epoch of that ownership.
    pub epoch: i64,
}

/// The whole map. Safe at any age: a wrong entry costs a redirect, never a wrong answer.
pub struct BucketMap(Box<[AtomicU64]>);

impl BucketMap {
    /// The map of these placements, or `None` unless there is exactly one for every bucket with a sound epoch.
    #[must_use]
    pub fn new(placements: &[Placement]) -> Option<Self> {
        if placements.len() != Bucket::COUNT {
            return None;
        }
        placements.iter().map(|p| pack(*p).map(AtomicU64::new)).collect::<Option<Box<[_]>>>().map(Self)
    }

    /// The owner, as far as this node knows. One load.
    #[must_use]
    pub fn place(&self, bucket: Bucket) -> Placement {
        unpack(self.0[bucket.index()].load(Ordering::Acquire))
    }

    /// Takes a shard's word for one bucket if it is newer than ours, and says whether it was.
    pub fn apply_hint(&self, bucket: Bucket, hint: Hint) -> bool {
        self.raise(bucket, Placement { shard: hint.to, epoch: hint.epoch }, |held, offered| offered > held)
    }

    /// Takes the directory's word for every bucket unless ours is newer: a shard may have told us of a
    /// change before the directory's poll did. Returns how many entries changed.
    pub fn merge(&self, placements: &[Placement]) -> usize {
        Bucket::all()
            .zip(placements)
            .filter(|(bucket, p)| {
                self.place(*bucket) != **p && self.raise(*bucket, **p, |held, offered| offered >= held)
            })
            .count()
    }

    fn raise(&self, bucket: Bucket, placement: Placement, wins: impl Fn(i64, i64) -> bool) -> bool {
        let Some(word) = pack(placement) else { return false };
        self.0[bucket.index()]
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
                wins(unpack(held).epoch, placement.epoch).then_some(word)
            })
            .is_ok()
    }
}

impl fmt::Debug for BucketMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketMap").finish_non_exhaustive()
    }
}

fn pack(placement: Placement) -> Option<u64> {
    let epoch = u64::try_from(placement.epoch).ok().filter(|_| placement.epoch <= MAX_EPOCH)?;
    let shard = u64::try_from(placement.shard.get()).ok()?;
    Some(shard << EPOCH_BITS | epoch)
}

fn unpack(word: u64) -> Placement {
    let shard = i16::try_from(word >> EPOCH_BITS).expect("packed from a shard id, 15 bits");
    let epoch = i64::try_from(word & ((1 << EPOCH_BITS) - 1)).expect("48 bits");
    Placement { shard: ShardId(shard), epoch }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shard(id: i16) -> ShardId {
        ShardId::new(id).unwrap()
    }

    fn map_at(epoch: i64) -> BucketMap {
        BucketMap::new(&vec![Placement { shard: shard(1), epoch }; Bucket::COUNT]).unwrap()
    }

    #[test]
    fn a_map_has_every_bucket_and_sound_epochs() {
        let good = Placement { shard: shard(1), epoch: 1 };
        assert!(BucketMap::new(&vec![good; Bucket::COUNT - 1]).is_none());
        assert!(BucketMap::new(&vec![Placement { epoch: MAX_EPOCH + 1, ..good }; Bucket::COUNT]).is_none());
        assert!(BucketMap::new(&vec![Placement { epoch: -1, ..good }; Bucket::COUNT]).is_none());
    }

    #[test]
    fn merging_keeps_what_a_shard_told_us_first() {
        let map = map_at(1);
        let moved = Bucket::new(5).unwrap();
        assert!(map.apply_hint(moved, Hint { to: shard(2), epoch: 2 }));
        assert_eq!(map.merge(&vec![Placement { shard: shard(1), epoch: 1 }; Bucket::COUNT]), 0);
        assert_eq!(map.place(moved).shard, shard(2));
        assert_eq!(map.merge(&vec![Placement { shard: shard(3), epoch: 2 }; Bucket::COUNT]), Bucket::COUNT);
        assert_eq!(map.place(moved).shard, shard(3));
    }

    proptest! {
        #[test]
        fn packing_round_trips(id in 1..i16::MAX, epoch in 0..=MAX_EPOCH) {
            let placement = Placement { shard: shard(id), epoch };
            prop_assert_eq!(unpack(pack(placement).unwrap()), placement);
        }

        /// Hints in any order, repeated or not: the newest stands, and no epoch ever falls.
        #[test]
        fn hints_are_monotone(start in 0..9_i64, hints in prop::collection::vec((0..4_u16, 1..5_i16, -1..12_i64), 0..40)) {
            let map = map_at(start);
            for (bucket, to, epoch) in hints {
                let bucket = Bucket::new(bucket).unwrap();
                let before = map.place(bucket);
                let taken = map.apply_hint(bucket, Hint { to: shard(to), epoch });
                let after = map.place(bucket);
                prop_assert_eq!(taken, epoch > before.epoch);
                prop_assert_eq!(after, if taken { Placement { shard: shard(to), epoch } } else { before });
            }
        }
    }
}
