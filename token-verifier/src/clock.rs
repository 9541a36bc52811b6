//! Time as a parameter, so that a test can move it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The two clocks that a verifier reads.
pub trait Clock: Send + Sync + 'static {
    /// Seconds since 1970, for the dates in tokens.
    fn unix_s(&self) -> u64;
    /// Time since any fixed moment, never going back, for the age of keys.
    fn uptime(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose [`Clock::uptime`] begins now.
    #[allow(clippy::disallowed_methods, reason = "the one place where this crate reads the machine's clock")]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place where this crate reads the machine's clock")]
    fn unix_s(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}
