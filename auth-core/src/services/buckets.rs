//! Token buckets in the memory of one node, of bounded number.
//!
//! A bucket is one instant (the generic cell rate algorithm): `limit` at once, then one each `window / limit`. Buckets
//! live in two generations; when the younger one is full it becomes the older one, and what was there is forgotten. So
//! the memory is bounded, nothing is swept, and a bucket is lost only after that many others were used since.
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::{LimitRule, Standing};

/// Buckets of one rule, by 128 bits of whatever they are for.
pub(super) struct Buckets {
    rule: LimitRule,
    per_generation: usize,
    held: Mutex<Generations>,
}

/// When each bucket is full again.
#[derive(Default)]
struct Generations {
    young: HashMap<u128, Instant>,
    old: HashMap<u128, Instant>,
}

impl Buckets {
    pub fn new(rule: LimitRule, most: usize) -> Self {
        Self { rule, per_generation: (most / 2).max(1), held: Mutex::default() }
    }

    /// Takes one token. `now` is monotonic.
    pub fn take(&self, key: u128, now: Instant) -> Standing {
        let LimitRule { limit, window, .. } = self.rule;
        let one = window / limit.max(1);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = held.young.get(&key).or_else(|| held.old.get(&key)).copied().unwrap_or(now).max(now);
        let debt = full_at - now;
        if debt + one > window {
            return self.standing(false, 0, debt + one - window);
        }
        if held.young.len() >= self.per_generation && !held.young.contains_key(&key) {
            held.old = std::mem::take(&mut held.young);
        }
        held.young.insert(key, full_at + one);
        drop(held);
        let left = ((window - debt - one).as_nanos() / one.as_nanos().max(1)).try_into().unwrap_or(u32::MAX);
        self.standing(true, left, one)
    }

    fn standing(&self, granted: bool, left: u32, more_in: Duration) -> Standing {
        Standing { rule: self.rule, granted, left, more_in }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(limit: u32, most: usize) -> Buckets {
        Buckets::new(LimitRule { name: "test", limit, window: Duration::from_secs(60) }, most)
    }

    #[test]
    fn as_many_as_the_limit_at_once_then_one_by_one() {
        let (buckets, now) = (buckets(3, 10), Instant::now());
        let left: Vec<_> = (0..3).map(|_| buckets.take(1, now)).map(|s| (s.granted, s.left)).collect();
        assert_eq!(left, [(true, 2), (true, 1), (true, 0)]);
        let refused = buckets.take(1, now);
        assert_eq!((refused.granted, refused.left, refused.more_in), (false, 0, Duration::from_secs(20)));
        assert!(buckets.take(2, now).granted, "another key has a bucket of its own");
        let early = now + Duration::from_secs(19);
        assert_eq!(buckets.take(1, early).more_in, Duration::from_secs(1));
        let later = now + Duration::from_secs(20);
        assert!(buckets.take(1, later).granted);
        assert!(!buckets.take(1, later).granted);
    }

    #[test]
    fn a_limit_that_does_not_divide_its_window_is_still_the_limit() {
        for limit in [1, 7, 13, 97, 100, 333] {
            let (buckets, now) = (buckets(limit, 10), Instant::now());
            let granted = (0..2 * limit).filter(|_| buckets.take(1, now).granted).count();
            assert_eq!(granted, limit as usize);
        }
    }

    #[test]
    fn memory_is_bounded_and_the_latest_are_remembered() {
        let (buckets, now) = (buckets(1, 100), Instant::now());
        for key in 0..10_000 {
            assert!(buckets.take(key, now).granted);
            assert!(!buckets.take(key, now).granted);
            let held = buckets.held.lock().unwrap();
            assert!(held.young.len() + held.old.len() <= 100);
        }
        assert!(!buckets.take(9_951, now).granted, "used within the last fifty");
        assert!(buckets.take(0, now).granted, "forgotten long ago");
    }
}
