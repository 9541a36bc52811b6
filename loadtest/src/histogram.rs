//! Counts of durations, in buckets that grow with the value: exact below 128 µs, at most 1.6 % wide above. Small enough
//! to keep one a second and a call for a whole run.
use std::time::Duration;

/// Each power of two is split into `1 << SUB_BITS` buckets.
const SUB_BITS: u32 = 6;
/// What takes longer is counted as this. It bounds the size of a histogram (2,000 buckets).
const LIMIT_US: u64 = 3_600_000_000;

/// How often each duration was seen.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    counts: Vec<u32>,
    total: u64,
    max_us: u64,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(LIMIT_US).min(LIMIT_US);
        let index = index(us);
        if index >= self.counts.len() {
            self.counts.resize(index + 1, 0);
        }
        self.counts[index] = self.counts[index].saturating_add(1);
        self.total += 1;
        self.max_us = self.max_us.max(us);
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine = mine.saturating_add(*theirs);
        }
        self.total += other.total;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// How many were counted.
    pub fn len(&self) -> u64 {
        self.total
    }

    /// Whether none was counted.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The longest, exactly; zero if there is none.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max_us)
    }

    /// The duration that the share `quantile` (0 to 1) did not exceed: the upper end of its bucket, so never too good.
    /// `None` if nothing was counted.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        if self.is_empty() {
            return None;
        }
        let rank = ((self.total as f64 * quantile.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank {
                return Some(Duration::from_micros(upper_end(index).min(self.max_us)));
            }
        }
        Some(self.max())
    }
}

fn index(us: u64) -> usize {
    let bits = (63 - us.max(1).leading_zeros()).saturating_sub(SUB_BITS);
    ((u64::from(bits) << SUB_BITS) + (us >> bits)) as usize
}

/// The largest value of a bucket.
fn upper_end(index: usize) -> u64 {
    let index = index as u64;
    let bits = (index >> SUB_BITS).saturating_sub(1);
    let lowest = (index - (bits << SUB_BITS)) << bits;
    lowest + (1 << bits) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        values.into_iter().for_each(|us| histogram.record(Duration::from_micros(us)));
        histogram
    }

    #[test]
    fn buckets_follow_each_other_without_gap_and_stay_narrow() {
        let mut before = None;
        for us in (0..5_000).chain((5_000..LIMIT_US).step_by(98_765)) {
            let at = index(us);
            assert!(us <= upper_end(at), "{us} lies in its bucket");
            assert!(at == 0 || us > upper_end(at - 1), "{us} lies in no earlier one");
            assert!(upper_end(at) - us <= us / 63, "{us}: {}", upper_end(at));
            assert!(before.is_none_or(|before| at >= before));
            before = Some(at);
        }
        assert!(index(LIMIT_US) < 2_000);
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_list() {
        let histogram = of(1..=100);
        let at = |q| histogram.quantile(q).expect("not empty").as_micros();
        assert_eq!((at(0.0), at(0.5), at(0.95), at(0.99), at(1.0)), (1, 50, 95, 99, 100));
        assert_eq!(of([]).quantile(0.5), None);
        assert_eq!(of([7]).quantile(0.01), Some(Duration::from_micros(7)));
    }

    #[test]
    fn a_quantile_is_never_better_than_the_truth_nor_worse_than_the_longest() {
        let histogram = of((1..=1_000).map(|n| n * 997));
        for percent in 1..=100_u64 {
            let truth = percent * 10 * 997;
            let told = histogram.quantile(percent as f64 / 100.0).expect("not empty").as_micros() as u64;
            assert!(told >= truth && told <= truth + truth / 60 && told <= 997_000, "{percent}: {told}");
        }
    }

    #[test]
    fn merged_is_as_if_recorded_in_one() {
        let mut left = of([1, 200, 3_000]);
        left.merge(&of([40_000, 5]));
        let whole = of([1, 5, 200, 3_000, 40_000]);
        assert_eq!((left.len(), left.max()), (5, whole.max()));
        for q in [0.1, 0.3, 0.5, 0.7, 0.9, 1.0] {
            assert_eq!(left.quantile(q), whole.quantile(q));
        }
    }

    #[test]
    fn what_lasts_for_ever_is_counted_too() {
        let histogram = of([u64::MAX, 1]);
        assert_eq!((histogram.len(), histogram.max()), (2, Duration::from_micros(LIMIT_US)));
    }
}
