//! What a router must be told, and its limits.

use crate::migrate::Schema;
use crate::pool::PoolLimits;
use crate::server::{Address, Login};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What a router needs to know. Every limit has a default ([`RouterConfig::new`]).
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// The directory database.
    pub directory: Address,
    /// Our role on the directory and on every shard.
    pub login: Login,
    /// Where the last good sections of the directory are kept.
    pub state_dir: PathBuf,
    /// Connections to each server at most.
    pub pool_size: usize,
    /// How long a caller waits for a free connection.
    pub checkout_timeout_ms: u64,
    /// How long making a connection may take.
    pub connect_timeout_ms: u64,
    /// Age at which a connection is replaced, ± a tenth.
    pub connection_max_age_ms: u64,
    /// How often versions are polled, ± a tenth.
    pub poll_interval_ms: u64,
    /// How often everything is read again, changed or not.
    pub full_read_interval_ms: u64,
    /// How long one poll may take.
    pub directory_timeout_ms: u64,
    /// How often each shard's distrusted keys are read.
    pub distrusted_interval_ms: u64,
    /// Which schemas of shards we serve.
    pub schema: Arc<Schema>,
}

impl RouterConfig {
    /// The defaults around these four.
    #[must_use]
    pub fn new(directory: Address, login: Login, state_dir: PathBuf, pool_size: usize) -> Self {
        Self {
            directory,
            login,
            state_dir,
            pool_size,
            checkout_timeout_ms: 250,
            connect_timeout_ms: 1_000,
            connection_max_age_ms: 600_000,
            poll_interval_ms: 1_000,
            full_read_interval_ms: 60_000,
            directory_timeout_ms: 2_000,
            distrusted_interval_ms: 30_000,
            schema: Arc::new(Schema::of_shards()),
        }
    }

    pub(crate) fn limits(&self) -> PoolLimits {
        PoolLimits {
            pool_size: self.pool_size,
            checkout_timeout: Duration::from_millis(self.checkout_timeout_ms),
            connect_timeout: Duration::from_millis(self.connect_timeout_ms),
            max_age: Duration::from_millis(self.connection_max_age_ms),
        }
    }
}
