//! Whether this node's clock may be believed: it decides when tokens begin and end, and which key signs.
//!
//! It is compared with the clocks of the shards' primaries. Each reading is a range, since the answer was under way; the
//! offset that counts is the smallest that the range allows, so that a slow network is no wrong clock. Over all shards the
//! median decides: one database with a wrong clock stops nobody.
//!
//! Beyond [`STOP_SIGNING`] nothing is granted (503); beyond [`DRAIN`] the node also says that it is not ready.
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use chrono::{DateTime, Duration, Utc};

use crate::ports::Clock;

/// As far as the rest of the system allows for (how long copies are believed, replay windows, leeway).
pub const STOP_SIGNING: Duration = Duration::seconds(5);
/// The leeway of tokens: beyond it they are refused elsewhere, or live too long.
pub const DRAIN: Duration = Duration::seconds(30);

/// Between which instants another clock stands now.
pub type Reading = (DateTime<Utc>, DateTime<Utc>);

/// What may be done by this clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockState {
    /// Everything.
    Good,
    /// No token may be made.
    NoSigning,
    /// Nor should anybody ask here.
    Drain,
}

/// Watches this node's clock. Believes it until shown otherwise; without readings the last judgement stands.
pub struct ClockGuard {
    clock: Arc<dyn Clock>,
    state: AtomicU8,
}

impl ClockGuard {
    /// Over the clock that the node goes by.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: AtomicU8::new(ClockState::Good as u8) }
    }

    /// The judgement that stands.
    pub fn state(&self) -> ClockState {
        match self.state.load(Ordering::Relaxed) {
            0 => ClockState::Good,
            1 => ClockState::NoSigning,
            _ => ClockState::Drain,
        }
    }

    /// Judges by what the databases' clocks say now.
    pub fn observe(&self, readings: &[Reading]) {
        let Some(offset) = median_offset(self.clock.now(), readings) else { return };
        let state = judge(offset);
        let before = self.state.swap(state as u8, Ordering::Relaxed);
        metrics::gauge!("tessera_clock_offset_seconds").set(offset.num_milliseconds() as f64 / 1000.0);
        metrics::gauge!("tessera_clock_state").set(f64::from(state as u8));
        if before == state as u8 {
            return;
        }
        let offset_ms = offset.num_milliseconds();
        match state {
            ClockState::Good => tracing::info!(offset_ms, "the clock is right again"),
            ClockState::NoSigning => tracing::error!(offset_ms, "the clock is off: no token is made by it"),
            ClockState::Drain => tracing::error!(offset_ms, "the clock is far off: this node is not ready"),
        }
    }
}

fn judge(offset: Duration) -> ClockState {
    match offset.abs() {
        far if far > DRAIN => ClockState::Drain,
        off if off > STOP_SIGNING => ClockState::NoSigning,
        _ => ClockState::Good,
    }
}

/// How far `now` is ahead (negative: behind). Of two in the middle the smaller.
fn median_offset(now: DateTime<Utc>, readings: &[Reading]) -> Option<Duration> {
    let mut offsets: Vec<Duration> = readings.iter().map(|reading| offset(now, *reading)).collect();
    offsets.sort();
    let high = offsets.get(offsets.len() / 2).copied()?;
    let low = offsets[(offsets.len() - 1) / 2];
    Some(if low.abs() < high.abs() { low } else { high })
}

/// The smallest that explains the reading.
fn offset(now: DateTime<Utc>, (earliest, latest): Reading) -> Duration {
    if now < earliest {
        now - earliest
    } else if now > latest {
        now - latest
    } else {
        Duration::zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicI64;

    struct Set(AtomicI64);

    impl Clock for Set {
        fn now(&self) -> DateTime<Utc> {
            at(self.0.load(Ordering::Relaxed))
        }
    }

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_700_000_000_000 + ms).unwrap()
    }

    /// Readings of databases whose clocks stand at these milliseconds, asked over a fast network.
    fn fast(ms: &[i64]) -> Vec<Reading> {
        ms.iter().map(|ms| (at(*ms), at(*ms))).collect()
    }

    #[test]
    fn five_seconds_stop_signing_and_thirty_drain_in_both_directions() {
        let clock = Arc::new(Set(AtomicI64::new(0)));
        let guard = ClockGuard::new(clock.clone());
        assert_eq!(guard.state(), ClockState::Good, "believed until shown otherwise");
        for (ms, state) in [
            (5_000, ClockState::Good),
            (5_001, ClockState::NoSigning),
            (-5_001, ClockState::NoSigning),
            (-30_000, ClockState::NoSigning),
            (30_001, ClockState::Drain),
            (-3_600_000, ClockState::Drain),
            (-5_000, ClockState::Good),
        ] {
            clock.0.store(ms, Ordering::Relaxed);
            guard.observe(&fast(&[0, 0, 0]));
            assert_eq!(guard.state(), state, "{ms}");
            guard.observe(&[]);
            assert_eq!(guard.state(), state, "nobody to compare with: it stands");
        }
    }

    #[test]
    fn one_database_with_a_wrong_clock_stops_nobody() {
        let offset = |readings: &[i64]| median_offset(at(0), &fast(readings)).map(|o| o.num_milliseconds());
        assert_eq!(offset(&[]), None);
        assert_eq!(offset(&[-9_000]), Some(9_000));
        assert_eq!(offset(&[0, 3_600_000, 100]), Some(-100));
        assert_eq!(offset(&[3_600_000, 0]), Some(0), "of two, one must be wrong: perhaps that one");
        assert_eq!(offset(&[8_000, 9_000]), Some(-8_000));
        assert_eq!(offset(&[0, 0, 9_000, 9_000]), Some(0));
        assert_eq!(offset(&[9_000, 9_000, 9_000, 0]), Some(-9_000));
    }

    #[test]
    fn a_slow_answer_is_no_wrong_clock() {
        // Asked at 0, answered at 8 s: the other clock may have stood anywhere between.
        let slow = (at(-2_000), at(6_000));
        assert_eq!(offset(at(0), slow), Duration::zero());
        assert_eq!(offset(at(6_500), slow).num_milliseconds(), 500);
        assert_eq!(offset(at(-2_500), slow).num_milliseconds(), -500);
    }
}
