//! Which ranges should move, so that every shard has the share that its weight asks for. As few buckets as possible:
//! a shard that has too many gives exactly its surplus, and nobody else gives anything.

use super::record::BucketRange;
use crate::map::{Placement, ShardId};
use consistent_hash::{DefaultHash, Node, StaticHashRing};
use shard_key::Bucket;
use std::collections::BTreeMap;

/// A range that should change hands. Only a proposal: nothing moves before somebody plans it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Proposal {
    /// The buckets.
    pub range: BucketRange,
    /// Who has them.
    pub from: ShardId,
    /// Who should.
    pub to: ShardId,
}

/// Proposes ranges of at most `chunk` buckets. Weight 0 empties a shard; a shard that is not listed does not exist.
///
/// Who gets which range is said by a hash ring over the shards that lack buckets, so that the same question has the
/// same answer tomorrow, and one more shard changes little of it. The ring proposes; the directory decides.
#[must_use]
pub fn propose(placements: &[Placement], weights: &[(ShardId, u32)], chunk: u16) -> Vec<Proposal> {
    let mut lack = quotas(weights, placements.len());
    for placement in placements {
        *lack.entry(placement.shard).or_default() -= 1;
    }
    let ring = ring(weights);
    let mut proposals = Vec::new();
    for (from, owned) in runs(placements) {
        let surplus = -lack.get(&from).copied().unwrap_or_default();
        let mut surplus = usize::try_from(surplus).unwrap_or_default();
        // From the end of what it has, so that its first buckets stay one run.
        for run in owned.into_iter().rev() {
            for piece in pieces(&run, surplus, usize::from(chunk.max(1))) {
                surplus -= piece.len();
                give(piece, from, &ring, &mut lack, &mut proposals);
            }
        }
    }
    proposals.sort_by_key(|proposal| proposal.range);
    proposals
}

/// Shares by weight, to the bucket, the rest to the largest remainders.
fn quotas(weights: &[(ShardId, u32)], buckets: usize) -> BTreeMap<ShardId, i64> {
    let total: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
    if total == 0 {
        return BTreeMap::new();
    }
    let exact = |weight: u32| u64::from(weight) * buckets as u64;
    let mut order: Vec<_> = weights.iter().filter(|(_, weight)| *weight > 0).collect();
    order.sort_by_key(|(shard, weight)| (std::cmp::Reverse(exact(*weight) % total), *shard));
    let given: u64 = weights.iter().map(|(_, weight)| exact(*weight) / total).sum();
    let rest = buckets as u64 - given;
    let share = |(place, (shard, weight)): (usize, &&(ShardId, u32))| {
        let one_more = u64::from((place as u64) < rest);
        (*shard, i64::try_from(exact(*weight) / total + one_more).expect("at most 16384"))
    };
    order.iter().enumerate().map(share).collect()
}

fn ring(weights: &[(ShardId, u32)]) -> StaticHashRing<'_, ShardId, (), DefaultHash> {
    const POINTS: usize = 64;
    let nodes = weights.iter().map(|(shard, _)| Node::new(*shard).quantity(POINTS));
    StaticHashRing::new(DefaultHash, nodes)
}

/// The contiguous runs of buckets of each shard.
fn runs(placements: &[Placement]) -> BTreeMap<ShardId, Vec<Vec<Bucket>>> {
    let mut runs: BTreeMap<ShardId, Vec<Vec<Bucket>>> = BTreeMap::new();
    let mut before = None;
    for (bucket, placement) in Bucket::all().zip(placements) {
        let owned = runs.entry(placement.shard).or_default();
        match owned.last_mut() {
            Some(run) if before == Some(placement.shard) => run.push(bucket),
            _ => owned.push(vec![bucket]),
        }
        before = Some(placement.shard);
    }
    runs
}

/// The last `count` buckets of a run, cut where a multiple of `chunk` lies, the last piece first.
fn pieces(run: &[Bucket], count: usize, chunk: usize) -> Vec<Vec<Bucket>> {
    let tail = &run[run.len().saturating_sub(count)..];
    let same = |a: &Bucket, b: &Bucket| a.index() / chunk == b.index() / chunk;
    tail.chunk_by(same).rev().map(<[Bucket]>::to_vec).collect()
}

fn give(
    piece: Vec<Bucket>,
    from: ShardId,
    ring: &StaticHashRing<'_, ShardId, (), DefaultHash>,
    lack: &mut BTreeMap<ShardId, i64>,
    proposals: &mut Vec<Proposal>,
) {
    let mut left = piece.as_slice();
    while let Some(first) = left.first() {
        let wants = |shard: &ShardId| lack.get(shard).is_some_and(|lack| *lack > 0);
        let Some(to) = ring.calc_candidates(&first.get()).map(|node| node.key).find(wants) else { return };
        let wanted = lack.get_mut(&to).expect("it wants some");
        let taken = left.len().min(usize::try_from(*wanted).expect("more than none"));
        *wanted -= i64::try_from(taken).expect("at most 16384");
        *lack.entry(from).or_default() += i64::try_from(taken).expect("at most 16384");
        let (now, rest) = left.split_at(taken);
        left = rest;
        let range = BucketRange::new(*first, now[taken - 1]).expect("in order");
        proposals.push(Proposal { range, from, to });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::plan::first_placement;
    use proptest::prelude::*;

    fn shards(weights: &[u32]) -> Vec<(ShardId, u32)> {
        (1_i16..).zip(weights).map(|(id, weight)| (ShardId::new(id).unwrap(), *weight)).collect()
    }

    fn placed(weights: &[u32]) -> Vec<Placement> {
        first_placement(&shards(weights)).into_iter().map(|shard| Placement { shard, epoch: 1 }).collect()
    }

    fn counts(placements: &[Placement]) -> BTreeMap<ShardId, i64> {
        placements.iter().fold(BTreeMap::new(), |mut counts, placement| {
            *counts.entry(placement.shard).or_default() += 1;
            counts
        })
    }

    #[test]
    fn a_fourth_shard_gets_a_quarter_and_nobody_else_anything() {
        let proposals = propose(&placed(&[1, 1, 1]), &shards(&[1, 1, 1, 1]), 64);
        assert!(proposals.iter().all(|p| p.to.get() == 4 && p.range.len() <= 64));
        assert_eq!(proposals.iter().map(|p| p.range.len()).sum::<u64>(), 4096);
    }

    #[test]
    fn a_shard_without_weight_is_emptied() {
        let placements = placed(&[1, 1]);
        let proposals = propose(&placements, &shards(&[1, 0]), 64);
        assert_eq!(proposals.iter().map(|p| p.range.len()).sum::<u64>(), 8192);
        assert!(proposals.iter().all(|p| p.from.get() == 2 && p.to.get() == 1));
        assert!(propose(&placements, &shards(&[1, 1]), 64).is_empty());
        assert!(propose(&placements, &shards(&[0, 0]), 64).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        /// Every shard ends with its share, no bucket moves twice, and no more move than must.
        #[test]
        fn proposals_lead_to_the_shares(
            before in prop::collection::vec(0..5_u32, 1..7),
            after in prop::collection::vec(0..5_u32, 1..7),
            chunk in 1..200_u16,
        ) {
            prop_assume!(before.iter().sum::<u32>() > 0 && after.iter().sum::<u32>() > 0);
            let (mut placements, weights) = (placed(&before), shards(&after));
            let quotas = quotas(&weights, Bucket::COUNT);
            let surplus: i64 = counts(&placements)
                .iter()
                .map(|(shard, count)| (count - quotas.get(shard).copied().unwrap_or(0)).max(0))
                .sum();
            let proposals = propose(&placements, &weights, chunk);
            prop_assert_eq!(proposals.iter().map(|p| p.range.len() as i64).sum::<i64>(), surplus);
            for proposal in &proposals {
                prop_assert!(proposal.range.len() <= u64::from(chunk));
                for bucket in proposal.range.lo()..=proposal.range.hi() {
                    let placement = &mut placements[usize::try_from(bucket).unwrap()];
                    prop_assert_eq!(placement.shard, proposal.from);
                    placement.shard = proposal.to;
                }
            }
            for (shard, quota) in quotas {
                prop_assert_eq!(counts(&placements).get(&shard).copied().unwrap_or(0), quota);
            }
            prop_assert_eq!(propose(&placements, &weights, chunk), vec![]);
        }
    }
}
