//! How much may be tried again: a tenth of all calls, so that an outage is not multiplied by its own retries.
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// One call earns a tenth of a retry.
const EARNED: u32 = 1;
const COST: u32 = 10;
/// What quiet times may save up: ten retries.
const CAP: u32 = 100;

/// Retries that may still be made. Starts full, so that the first hiccup after a start is not fatal.
pub(crate) struct RetryBudget(AtomicU32);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(AtomicU32::new(CAP))
    }
}

impl RetryBudget {
    /// A call was made.
    pub fn earn(&self) {
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| (held < CAP).then_some(held + EARNED));
    }

    /// Takes one retry, if there is one.
    pub fn spend(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| held.checked_sub(COST)).is_ok()
    }
}

/// Between nothing and `most`. Not for secrets: the hasher's seed is good enough to spread callers.
pub(crate) fn jitter(most: Duration) -> Duration {
    let dice = RandomState::new().build_hasher().finish() >> 32;
    most.mul_f64(dice as f64 / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_calls_may_be_tried_again() {
        let budget = RetryBudget::default();
        assert_eq!((0..20).filter(|_| budget.spend()).count(), 10);
        for _ in 0..100 {
            budget.earn();
        }
        assert_eq!((0..20).filter(|_| budget.spend()).count(), 10);
    }

    #[test]
    fn jitter_stays_below_its_bound() {
        for _ in 0..100 {
            assert!(jitter(Duration::from_millis(5)) <= Duration::from_millis(5));
        }
    }
}
