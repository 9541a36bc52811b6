//! An open loop: operations begin on a schedule, whether or not earlier ones have ended, and latency counts from the
//! moment at which an operation was due.

use crate::history::History;
use crate::operation::{Kind, Outcome, carry_out};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shard_router::Router;
use shard_router::shard_key::Bucket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::{JoinHandle, JoinSet};

/// One operation for the report.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When it was due, since the load began.
    pub at: Duration,
    /// From then to its answer.
    pub took: Duration,
    /// A node would have answered 503.
    pub failed: bool,
    /// Its bucket.
    pub bucket: i32,
}

/// A load that is running.
pub struct Load {
    ending: Arc<AtomicBool>,
    samples: Arc<Mutex<Vec<Sample>>>,
    started: Instant,
    driver: JoinHandle<()>,
}

/// What a load has seen.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// Every operation, in the order of their ends.
    pub samples: Vec<Sample>,
}

impl LoadReport {
    /// Operations that a node would have answered with 503.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.samples.iter().filter(|sample| sample.failed).count()
    }

    /// The time that a share of the operations did not exceed, in those that were due within `window`.
    #[must_use]
    pub fn quantile(&self, share: f64, window: std::ops::Range<Duration>) -> Duration {
        let mut times: Vec<Duration> =
            self.samples.iter().filter(|s| window.contains(&s.at)).map(|s| s.took).collect();
        times.sort_unstable();
        let place = (times.len() as f64 * share) as usize;
        times.get(place.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

impl Load {
    /// Begins: `rate` operations a second over the buckets and counters of `history`, through these routers in turn.
    #[must_use]
    pub fn start(
        routers: Vec<Router>,
        history: Arc<History>,
        buckets: std::ops::Range<i32>,
        counters: i32,
        (rate, seed): (f64, u64),
    ) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let samples = Arc::new(Mutex::new(Vec::new()));
        let started = Instant::now();
        let driver = tokio::spawn({
            let (ending, samples) = (Arc::clone(&ending), Arc::clone(&samples));
            async move {
                let mut random = StdRng::seed_from_u64(seed);
                let mut running = JoinSet::new();
                let mut due = Duration::ZERO;
                // Every load numbers its operations apart from all others.
                let mut number = i64::try_from(seed & 0x3FFF_FFFF).expect("30 bits") << 32;
                while !ending.load(Ordering::Relaxed) {
                    due += Duration::from_secs_f64(-random.random::<f64>().max(1e-9).ln() / rate);
                    tokio::time::sleep_until((started + due).into()).await;
                    number += 1;
                    let bucket = random.random_range(buckets.clone());
                    let id = random.random_range(1..=counters);
                    let choice = random.random_range(0..10);
                    let router = routers[usize::try_from(number).expect("positive") % routers.len()].clone();
                    let (history, samples) = (Arc::clone(&history), Arc::clone(&samples));
                    running.spawn(async move {
                        let outcome = one(&router, &history, (bucket, id, number), choice).await;
                        let took = (started + due).elapsed();
                        let sample = Sample { at: due, took, failed: outcome.failed, bucket };
                        samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
                    });
                    while running.try_join_next().is_some() {}
                }
                while running.join_next().await.is_some() {}
            }
        });
        Self { ending, samples, started, driver }
    }

    /// Time since it began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// How many operations have ended so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How many operations on these buckets were due after a moment and have succeeded.
    #[must_use]
    pub fn well_since(&self, moment: Duration, buckets: &std::ops::RangeInclusive<i32>) -> usize {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.iter().filter(|s| s.at >= moment && !s.failed && buckets.contains(&s.bucket)).count()
    }

    /// When it began: samples count from here.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.started
    }

    /// The operations that have ended, without the first `seen` of them.
    #[must_use]
    pub fn since(&self, seen: usize) -> Vec<Sample> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).get(seen..).unwrap_or_default().to_vec()
    }

    /// Begins nothing more, and waits for what is under way.
    ///
    /// # Errors
    /// The load itself broke.
    pub async fn stop(self) -> Result<LoadReport, crate::Problem> {
        self.ending.store(true, Ordering::Relaxed);
        self.driver.await?;
        let samples = std::mem::take(&mut *self.samples.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(LoadReport { samples })
    }
}

async fn one(
    router: &Router,
    history: &History,
    (bucket, id, number): (i32, i32, i64),
    choice: u32,
) -> Outcome {
    let place = Bucket::try_from(bucket).expect("the load stays within the buckets");
    let counter = (bucket, id);
    let removed = if choice == 0 { history.begin_remove(bucket, number) } else { None };
    if let Some(op) = removed {
        let outcome = carry_out(router, place, Kind::Remove { seq: op.1 }).await;
        history.end_remove(op, outcome.answer.is_some());
        return outcome;
    }
    if choice <= 4 {
        let least = history.begin_read(counter);
        let outcome = carry_out(router, place, Kind::Read { id }).await;
        if let Some(shown) = outcome.answer {
            history.end_read(counter, least, shown);
        }
        return outcome;
    }
    history.begin_add(counter);
    let outcome = carry_out(router, place, Kind::Add { seq: number, id }).await;
    if outcome.answer == Some(crate::operation::MISSING) {
        history.end_read(counter, 0, crate::operation::MISSING);
    }
    history.end_add(counter, (bucket, number), outcome.answer.is_some_and(|answer| answer >= 0));
    outcome
}
