//! The first placement: who gets which buckets when a cluster is born. The result is written down in the
//! directory and is data from then on; nothing computes ownership at run time.

use crate::map::ShardId;
use shard_key::Bucket;

/// Contiguous ranges in the order of the shards, as even as weights allow. Empty if no shard has weight.
///
/// Ranges and not a hash ring: identifiers are already spread evenly over buckets, and moves, logical
/// replication filters and people all like `bucket BETWEEN lo AND hi`.
#[must_use]
pub fn first_placement(shards: &[(ShardId, u32)]) -> Vec<ShardId> {
    let total: u64 = shards.iter().map(|(_, weight)| u64::from(*weight)).sum();
    if total == 0 {
        return Vec::new();
    }
    let mut owners = Vec::with_capacity(Bucket::COUNT);
    let mut weight_so_far = 0;
    for (shard, weight) in shards {
        weight_so_far += u64::from(*weight);
        let end = (Bucket::COUNT as u64 * weight_so_far / total) as usize;
        owners.resize(end, *shard);
    }
    owners
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_bucket_has_an_owner_and_shares_follow_weights(weights in prop::collection::vec(0..50_u32, 1..40)) {
            let shards: Vec<_> = (1_i16..).zip(&weights).map(|(id, w)| (ShardId::new(id).unwrap(), *w)).collect();
            let owners = first_placement(&shards);
            let total: u32 = weights.iter().sum();
            prop_assert_eq!(owners.len(), if total == 0 { 0 } else { Bucket::COUNT });
            prop_assert!(owners.is_sorted());
            for (shard, weight) in shards.iter().filter(|_| total > 0) {
                let got = owners.iter().filter(|owner| *owner == shard).count() as f64;
                let fair = Bucket::COUNT as f64 * f64::from(*weight) / f64::from(total);
                prop_assert!((got - fair).abs() <= 1.0, "{got} for {fair}");
            }
        }
    }
}
