//! What happened, counted while it happens: by call for the tables, by slice of time for the plots.
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::histogram::Histogram;

/// A plot has at most so many points; when a run gets longer, its slices become twice as wide.
const SLICES: usize = 180;
const SHORTEST_SLICE: Duration = Duration::from_secs(1);
/// An end that is later than this is counted as if it came then.
const LONGEST_RUN: Duration = Duration::from_secs(2 * 3_600);
/// Requests of which every single one is remembered, from the first on.
const REMEMBERED: usize = 1_000_000;

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

impl Slice {
    fn merge(&mut self, later: &Self) {
        self.due += later.due;
        self.dropped += later.dropped;
        self.good += later.good;
        later.errors.iter().for_each(|(outcome, n)| *self.errors.entry(*outcome).or_default() += n);
        later.latency.iter().for_each(|(series, more)| {
            self.latency.entry(*series).or_default().merge(more);
        });
        self.in_flight = self.in_flight.max(later.in_flight);
    }
}

/// One request, as it is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// When it was due, in µs since the start.
    pub due_us: u64,
    /// From then to its end, in µs.
    pub latency_us: u32,
    /// What was asked for.
    pub call: &'static str,
    /// How it ended.
    pub outcome: Outcome,
}

impl Request {
    /// Whether it was on its way at any time from `from` to `until`.
    pub fn meets(&self, from: Duration, until: Duration) -> bool {
        let due = Duration::from_micros(self.due_us);
        due <= until && due + self.latency() >= from
    }

    /// From when it was due to its end.
    pub fn latency(&self) -> Duration {
        Duration::from_micros(self.latency_us.into())
    }
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
    /// Every request in the order of its end; of a very long run, the first ones.
    pub requests: Vec<Request>,
}

impl Tally {
    /// Two slices become one.
    fn widen(&mut self) {
        self.slice *= 2;
        let pairs = std::mem::take(&mut self.slices);
        self.slices = pairs
            .chunks(2)
            .map(|pair| {
                let mut merged = pair[0].clone();
                pair[1..].iter().for_each(|later| merged.merge(later));
                merged
            })
            .collect();
    }

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
    tally: Mutex<Tally>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// For a run that starts now.
    pub fn new() -> Self {
        let tally = Tally {
            slice: SHORTEST_SLICE,
            slices: Vec::new(),
            series: BTreeMap::new(),
            lateness: Histogram::default(),
            requests: Vec::new(),
        };
        Self { start: Instant::now(), tally: Mutex::new(tally) }
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
        self.remember(&mut tally, sample, latency);
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

    fn remember(&self, tally: &mut Tally, sample: &Sample, latency: Duration) {
        if tally.requests.len() < REMEMBERED {
            let due = sample.due.saturating_duration_since(self.start);
            tally.requests.push(Request {
                due_us: u64::try_from(due.as_micros()).unwrap_or(u64::MAX),
                latency_us: u32::try_from(latency.as_micros()).unwrap_or(u32::MAX),
                call: sample.series.call,
                outcome: sample.outcome,
            });
        }
    }

    fn slice_at<'a>(&self, tally: &'a mut Tally, at: Instant) -> &'a mut Slice {
        let since = at.saturating_duration_since(self.start).min(LONGEST_RUN).as_secs_f64();
        while since >= tally.slice.as_secs_f64() * SLICES as f64 {
            tally.widen();
        }
        let index = (since / tally.slice.as_secs_f64()) as usize;
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
        let recorder = Recorder::new();
        recorder.record(&sample(&recorder, 100, 400, 5, Outcome::Good));
        let totals = recorder.tally().total();
        assert_eq!(totals.latency.max(), Duration::from_millis(405));
        assert_eq!(totals.service.max(), Duration::from_millis(5));
        assert_eq!(recorder.tally().lateness.max(), Duration::from_millis(400));
    }

    #[test]
    fn latency_belongs_to_the_second_of_the_arrival_and_the_answer_to_its_own() {
        let recorder = Recorder::new();
        recorder.record(&sample(&recorder, 900, 0, 2_300, Outcome::Good));
        recorder.record(&sample(&recorder, 900, 0, 2_300, Outcome::Status(503)));
        let tally = recorder.tally();
        assert_eq!(tally.slices.len(), 4);
        assert_eq!((tally.slices[0].latency[&CHECK].len(), tally.slices[0].good), (1, 0));
        assert_eq!((tally.slices[3].good, tally.slices[3].errors[&Outcome::Status(503)]), (1, 1));
        assert_eq!((tally.total().latency.len(), tally.total().failed()), (1, 1));
    }

    #[test]
    fn slices_become_wider_as_a_run_goes_on_and_lose_nothing() {
        let recorder = Recorder::new();
        for second in 0..400 {
            recorder.arrived(recorder.start() + Duration::from_secs(second), second != 7, second);
            recorder.record(&sample(&recorder, second * 1_000, 0, 10, Outcome::Good));
            recorder.record(&sample(&recorder, second * 1_000, 0, 10, Outcome::Status(503)));
        }
        let tally = recorder.tally();
        assert_eq!((tally.slice.as_secs(), tally.slices.len()), (4, 100));
        assert_eq!(tally.arrivals(), (400, 1));
        assert!(tally.slices.iter().all(|slice| slice.good == 4 && slice.errors[&Outcome::Status(503)] == 4));
        assert!(tally.slices.iter().all(|slice| slice.due == 4 && slice.latency[&CHECK].len() == 4));
        assert_eq!(tally.slices[1].in_flight, 7);
    }

    #[test]
    fn no_end_is_so_late_that_slices_grow_without_limit() {
        let recorder = Recorder::new();
        recorder.arrived(recorder.start() + Duration::from_secs(1_000_000), false, 3);
        let tally = recorder.tally();
        assert!(tally.slices.len() <= SLICES, "{}", tally.slices.len());
        assert_eq!((tally.slice.as_secs(), tally.arrivals()), (64, (1, 1)));
    }

    #[test]
    fn a_request_meets_what_lies_between_its_due_moment_and_its_end() {
        let recorder = Recorder::new();
        recorder.record(&sample(&recorder, 1_000, 10, 40, Outcome::Good));
        let request = recorder.tally().requests[0];
        assert_eq!((request.due_us, request.latency_us), (1_000_000, 50_000));
        let meets = |from, until| request.meets(Duration::from_millis(from), Duration::from_millis(until));
        assert!(meets(900, 1_000) && meets(1_020, 1_030) && meets(1_050, 1_060) && meets(0, 2_000));
        assert!(!meets(900, 999) && !meets(1_051, 1_060));
    }
}
