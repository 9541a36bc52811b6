//! The life of a signing key, by time alone: every node that holds the same rows agrees without talking.
//!
//! ```text
//! created ──► published (in the JWKS) ──► signing ──► retired (still in the JWKS) ──► removed
//!               └─ lead ≥ what verifiers may cache ─┘   └─ last token's life + leeway ─┘
//! ```
//! The key that signs at an instant is, of those between `signs_from` and `signs_until`, the one that began last. If there
//! is none, because no successor came or because it was distrusted, the last one that ended goes on for
//! [`KeyTimes::overtime`]. A key is published as long as it might sign and until its last token is dead.
use chrono::{DateTime, Duration, Utc};

/// The times of one key as the directory holds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// The key id: the RFC 7638 thumbprint.
    pub kid: String,
    /// From then on it stands in the JWKS.
    pub published_at: DateTime<Utc>,
    /// From then on it may sign.
    pub signs_from: DateTime<Utc>,
    /// When it should have a successor, or was told to stop.
    pub signs_until: DateTime<Utc>,
    /// Set when it must not be trusted any more, whatever the other times say.
    pub distrusted_at: Option<DateTime<Utc>>,
}

/// The periods that a schedule is computed with.
#[derive(Clone, Debug)]
pub struct KeyTimes {
    /// From publishing to signing: JWKS `max-age` + poll + skew + the verifiers' cool-down, at least.
    pub lead: Duration,
    /// How long a key signs before its successor does.
    pub rotation: Duration,
    /// How far ahead keys are made, so that a node cut off from the directory goes on.
    pub horizon: Duration,
    /// How long a key without successor goes on.
    pub overtime: Duration,
    /// Access token lifetime + leeway: how long a retired key stays published.
    pub linger: Duration,
}

/// Where a key is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Made, not yet published.
    Created,
    /// In the JWKS, not yet signing.
    Published,
    /// The key that signs.
    Signing,
    /// Signs no more; tokens of it may still be alive.
    Retired,
    /// No token of it is alive.
    Removed,
    /// Told to be untrusted.
    Distrusted,
}

impl KeyState {
    /// The word for lists and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Published => "published",
            Self::Signing => "signing",
            Self::Retired => "retired",
            Self::Removed => "removed",
            Self::Distrusted => "distrusted",
        }
    }
}

/// All keys and the rules over them. Pure: the instant is always a parameter.
#[derive(Clone, Debug)]
pub struct KeySchedule {
    keys: Vec<KeyRecord>,
    times: KeyTimes,
}

impl KeySchedule {
    /// Orders the keys by when they begin to sign.
    pub fn new(mut keys: Vec<KeyRecord>, times: KeyTimes) -> Self {
        keys.sort_by(|a, b| (a.signs_from, &a.kid).cmp(&(b.signs_from, &b.kid)));
        Self { keys, times }
    }

    /// The keys, the earliest signer first.
    pub fn keys(&self) -> &[KeyRecord] {
        &self.keys
    }

    /// The key that signs at `now`, if any may.
    pub fn signer(&self, now: DateTime<Utc>) -> Option<&KeyRecord> {
        let begun = || self.trusted().filter(move |k| k.signs_from <= now);
        let in_time = begun().rfind(|k| now < k.signs_until);
        let over_time =
            || begun().filter(|k| now < k.signs_until + self.times.overtime).max_by_key(|k| k.signs_until);
        in_time.or_else(over_time)
    }

    /// Whether a key signs at `now` without working overtime.
    pub fn is_covered(&self, now: DateTime<Utc>) -> bool {
        self.trusted().any(|k| k.signs_from <= now && now < k.signs_until)
    }

    fn trusted(&self) -> impl DoubleEndedIterator<Item = &KeyRecord> {
        self.keys.iter().filter(|k| k.distrusted_at.is_none())
    }

    /// The state of one key at `now`.
    pub fn state(&self, key: &KeyRecord, now: DateTime<Utc>) -> KeyState {
        if key.distrusted_at.is_some() {
            KeyState::Distrusted
        } else if self.signer(now).is_some_and(|s| s.kid == key.kid) {
            KeyState::Signing
        } else if now < key.published_at {
            KeyState::Created
        } else if now < key.signs_from {
            KeyState::Published
        } else if now < self.last_signature(key) + self.times.linger {
            KeyState::Retired
        } else {
            KeyState::Removed
        }
    }

    /// The keys that the JWKS shows at `now`.
    pub fn published(&self, now: DateTime<Utc>) -> impl Iterator<Item = &KeyRecord> {
        self.keys.iter().filter(move |k| {
            matches!(self.state(k, now), KeyState::Published | KeyState::Signing | KeyState::Retired)
        })
    }

    /// The key to make next, if the horizon is not covered: `(published_at, signs_from, signs_until)`.
    ///
    /// It begins where the planned keys end and keeps its lead, but never begins later than the last instant at which
    /// another key could still sign: a key that verifiers have to fetch is better than none.
    pub fn next(&self, now: DateTime<Utc>) -> Option<(DateTime<Utc>, DateTime<Utc>, DateTime<Utc>)> {
        let (planned, possible) = self.covered(now);
        if planned >= now + self.times.horizon {
            return None;
        }
        let from = planned.max(now + self.times.lead).min(possible);
        Some(((from - self.times.lead).max(now), from, self.end_after(from)))
    }

    /// The key that an operator's `rotate` makes: published now, signing after the lead, or earlier if nothing else could
    /// sign until then.
    pub fn rotated(&self, now: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>, DateTime<Utc>) {
        let from = (now + self.times.lead).min(self.covered(now).1);
        (now, from, self.end_after(from))
    }

    /// Until when keys are planned, and until when some key could sign (overtime included), without a gap from now on.
    fn covered(&self, now: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
        let (mut planned, mut possible) = (now, now);
        for key in self.trusted() {
            let last = key.signs_until + self.times.overtime;
            if key.signs_from <= possible && last > now {
                planned = planned.max(key.signs_until);
                possible = possible.max(last);
            }
        }
        (planned, possible)
    }

    /// A key ends where the next one begins, or after a rotation.
    fn end_after(&self, from: DateTime<Utc>) -> DateTime<Utc> {
        let coming = self.trusted().map(|k| k.signs_from).filter(|at| *at > from).min();
        coming.unwrap_or(from + self.times.rotation).min(from + self.times.rotation)
    }

    /// The latest instant at which a key might sign: its end if another one can take over there, else its overtime.
    fn last_signature(&self, key: &KeyRecord) -> DateTime<Utc> {
        let end = key.signs_until;
        let covered = self.trusted().any(|k| k.kid != key.kid && k.signs_from <= end && end < k.signs_until);
        if covered { end } else { end + self.times.overtime }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + Duration::minutes(minutes)
    }

    fn times() -> KeyTimes {
        KeyTimes {
            lead: Duration::minutes(10),
            rotation: Duration::minutes(100),
            horizon: Duration::minutes(150),
            overtime: Duration::minutes(50),
            linger: Duration::minutes(5),
        }
    }

    fn key(kid: &str, (published, from, until): (i64, i64, i64)) -> KeyRecord {
        KeyRecord {
            kid: kid.to_owned(),
            published_at: at(published),
            signs_from: at(from),
            signs_until: at(until),
            distrusted_at: None,
        }
    }

    fn signer(keys: &KeySchedule, minute: i64) -> Option<&str> {
        keys.signer(at(minute)).map(|k| k.kid.as_str())
    }

    #[test]
    fn hand_over_is_by_time() {
        let keys = KeySchedule::new(vec![key("b", (90, 100, 200)), key("a", (0, 0, 100))], times());
        assert_eq!(signer(&keys, 99), Some("a"));
        assert_eq!(signer(&keys, 100), Some("b"));
        assert_eq!(keys.published(at(95)).count(), 2);
        assert_eq!(keys.state(&keys.keys()[0], at(104)), KeyState::Retired);
        assert_eq!(keys.state(&keys.keys()[0], at(105)), KeyState::Removed);
    }

    #[test]
    fn a_key_without_successor_works_overtime_and_stays_published() {
        let keys = KeySchedule::new(vec![key("a", (0, 0, 100))], times());
        assert_eq!(signer(&keys, 149), Some("a"));
        assert_eq!(signer(&keys, 150), None);
        assert_eq!(keys.published(at(154)).count(), 1);
        assert_eq!(keys.published(at(155)).count(), 0);
    }

    #[test]
    fn a_distrusted_key_neither_signs_nor_shows() {
        let mut bad = key("b", (90, 100, 200));
        bad.distrusted_at = Some(at(101));
        let keys = KeySchedule::new(vec![key("a", (0, 0, 100)), bad], times());
        // The one before it works overtime, and is shown while it does.
        assert_eq!(signer(&keys, 110), Some("a"));
        assert_eq!(keys.published(at(110)).map(|k| k.kid.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(signer(&keys, 151), None);
    }

    #[test]
    fn the_first_key_signs_at_once_and_later_ones_keep_their_lead() {
        let empty = KeySchedule::new(Vec::new(), times());
        assert_eq!(empty.next(at(7)), Some((at(7), at(7), at(107))));
        let one = KeySchedule::new(vec![key("a", (0, 0, 100))], times());
        assert_eq!(one.next(at(7)), Some((at(90), at(100), at(200))));
        assert_eq!(one.next(at(98)), Some((at(98), at(108), at(208))));
        let two = KeySchedule::new(vec![key("a", (0, 0, 100)), key("b", (90, 100, 200))], times());
        assert_eq!(two.next(at(7)), None);
    }

    #[test]
    fn there_is_never_an_hour_in_which_nobody_signs() {
        // b began at 100 and is distrusted at 140: a could sign until 150, and the lead would end at 151.
        let mut b = key("b", (90, 100, 200));
        b.distrusted_at = Some(at(141));
        let keys = KeySchedule::new(vec![key("a", (0, 0, 100)), b.clone()], times());
        assert_eq!(keys.next(at(141)), Some((at(141), at(150), at(250))));
        assert_eq!(keys.rotated(at(141)), (at(141), at(150), at(250)));
        // A key that begins far in the future does not cover the time until then.
        let keys = KeySchedule::new(vec![b, key("c", (390, 400, 500))], times());
        assert_eq!(keys.next(at(141)), Some((at(141), at(141), at(241))));
        assert_eq!(signer(&keys, 141), None);
    }

    #[test]
    fn a_retired_key_hands_over_and_leaves_after_its_last_token() {
        // Rotated at 20: c signs from 30, a could until 100.
        let keys = |a_until, c_until| {
            KeySchedule::new(
                vec![key("a", (0, 0, a_until)), key("b", (90, 100, 200)), key("c", (20, 30, c_until))],
                times(),
            )
        };
        assert_eq!(signer(&keys(100, 100), 50), Some("c"));
        // a is retired at 50: c goes on, a is shown until its last token is dead.
        assert_eq!(signer(&keys(50, 100), 51), Some("c"));
        assert_eq!(keys(50, 100).published(at(54)).count(), 2);
        assert_eq!(keys(50, 100).published(at(55)).count(), 1);
        // c is retired at 50 instead: a, published all along, signs again.
        assert_eq!(signer(&keys(100, 50), 51), Some("a"));
        assert_eq!(keys(100, 50).published(at(56)).map(|k| k.kid.as_str()).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn rotate_signs_after_the_lead_and_leaves_later_keys_alone() {
        let keys = KeySchedule::new(vec![key("a", (0, 0, 100)), key("b", (90, 100, 200))], times());
        assert_eq!(keys.rotated(at(20)), (at(20), at(30), at(100)));
        assert_eq!(keys.rotated(at(95)), (at(95), at(105), at(205)));
    }

    proptest::proptest! {
        /// Whoever signs at an instant was published for the lead before (the first key apart), and stays published
        /// until its last token is dead.
        #[test]
        fn whoever_signs_is_published_around_it(minute in 0i64..2_000, steps in 0usize..12) {
            let mut keys = KeySchedule::new(Vec::new(), times());
            for step in 0..=steps {
                let now = at(step as i64 * 60);
                while let Some((p, f, u)) = keys.next(now) {
                    let record = KeyRecord { kid: format!("k{:03}", keys.keys.len()), published_at: p,
                        signs_from: f, signs_until: u, distrusted_at: None };
                    let mut all = keys.keys.clone();
                    all.push(record);
                    keys = KeySchedule::new(all, times());
                }
            }
            if let Some(signer) = keys.signer(at(minute)) {
                for around in [minute, minute + 4] {
                    proptest::prop_assert!(keys.published(at(around)).any(|k| k.kid == signer.kid));
                }
                proptest::prop_assert!(signer.signs_from == at(0) || signer.published_at <= signer.signs_from - times().lead);
            }
        }
    }
}
