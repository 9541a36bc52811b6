//! The keys in memory: read without a lock, replaced as a whole, fetched by one task at a time.
//!
//! When to fetch is a matter of three rules. The background task follows `max-age`. An unknown `kid` (or having no
//! keys at all) causes a fetch of its own, but only after the cool-down since the last one, however many ids
//! strangers invent. After a failure the cool-down starts at one second and doubles, so that an issuer that comes
//! back is noticed soon and not trampled.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::clock::Clock;
use crate::error::{CannotDecide, InvalidToken, VerifyError};
use crate::jwk::{self, Key, Keys};
use crate::source::{FetchError, Fetched, JwksSource};

/// A source that hangs is given up after this.
const SOURCE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a set is fresh if the answer does not say.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(300);
/// The first wait after a failed fetch.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// When to fetch and how long to believe.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub cool_down: Duration,
    pub stale_bound: Duration,
    pub min_refresh: Duration,
    pub max_refresh: Duration,
}

/// A moment's view of the key cache, for health pages and tests.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyStatus {
    /// Usable keys; 0 while none were ever loaded.
    pub keys: usize,
    /// Keys of the current set that were dropped: for other algorithms, or malformed.
    pub dropped_keys: usize,
    /// Time since the issuer last confirmed the set.
    pub age: Option<Duration>,
    /// Fetches finished since start.
    pub fetches: u64,
    /// What the last fetch failed with; `None` if it succeeded.
    pub last_error: Option<String>,
}

/// One immutable set of keys.
struct KeySet {
    keys: Arc<Keys>,
    dropped: usize,
    etag: Option<String>,
    confirmed_at: Duration,
    fresh_for: Duration,
}

/// The fetches so far.
#[derive(Default)]
struct Attempts {
    finished: u64,
    last_at: Option<Duration>,
    failures_in_a_row: u32,
    last_error: Option<String>,
}

pub(crate) struct Cache {
    set: ArcSwapOption<KeySet>,
    attempts: Mutex<Attempts>,
    flight: tokio::sync::Mutex<()>,
    source: Box<dyn JwksSource>,
    clock: Arc<dyn Clock>,
    policy: Policy,
}

impl Cache {
    pub(crate) fn new(source: Box<dyn JwksSource>, clock: Arc<dyn Clock>, policy: Policy) -> Self {
        Self {
            set: ArcSwapOption::empty(),
            attempts: Mutex::default(),
            flight: tokio::sync::Mutex::default(),
            source,
            clock,
            policy,
        }
    }

    /// Calls `with` with the key named `kid`, or says what its absence means.
    pub(crate) fn with_key<T>(
        &self,
        kid: &str,
        with: impl FnOnce(&Key) -> Result<T, InvalidToken>,
    ) -> Result<T, VerifyError> {
        let set = self.set.load();
        let set = set.as_ref().ok_or(CannotDecide::NoKeys)?;
        let age = self.clock.uptime().saturating_sub(set.confirmed_at);
        if age > self.policy.stale_bound {
            return Err(CannotDecide::KeysTooOld.into());
        }
        if let Some(key) = set.keys.get(kid) {
            return Ok(with(key)?);
        }
        // Keys are published well before they sign. If the set is fresh, a stranger's key it is.
        let confirmed =
            age <= set.fresh_for.max(self.policy.cool_down) && self.attempts().last_error.is_none();
        Err(if confirmed { InvalidToken::UnknownKey.into() } else { CannotDecide::UnconfirmedKey.into() })
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(crate) fn status(&self) -> KeyStatus {
        let set = self.set.load();
        let attempts = self.attempts();
        KeyStatus {
            keys: set.as_ref().map_or(0, |set| set.keys.len()),
            dropped_keys: set.as_ref().map_or(0, |set| set.dropped),
            age: set.as_ref().map(|set| self.clock.uptime().saturating_sub(set.confirmed_at)),
            fetches: attempts.finished,
            last_error: attempts.last_error.clone(),
        }
    }

    /// Fetches unless the cool-down forbids it; joins a fetch that is under way. Runs in a task of its own: a caller
    /// that goes away (a client that hangs up) must not take the fetch of all the others with it.
    pub(crate) async fn refetch(self: &Arc<Self>) {
        let seen = self.attempts().finished;
        if self.cooling_down() {
            return;
        }
        let cache = Arc::clone(self);
        let fetch = tokio::spawn(async move {
            let _flight = cache.flight.lock().await;
            if cache.attempts().finished == seen {
                cache.fetch_once().await;
            }
        });
        // An error here is a panic of the source: noted by `fetch_once`'s guard as a failed attempt.
        let _ = fetch.await;
    }

    /// Keeps the keys fresh until the cache is gone.
    pub(crate) async fn keep_fresh(cache: Weak<Self>) {
        loop {
            let Some(wait) = cache.upgrade().map(|cache| cache.until_refresh()) else { return };
            tokio::time::sleep(wait).await;
            let Some(cache) = cache.upgrade() else { return };
            let seen = cache.attempts().finished;
            let _flight = cache.flight.lock().await;
            if cache.attempts().finished == seen {
                cache.fetch_once().await;
            }
        }
    }

    fn cooling_down(&self) -> bool {
        let attempts = self.attempts();
        let wait = match attempts.failures_in_a_row {
            0 => self.policy.cool_down,
            failures => self.backoff(failures),
        };
        attempts.last_at.is_some_and(|last| self.clock.uptime().saturating_sub(last) < wait)
    }

    fn backoff(&self, failures: u32) -> Duration {
        FIRST_BACKOFF.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(self.policy.cool_down)
    }

    /// The background task's next wait: up to a fifth early, so that services started together drift apart.
    fn until_refresh(&self) -> Duration {
        let failures = self.attempts().failures_in_a_row;
        let whole = match (&*self.set.load(), failures) {
            (Some(set), 0) => set.fresh_for,
            (None, 0) => return Duration::ZERO,
            (_, failures) => self.backoff(failures).max(FIRST_BACKOFF),
        };
        let percent = 80 + u32::try_from(RandomState::new().hash_one(failures) % 21).unwrap_or(0);
        whole * percent / 100
    }

    /// One fetch, to be called with `flight` held. A failure leaves the last good set in place.
    async fn fetch_once(&self) {
        let mut noted =
            Noted { cache: self, result: Err(FetchError::new("the key source panicked or was cancelled")) };
        let current = self.set.load_full();
        let etag = current.as_ref().and_then(|set| set.etag.as_deref());
        let fetched = tokio::time::timeout(SOURCE_TIMEOUT, self.source.fetch(etag)).await;
        noted.result = fetched
            .unwrap_or_else(|_| Err(FetchError::new("the key source did not answer in time")))
            .and_then(|fetched| self.accept(current.as_deref(), fetched));
    }

    fn accept(&self, current: Option<&KeySet>, fetched: Fetched) -> Result<(), FetchError> {
        let confirmed_at = self.clock.uptime();
        let fresh_for = |max_age: Option<Duration>| {
            max_age.unwrap_or(DEFAULT_MAX_AGE).min(self.policy.max_refresh).max(self.policy.min_refresh)
        };
        let set = match (fetched, current) {
            (Fetched::Body { bytes, etag, max_age }, _) => {
                let (keys, dropped) = jwk::parse_set(&bytes).map_err(FetchError::new)?;
                KeySet { keys: Arc::new(keys), dropped, etag, confirmed_at, fresh_for: fresh_for(max_age) }
            }
            (Fetched::NotModified { max_age }, Some(current)) => KeySet {
                keys: Arc::clone(&current.keys),
                dropped: current.dropped,
                etag: current.etag.clone(),
                confirmed_at,
                fresh_for: fresh_for(max_age),
            },
            (Fetched::NotModified { .. }, None) => {
                return Err(FetchError::new("304 to a request without an ETag"));
            }
        };
        self.set.store(Some(Arc::new(set)));
        Ok(())
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes the end of a fetch, also when it ends by panic or cancellation: an attempt that is not counted is one that can be
/// repeated at once.
struct Noted<'a> {
    cache: &'a Cache,
    result: Result<(), FetchError>,
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        let now = self.cache.clock.uptime();
        let mut attempts = self.cache.attempts();
        attempts.finished += 1;
        attempts.last_at = Some(now);
        attempts.last_error = self.result.as_ref().err().map(FetchError::to_string);
        attempts.failures_in_a_row = match self.result {
            Ok(()) => 0,
            Err(_) => attempts.failures_in_a_row.saturating_add(1),
        };
    }
}
