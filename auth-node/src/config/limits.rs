//! `[limits]`: how often strangers may try, and how much of a shard one node may use.
use std::time::Duration;

use auth_core::services::ThrottleSettings;
use serde::Deserialize;

use super::{ConfigError, check};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub address_limits: bool,
    pub window_s: u64,
    pub per_address: u32,
    pub forged_per_session: u32,
    pub refreshes_per_session: u32,
    pub nodes: u32,
    pub buckets: usize,
    pub shard_concurrency: usize,
    pub session_loads: usize,
}

impl Limits {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check((60..=86400).contains(&self.window_s), "limits.window_s", "must be 60 to 86400")?;
        let many = 1..=1_000_000;
        check(many.contains(&self.per_address), "limits.per_address", "must be 1 to 1000000")?;
        check(many.contains(&self.forged_per_session), "limits.forged_per_session", "must be 1 to 1000000")?;
        check(
            self.refreshes_per_session <= 1_000_000,
            "limits.refreshes_per_session",
            "must be at most 1000000; 0 is no limit",
        )?;
        check(
            (1..=self.per_address).contains(&self.nodes),
            "limits.nodes",
            "must be 1 to limits.per_address: each node takes its part of it while Redis is away",
        )?;
        check((1024..=1 << 24).contains(&self.buckets), "limits.buckets", "must be 1024 to 16777216")?;
        check(
            (1..=100_000).contains(&self.shard_concurrency),
            "limits.shard_concurrency",
            "must be 1 to 100000",
        )?;
        check(
            self.session_loads <= 1000,
            "limits.session_loads",
            "must be at most 1000; 0 is half of pool_size",
        )
    }

    /// As the rules take them.
    pub fn throttle(&self) -> ThrottleSettings {
        ThrottleSettings {
            address_limits: self.address_limits,
            window: Duration::from_secs(self.window_s),
            per_address: self.per_address,
            forged_per_session: self.forged_per_session,
            refreshes_per_session: self.refreshes_per_session,
            nodes: self.nodes,
            buckets: self.buckets,
        }
    }
}
