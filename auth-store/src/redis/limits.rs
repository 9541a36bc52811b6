//! Counters that all nodes share: one atomic script a decision, one key a subject, always with a TTL.
//!
//! A sliding window of [`SLOTS`] slots and the one that is under way: what was granted counts until every moment of its
//! window is over, so no window of that length, wherever it begins, holds more than the limit. The price is that a
//! grant is forgotten up to one slot (a fifteenth of the window) late. Why not the generic cell rate algorithm, which
//! needs one number only: with a burst of the whole limit it grants nearly twice the limit in a window, with a smaller
//! burst it refuses a family that logs in at once. Why not a log of times: it holds a hundred of them an address.
//!
//! The time is that of the Redis node that holds the key, so nodes with other clocks agree. A refused try writes
//! nothing: hammering on does not make the wait longer. A failover may forget grants; a limit is no lockout.
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use auth_core::domain::{LimitRule, Standing};
use auth_core::ports::Limits;
use fred::types::scripts::Script;

use super::cache::{RedisSessions, Shared};
use super::scripts;

const SLOTS: u32 = 15;

/// The limits over the connections and breakers of the session cache. Cheap to clone.
#[derive(Clone)]
pub struct RedisLimits {
    shared: Arc<Shared>,
    take: Script,
}

impl RedisSessions {
    /// The counters beside the sessions.
    #[must_use]
    pub fn limits(&self) -> RedisLimits {
        RedisLimits { shared: Arc::clone(&self.shared), take: Script::from_lua(scripts::TAKE) }
    }
}

#[async_trait]
impl Limits for RedisLimits {
    async fn take(&self, rule: &LimitRule, subject: &str) -> Option<Standing> {
        let slot = (rule.window / SLOTS).as_millis().max(1);
        let key = format!("l:{{{}:{subject}}}", rule.name);
        let args = vec![rule.limit.to_string(), slot.to_string(), SLOTS.to_string()];
        let (granted, left, wait): (i64, i64, i64) = self.shared.run("take", &self.take, key, args).await?;
        // A clock that was set back could ask for more patience than the rule does.
        let longest = rule.window + rule.window / SLOTS;
        Some(Standing {
            rule: *rule,
            granted: granted == 1,
            left: u32::try_from(left).unwrap_or(0),
            more_in: Duration::from_millis(u64::try_from(wait).unwrap_or(0)).min(longest),
        })
    }
}
