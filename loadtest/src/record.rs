//! What happened, counted while it happens: by call for the tables, by slice of time for the plots.
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::histogram::Histogram;
use crate::target::ANSWER_LIMIT;

/// A plot has at most so many points.
const SLICES: u32 = 120;
const SHORTEST_SLICE: Duration = Duration::from_secs(1);

/// Which line of the tables a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// What the virtual user is about.
    pub journey: &'static str,
    /// What it asked for just now.
    pub call: &'static str,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// With the status that a client hopes for.
    Good,
    /// With another one.
    Status(u16),
    /// With the right status and a body that makes no sense.
    Nonsense,
    /// Without an answer in time.
    Timeout,
    /// Without a connection, or with one that broke.
    Connection,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("good"),
            Self::Status(status) => write!(f, "{status}"),
            Self::Nonsense => f.write_str("not understood"),
            Self::Timeout => f.write_str("timeout"),
            Self::Connection => f.write_str("no connection"),
        }
    }
}

impl From<&reqwest::Error> for Outcome {
    fn from(error: &reqwest::Error) -> Self {
        if error.is_timeout() { Self::Timeout } else { Self::Connection }
    }
}

/// One request and its end.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Whose it is.
    pub series: Series,
    /// When it was to start.
    pub due: Instant,
    /// When it did start.
    pub sent: Instant,
    /// When its answer was read whole.
    pub ended: Instant,
    /// How it ended.
    pub outcome: Outcome,
}

/// Counts of one call over the whole run.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// From when it was due to the end, of good answers.
    pub latency: Histogram,
    /// From when it was sent to the end, of good answers.
    pub service: Histogram,
    /// The others, by how they ended.
    pub errors: BTreeMap<Outcome, u64>,
}

impl Totals {
    /// Adds another call's.
    pub fn merge(&mut self, other: &Self) {
        self.latency.merge(&other.latency);
        self.service.merge(&other.service);
        other.errors.iter().for_each(|(outcome, count)| *self.errors.entry(*outcome).or_default() += count);
    }

    /// All answers that were not good.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// Counts of one slice of time.
#[derive(Debug, Clone, Default)]
pub struct Slice {
    /// Arrivals that were due in it.
    pub due: u64,
    /// Of these, those that were not sent.
    pub dropped: u64,
    /// Good answers that came in it.
    pub good: u64,
    /// Other ends that came in it.
    pub errors: BTreeMap<Outcome, u64>,
    /// Latencies of good answers to what was due in it.
    pub latency: BTreeMap<Series, Histogram>,
    /// The most requests that were on their way at once.
    pub in_flight: u64,
}

/// Everything that was counted.
#[derive(Debug, Clone)]
pub struct Tally {
    /// How long a slice is.
    pub slice: Duration,
    /// From the start on, without gaps.
    pub slices: Vec<Slice>,
    /// By call.
    pub series: BTreeMap<Series, Totals>,
    /// How late requests were sent after they were due, of all.
    pub lateness: Histogram,
}

impl Tally {
    /// All calls together.
    pub fn total(&self) -> Totals {
        let mut total = Totals::default();
        self.series.values().for_each(|totals| total.merge(totals));
        total
    }

    /// All calls of one journey together.
    pub fn journey(&self, journey: &str) -> Totals {
        let mut total = Totals::default();
        let of_it = self.series.iter().filter(|(series, _)| series.journey == journey);
        of_it.for_each(|(_, totals)| total.merge(totals));
        total
    }

    /// The journeys that were made, in order.
    pub fn journeys(&self) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = self.series.keys().map(|series| series.journey).collect();
        names.dedup();
        names
    }

    /// Arrivals that were due, and those of them that were not sent.
    pub fn arrivals(&self) -> (u64, u64) {
        self.slices.iter().fold((0, 0), |(due, dropped), slice| (due + slice.due, dropped + slice.dropped))
    }
}

/// Takes samples from many tasks.
#[derive(Debug)]
pub struct Recorder {
    start: Instant,
    most_slices: usize,
    tally: Mutex<Tally>,
}

impl Recorder {
    /// For a run of this length that starts now.
    pub fn new(length: Duration) -> Self {
        let slice = (length / SLICES).max(SHORTEST_SLICE);
        // The last answers may come after the end.
        let most = (length + ANSWER_LIMIT).as_secs_f64() / slice.as_secs_f64();
        let tally =
            Tally { slice, slices: Vec::new(), series: BTreeMap::new(), lateness: Histogram::default() };
        Self { start: Instant::now(), most_slices: most as usize + 2, tally: Mutex::new(tally) }
    }

    /// When the run began.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// Counts a request that ended.
    pub fn record(&self, sample: &Sample) {
        let mut tally = self.lock();
        let latency = sample.ended.saturating_duration_since(sample.due);
        tally.lateness.record(sample.sent.saturating_duration_since(sample.due));
        let totals = tally.series.entry(sample.series).or_default();
        if sample.outcome == Outcome::Good {
            totals.latency.record(latency);
            totals.service.record(sample.ended.saturating_duration_since(sample.sent));
            let due = self.slice_at(&mut tally, sample.due);
            due.latency.entry(sample.series).or_default().record(latency);
            self.slice_at(&mut tally, sample.ended).good += 1;
        } else {
            *totals.errors.entry(sample.outcome).or_default() += 1;
            *self.slice_at(&mut tally, sample.ended).errors.entry(sample.outcome).or_default() += 1;
        }
    }

    /// Counts an arrival, sent or not, and how many are on their way with it.
    pub fn arrived(&self, due: Instant, sent: bool, in_flight: u64) {
        let mut tally = self.lock();
        let slice = self.slice_at(&mut tally, due);
        slice.due += 1;
        slice.dropped += u64::from(!sent);
        slice.in_flight = slice.in_flight.max(in_flight);
    }

    /// How many requests have ended.
    pub fn count(&self) -> u64 {
        self.lock().lateness.len()
    }

    /// What was counted until now.
    pub fn tally(&self) -> Tally {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slice_at<'a>(&self, tally: &'a mut Tally, at: Instant) -> &'a mut Slice {
        let since = at.saturating_duration_since(self.start).as_secs_f64();
        let index = ((since / tally.slice.as_secs_f64()) as usize).min(self.most_slices - 1);
        if index >= tally.slices.len() {
            tally.slices.resize_with(index + 1, Slice::default);
        }
        &mut tally.slices[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECK: Series = Series { journey: "open", call: "verify" };

    fn sample(recorder: &Recorder, due_ms: u64, late_ms: u64, took_ms: u64, outcome: Outcome) -> Sample {
        let due = recorder.start() + Duration::from_millis(due_ms);
        let sent = due + Duration::from_millis(late_ms);
        Sample { series: CHECK, due, sent, ended: sent + Duration::from_millis(took_ms), outcome }
    }

    #[test]
    fn a_late_start_is_part_of_the_latency_and_not_of_the_service() {
        let recorder = Recorder::new(Duration::from_secs(10));
        recorder.record(&sample(&recorder, 100, 400, 5, Outcome::Good));
        let totals = recorder.tally().total();
        assert_eq!(totals.latency.max(), Duration::from_millis(405));
        assert_eq!(totals.service.max(), Duration::from_millis(5));
        assert_eq!(recorder.tally().lateness.max(), Duration::from_millis(400));
    }

    #[test]
    fn latency_belongs_to_the_second_of_the_arrival_and_the_answer_to_its_own() {
        let recorder = Recorder::new(Duration::from_secs(10));
        recorder.record(&sample(&recorder, 900, 0, 2_300, Outcome::Good));
        recorder.record(&sample(&recorder, 900, 0, 2_300, Outcome::Status(503)));
        let tally = recorder.tally();
        assert_eq!(tally.slices.len(), 4);
        assert_eq!((tally.slices[0].latency[&CHECK].len(), tally.slices[0].good), (1, 0));
        assert_eq!((tally.slices[3].good, tally.slices[3].errors[&Outcome::Status(503)]), (1, 1));
        assert_eq!((tally.total().latency.len(), tally.total().failed()), (1, 1));
    }

    #[test]
    fn a_long_run_has_wider_slices_and_no_more_of_them() {
        let recorder = Recorder::new(Duration::from_secs(3_600));
        recorder.arrived(recorder.start() + Duration::from_secs(3_599), true, 1);
        recorder.arrived(recorder.start() + Duration::from_secs(1_000_000), false, 3);
        let tally = recorder.tally();
        assert_eq!((tally.slice.as_secs(), tally.arrivals()), (30, (2, 1)));
        assert!(tally.slices.len() <= 124, "{}", tally.slices.len());
    }
}
