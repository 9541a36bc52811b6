//! The hot copy of sessions. Never the truth: everything works, slower, without it.
use async_trait::async_trait;

use super::Revoked;
use crate::domain::LiveSession;

/// What the cache knows.
#[derive(Debug, PartialEq, Eq)]
pub enum CacheAnswer {
    /// A copy, as old as its `checked_at` says.
    Live(LiveSession),
    /// It was revoked; the tombstone is still there.
    Dead,
    /// Nothing, or the cache is not to be had.
    Nothing,
}

/// Session copies with versions. Calls are bounded (50 ms, breaker) and cannot fail: a cache that is away knows nothing.
#[async_trait]
pub trait SessionCache: Send + Sync {
    /// The copy of a session.
    async fn get(&self, session: shard_key::SessionId) -> CacheAnswer;

    /// Keeps what the primary said, unless the cache holds a newer version or a tombstone.
    async fn put(&self, session: &LiveSession);

    /// Best effort, after the commit: writes tombstones.
    async fn bury(&self, revoked: &[Revoked]);
}
