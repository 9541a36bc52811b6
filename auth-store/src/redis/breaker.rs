//! Stops asking a Redis that does not answer.
//!
//! Closed → open after [`FAILURES`] failures in a row → after a pause one probe (half-open) → closed if it succeeds.
//! A permit that is dropped without a word (its caller was cancelled) counts as nothing while closed, and hands the
//! probe to the next caller while half-open.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const FAILURES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen,
}

/// One breaker for all of Redis: a client that waits for one dead node stalls the commands to the others too.
#[derive(Clone, Debug)]
pub(super) struct Breaker(Arc<Mutex<State>>);

/// Leave to send one command.
pub(super) struct Permit {
    breaker: Breaker,
    told: bool,
}

impl Breaker {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State::Closed { failures: 0 })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: do not ask now.
    pub fn enter(&self, now: Instant) -> Option<Permit> {
        let mut state = self.state();
        match *state {
            State::Closed { .. } => {}
            State::Open { until } if now >= until => *state = State::HalfOpen,
            State::Open { .. } | State::HalfOpen => return None,
        }
        Some(Permit { breaker: self.clone(), told: false })
    }

    /// 0 closed, 1 half-open, 2 open.
    pub fn code(&self) -> u8 {
        match *self.state() {
            State::Closed { .. } => 0,
            State::HalfOpen => 1,
            State::Open { .. } => 2,
        }
    }
}

impl Permit {
    /// It answered. `true`: the breaker closes now, after having been open.
    pub fn succeeded(mut self) -> bool {
        self.told = true;
        let mut state = self.breaker.state();
        match *state {
            // An answer to a command of before the trouble says nothing about now: the probe decides.
            State::Open { .. } => false,
            State::HalfOpen | State::Closed { .. } => {
                let was_open = *state == State::HalfOpen;
                *state = State::Closed { failures: 0 };
                was_open
            }
        }
    }

    /// It did not. `true`: the breaker opens now.
    pub fn failed(mut self, now: Instant) -> bool {
        self.told = true;
        let mut state = self.breaker.state();
        let failures = match *state {
            State::Closed { failures } => failures + 1,
            State::HalfOpen => FAILURES,
            State::Open { .. } => return false,
        };
        let opens = failures >= FAILURES;
        *state = if opens { State::Open { until: now + PAUSE } } else { State::Closed { failures } };
        opens
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.breaker.state();
        if !self.told && *state == State::HalfOpen {
            *state = State::Open { until: Instant::now() };
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::new();
        for n in 1..=FAILURES {
            assert_eq!(breaker.enter(now).unwrap().failed(now), n == FAILURES);
        }
        breaker
    }

    #[test]
    fn it_opens_probes_once_and_closes() {
        let now = Instant::now();
        let breaker = opened(now);
        assert!(breaker.enter(now).is_none());
        let probe = breaker.enter(now + PAUSE).unwrap();
        assert!(breaker.enter(now + PAUSE).is_none(), "a single probe");
        assert!(probe.succeeded());
        assert_eq!(breaker.code(), 0);
        assert!(!breaker.enter(now).unwrap().succeeded(), "nothing new while closed");
    }

    #[test]
    fn a_failed_probe_opens_again() {
        let now = Instant::now();
        let breaker = opened(now);
        assert!(breaker.enter(now + PAUSE).unwrap().failed(now + PAUSE));
        assert!(breaker.enter(now + PAUSE).is_none());
        assert!(breaker.enter(now + PAUSE * 2).is_some());
    }

    #[test]
    fn a_cancelled_probe_hands_over_and_a_success_forgives() {
        let now = Instant::now();
        let breaker = opened(now - PAUSE);
        drop(breaker.enter(now).unwrap());
        assert!(breaker.enter(Instant::now()).is_some());
        let breaker = Breaker::new();
        for _ in 0..20 {
            breaker.enter(now).unwrap().failed(now);
            breaker.enter(now).unwrap().succeeded();
        }
        assert_eq!(breaker.code(), 0);
    }

    #[test]
    fn a_late_answer_does_not_close_an_open_breaker() {
        let now = Instant::now();
        let breaker = Breaker::new();
        let early = breaker.enter(now).unwrap();
        for _ in 0..FAILURES {
            breaker.enter(now).unwrap().failed(now);
        }
        assert!(!early.succeeded());
        assert_eq!(breaker.code(), 2);
    }
}
