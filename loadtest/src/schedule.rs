//! When requests are due in an open loop: decided before the run and not by how fast the target answers.
use std::time::Duration;

use clap::ValueEnum;

/// How arrivals follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Arrivals {
    /// At random, as strangers come: independent of each other, with bursts and gaps.
    Poisson,
    /// At equal distances.
    Fixed,
}

/// Moments since the start, in order, until the time or the number is used up. The same seed gives the same moments.
#[derive(Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    rate_per_s: f64,
    length: Duration,
    left: u64,
    count: u64,
    at_s: f64,
    random: Random,
}

impl Schedule {
    /// `rate_per_s` on average for `length`, at most `most` in all.
    pub fn new(arrivals: Arrivals, rate_per_s: f64, length: Duration, most: u64, seed: u64) -> Self {
        Self { arrivals, rate_per_s, length, left: most, count: 0, at_s: 0.0, random: Random::new(seed) }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        self.at_s = match self.arrivals {
            Arrivals::Poisson => self.at_s - (1.0 - self.random.unit()).ln() / self.rate_per_s,
            // Multiplied, not added up, so that no error grows.
            Arrivals::Fixed => self.count as f64 / self.rate_per_s,
        };
        self.count += 1;
        Some(Duration::from_secs_f64(self.at_s)).filter(|at| *at < self.length)
    }
}

/// SplitMix64: repeatable and good enough to draw arrivals; not for secrets.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Evenly from 0 to below 1.
    pub fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Evenly from 0 to below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: u64 = u64::MAX;

    fn gaps(schedule: Schedule) -> Vec<f64> {
        let moments: Vec<f64> = schedule.map(|at| at.as_secs_f64()).collect();
        moments.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    #[test]
    fn fixed_arrivals_are_equally_far_apart_and_exactly_as_many_as_asked_for() {
        let schedule = Schedule::new(Arrivals::Fixed, 300.0, Duration::from_secs(10), MANY, 1);
        let moments: Vec<Duration> = schedule.collect();
        assert_eq!((moments.len(), moments[0]), (3_000, Duration::ZERO));
        let gaps = gaps(Schedule::new(Arrivals::Fixed, 300.0, Duration::from_secs(10), MANY, 1));
        assert!(gaps.iter().all(|gap| (gap - 1.0 / 300.0).abs() < 1e-6));
    }

    #[test]
    fn poisson_arrivals_have_the_mean_and_the_spread_of_an_exponential_gap() {
        let gaps = gaps(Schedule::new(Arrivals::Poisson, 50.0, Duration::from_secs(2_000), MANY, 7));
        let n = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / n;
        let spread = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / n).sqrt();
        assert!((n / 100_000.0 - 1.0).abs() < 0.01, "{n} arrivals");
        assert!((mean * 50.0 - 1.0).abs() < 0.01, "mean {mean}");
        assert!((spread / mean - 1.0).abs() < 0.02, "spread {spread}");
        let longer = gaps.iter().filter(|gap| **gap > 2.0 / 50.0).count() as f64 / n;
        assert!((longer - (-2.0_f64).exp()).abs() < 0.005, "{longer} of the gaps are over twice the mean");
    }

    #[test]
    fn moments_never_go_back_and_end_with_the_run_or_its_number() {
        let schedule = Schedule::new(Arrivals::Poisson, 1_000.0, Duration::from_secs(3), MANY, 3);
        let moments: Vec<Duration> = schedule.collect();
        assert!(moments.is_sorted() && moments.iter().all(|at| *at < Duration::from_secs(3)));
        let bounded = Schedule::new(Arrivals::Poisson, 1_000.0, Duration::from_secs(3), 10, 3);
        assert_eq!(bounded.collect::<Vec<_>>(), moments[..10]);
    }

    #[test]
    fn another_seed_is_another_run() {
        let of = |seed| Schedule::new(Arrivals::Poisson, 10.0, Duration::from_secs(9), MANY, seed).next();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
