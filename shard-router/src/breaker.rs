//! The circuit breaker: when to stop asking a part that does not answer, and when to ask it again.
//!
//! Closed → open after so many failures in a row → after a pause one trial (half-open) → closed if it succeeds, open
//! again if it does not. Pure: the time is a parameter, and who makes the trial is up to the user: for a PostgreSQL
//! server it is the health prober ([`crate::Router`]), for Redis the next caller.
//!
//! What counts is whether the part *answered*, never what it said. A pass belongs to the period in which it was given
//! out: what comes to light after the breaker has opened about calls of before says nothing about now.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct BreakerSettings {
    /// It opens at so many failures in a row.
    pub failures: u32,
    /// From opening to the first trial.
    pub first_pause: Duration,
    /// From a failed trial to the next one.
    pub pause: Duration,
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Everybody may ask.
    Closed,
    /// One trial is out; nobody else may ask.
    HalfOpen,
    /// Nobody may ask.
    Open,
}

impl Phase {
    /// As gauges show it: 0 closed, 1 half-open, 2 open.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// What a report changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It opened, or a trial failed and it stays open.
    Opened,
    /// It closed.
    Closed,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// In a row, while closed.
    failures: u32,
    /// When a trial may be made, while not closed.
    until: Option<Instant>,
    /// Grows at each opening; passes of older periods are worth nothing.
    period: u64,
}

/// One breaker. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Breaker {
    state: Arc<Mutex<State>>,
    settings: BreakerSettings,
}

/// Leave to ask once. Dropped without a report (its caller was cancelled) it counts as nothing, and a trial goes to
/// whoever asks next.
#[derive(Debug)]
#[must_use]
pub struct Pass {
    breaker: Breaker,
    period: u64,
    is_trial: bool,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn closed(settings: BreakerSettings) -> Self {
        Self::new(settings, Phase::Closed)
    }

    /// An open one whose first trial is due: the part must show itself first.
    #[must_use]
    pub fn open(settings: BreakerSettings) -> Self {
        Self::new(settings, Phase::Open)
    }

    fn new(settings: BreakerSettings, phase: Phase) -> Self {
        let state = State { phase, failures: 0, until: None, period: 0 };
        Self { state: Arc::new(Mutex::new(state)), settings }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state().phase
    }

    /// Leave for a call, while closed.
    #[must_use]
    pub fn pass(&self) -> Option<Pass> {
        let state = self.state();
        (state.phase == Phase::Closed).then(|| self.leave(state.period, false))
    }

    /// Leave for the one trial, when it is due.
    #[must_use]
    pub fn trial(&self, now: Instant) -> Option<Pass> {
        let mut state = self.state();
        if state.phase != Phase::Open || state.until.is_some_and(|until| now < until) {
            return None;
        }
        state.phase = Phase::HalfOpen;
        Some(self.leave(state.period, true))
    }

    fn leave(&self, period: u64, is_trial: bool) -> Pass {
        Pass { breaker: self.clone(), period, is_trial }
    }
}

impl Pass {
    /// The part answered.
    pub fn answered(mut self) -> Option<Change> {
        let mut state = self.breaker.state();
        if state.period != self.period {
            return None;
        }
        state.failures = 0;
        state.phase = Phase::Closed;
        let closed = std::mem::take(&mut self.is_trial);
        drop(state);
        closed.then_some(Change::Closed)
    }

    /// The part did not answer.
    pub fn failed(mut self, now: Instant) -> Option<Change> {
        let is_trial = std::mem::take(&mut self.is_trial);
        let BreakerSettings { failures, first_pause, pause } = self.breaker.settings;
        let mut state = self.breaker.state();
        if state.period != self.period {
            return None;
        }
        state.failures = state.failures.saturating_add(1);
        if !is_trial && state.failures < failures {
            return None;
        }
        state.phase = Phase::Open;
        state.until = Some(now + if is_trial { pause } else { first_pause });
        state.failures = 0;
        state.period += 1;
        Some(Change::Opened)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.is_trial {
            self.breaker.state().phase = Phase::Open;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SETTINGS: BreakerSettings =
        BreakerSettings { failures: 3, first_pause: Duration::from_secs(2), pause: Duration::from_secs(5) };

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::closed(SETTINGS);
        let changes = [(); 3].map(|()| breaker.pass().unwrap().failed(now));
        assert_eq!(changes, [None, None, Some(Change::Opened)]);
        breaker
    }

    #[test]
    fn it_opens_makes_one_trial_and_closes() {
        let now = Instant::now();
        let breaker = opened(now);
        assert!(breaker.pass().is_none());
        assert!(breaker.trial(now + Duration::from_millis(1999)).is_none());
        let trial = breaker.trial(now + Duration::from_secs(2)).unwrap();
        assert_eq!(breaker.phase(), Phase::HalfOpen);
        assert!(breaker.pass().is_none() && breaker.trial(now + Duration::from_secs(9)).is_none(), "one");
        assert_eq!(trial.answered(), Some(Change::Closed));
        assert_eq!(breaker.pass().unwrap().answered(), None, "nothing new while closed");
    }

    #[test]
    fn a_failed_trial_opens_for_the_longer_pause_and_a_cancelled_one_hands_over() {
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(2));
        let breaker = opened(now);
        drop(breaker.trial(later).unwrap());
        assert_eq!(breaker.trial(later).unwrap().failed(later), Some(Change::Opened));
        assert!(breaker.trial(later + Duration::from_secs(4)).is_none());
        assert!(breaker.trial(later + Duration::from_secs(5)).is_some());
    }

    #[test]
    fn one_that_starts_open_is_tried_at_once() {
        let breaker = Breaker::open(SETTINGS);
        assert!(breaker.pass().is_none());
        assert_eq!(breaker.trial(Instant::now()).unwrap().answered(), Some(Change::Closed));
    }

    /// What can happen, in any order: time passes, passes are taken, and those that are out end somehow.
    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        Pass,
        Trial,
        Answered(prop::sample::Index),
        Failed(prop::sample::Index),
        Dropped(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        let index = any::<prop::sample::Index>;
        prop_oneof![
            1 => (0..4u64).prop_map(Step::Wait),
            3 => Just(Step::Pass),
            1 => Just(Step::Trial),
            1 => index().prop_map(Step::Answered),
            2 => index().prop_map(Step::Failed),
            1 => index().prop_map(Step::Dropped),
        ]
    }

    /// The rules, told as a history: what was reported since the breaker last opened or closed.
    #[derive(Default)]
    struct Told {
        openings: usize,
        closed_again: usize,
        failures_in_a_row: u32,
        trial_due: Option<Instant>,
        trial_out: bool,
    }

    impl Told {
        fn is_closed(&self) -> bool {
            self.openings == self.closed_again
        }

        fn open(&mut self, at: Instant) {
            (self.openings, self.failures_in_a_row, self.trial_due) = (self.closed_again + 1, 0, Some(at));
        }

        /// `of`: how many openings had happened when the pass was taken.
        fn report(&mut self, (of, trial): (usize, bool), answered: bool, now: Instant) {
            if trial {
                self.trial_out = false;
                if answered {
                    self.closed_again = self.openings;
                } else {
                    self.open(now + SETTINGS.pause);
                }
            } else if self.is_closed() && of == self.openings {
                self.failures_in_a_row = if answered { 0 } else { self.failures_in_a_row + 1 };
                if self.failures_in_a_row == SETTINGS.failures {
                    self.open(now + SETTINGS.first_pause);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn it_follows_its_rules_in_any_order(steps in prop::collection::vec(step(), 1..200)) {
            let breaker = Breaker::closed(SETTINGS);
            let (mut now, mut told, mut out) = (Instant::now(), Told::default(), Vec::new());
            for step in steps {
                match step {
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                    Step::Pass => {
                        let pass = breaker.pass();
                        prop_assert_eq!(pass.is_some(), told.is_closed());
                        out.extend(pass.map(|pass| (pass, (told.openings, false))));
                    }
                    Step::Trial => {
                        let due = !told.is_closed() && !told.trial_out && told.trial_due.unwrap() <= now;
                        let trial = breaker.trial(now);
                        prop_assert_eq!(trial.is_some(), due);
                        told.trial_out |= due;
                        out.extend(trial.map(|pass| (pass, (told.openings, true))));
                    }
                    Step::Answered(_) | Step::Failed(_) | Step::Dropped(_) if out.is_empty() => {}
                    Step::Answered(which) => {
                        let (pass, of) = out.swap_remove(which.index(out.len()));
                        pass.answered();
                        told.report(of, true, now);
                    }
                    Step::Failed(which) => {
                        let (pass, of) = out.swap_remove(which.index(out.len()));
                        pass.failed(now);
                        told.report(of, false, now);
                    }
                    Step::Dropped(which) => {
                        let (_, (_, trial)) = out.swap_remove(which.index(out.len()));
                        told.trial_out &= !trial;
                    }
                }
                let expected = match (told.is_closed(), told.trial_out) {
                    (true, _) => Phase::Closed,
                    (false, true) => Phase::HalfOpen,
                    (false, false) => Phase::Open,
                };
                prop_assert_eq!(breaker.phase(), expected);
            }
        }
    }
}
