//! Counters that all nodes share. Never the truth of a lockout: failed passwords are counted on the shard.
use async_trait::async_trait;

use crate::domain::{LimitRule, Standing};

/// Distributed rate limits. Calls are bounded (50 ms, breaker) and cannot fail: counters that are away count nothing,
/// and the caller decides what that means.
#[async_trait]
pub trait Limits: Send + Sync {
    /// Counts one try of `subject` (an address, or a session and an address) unless the limit is reached, in one step
    /// that no other node can come between. A refused try is not counted. `None`: the counters are not to be had.
    async fn take(&self, rule: &LimitRule, subject: &str) -> Option<Standing>;
}
