//! The heartbeats of a shard's primary, and how far a replica is behind by them.
//!
//! A replica that has the newest heartbeat which is old enough to have arrived is not behind; otherwise its lag is the
//! age of the heartbeat it has, by the primary's clock. So an idle primary does not look like a lagging replica, and
//! two machines' clocks are never compared.

use chrono::{DateTime, Utc};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a heartbeat may be under way before a replica is expected to have it.
const SETTLE: Duration = Duration::from_millis(200);
/// How long a reading of the primary's clock is worth something. Ours do not run apart noticeably meanwhile.
const FRESH: Duration = Duration::from_secs(10);

/// The primary's heartbeat at some moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beat {
    pub(crate) beat_at: DateTime<Utc>,
    /// The primary's clock when it was read; that was between these two.
    pub(crate) primary_now: DateTime<Utc>,
    pub(crate) asked: Instant,
    pub(crate) seen: Instant,
}

/// The last two distinct heartbeats of a shard's primary, and the last reading of its clock.
#[derive(Debug, Default)]
pub(crate) struct Beats {
    held: Mutex<(Option<Beat>, Option<Beat>)>,
    clock: Mutex<Option<Beat>>,
}

impl Beats {
    pub(crate) fn saw(&self, beat: Beat) {
        // The clock was read even if the beat is the same.
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some(beat);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.1 {
            Some(latest) if latest.beat_at == beat.beat_at => {}
            latest => *held = (latest, Some(beat)),
        }
    }

    /// Between which instants the primary's clock stands at `now`; `None` if it was not read of late.
    pub(crate) fn primary_clock(&self, now: Instant) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        let Beat { primary_now, asked, seen, .. } =
            (*self.clock.lock().unwrap_or_else(PoisonError::into_inner))?;
        let since = |then: Instant| now.saturating_duration_since(then);
        (since(seen) < FRESH).then(|| (primary_now + since(seen), primary_now + since(asked)))
    }

    /// How far a replica with this heartbeat is behind, or `None` while nothing is known of the primary.
    pub(crate) fn lag_of(&self, replica_beat_at: DateTime<Utc>, now: Instant) -> Option<Duration> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = |beat: &Beat| now.saturating_duration_since(beat.seen) >= SETTLE;
        let expected = held.1.filter(settled).or(held.0).or(held.1)?;
        if replica_beat_at >= expected.beat_at {
            return Some(Duration::ZERO);
        }
        let age = expected.primary_now - replica_beat_at;
        Some(age.to_std().unwrap_or(Duration::ZERO) + now.saturating_duration_since(expected.seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn beat(at_ms: i64, start: Instant) -> Beat {
        let time = DateTime::from_timestamp_millis(at_ms).unwrap_or_default();
        let seen = start + MS(u64::try_from(at_ms).unwrap_or(0));
        Beat { beat_at: time, primary_now: time, asked: seen - MS(50), seen }
    }

    #[test]
    fn lag_is_the_age_of_a_beat_that_should_have_been_replaced() {
        let start = Instant::now();
        let (beats, at) = (Beats::default(), |ms| beat(ms, start).beat_at);
        assert_eq!(beats.lag_of(at(0), start), None);
        beats.saw(beat(0, start));
        beats.saw(beat(500, start));
        // The second beat may still be under way.
        assert_eq!(beats.lag_of(at(0), start + MS(600)), Some(MS(0)));
        assert_eq!(beats.lag_of(at(0), start + MS(700)), Some(MS(700)));
        assert_eq!(beats.lag_of(at(500), start + MS(700)), Some(MS(0)));
        // A primary that died makes nobody lag.
        assert_eq!(beats.lag_of(at(500), start + MS(60_000)), Some(MS(0)));
    }

    #[test]
    fn the_primarys_clock_is_known_within_the_time_that_asking_took() {
        let start = Instant::now() + MS(1000);
        let (beats, read) = (Beats::default(), beat(500, start));
        assert_eq!(beats.primary_clock(start), None);
        beats.saw(read);
        let at = |ms| read.primary_now + MS(ms);
        assert_eq!(beats.primary_clock(read.seen), Some((at(0), at(50))));
        assert_eq!(beats.primary_clock(read.seen + MS(2000)), Some((at(2000), at(2050))));
        assert_eq!(beats.primary_clock(read.seen + MS(10_000)), None);
    }
}
