//! The only place that reads the wall clock and the system's randomness.
use auth_core::ports::{Clock, Random};
use chrono::{DateTime, Utc};
use rand::TryRng;

pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else is given")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// The operating system's generator.
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        rand::rngs::SysRng.try_fill_bytes(bytes).expect("the operating system gives random bytes");
    }
}
