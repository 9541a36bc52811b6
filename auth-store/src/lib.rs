//! The state of Tessera: everything that is written about users, in PostgreSQL, and the copies of it in Redis.
//!
//! The only crate with SQL of users and with Redis commands. It implements the ports of `auth-core`; which shard a
//! bucket lives on is `shard-router`'s business. Start reading at `tx.rs`, the choke
//! point of every statement.
mod admission;
mod attempt;
mod budget;
mod errors;
mod loads;
mod redis;
mod repositories;
mod spans;
mod tx;

use std::sync::Arc;
use std::time::Duration;

use auth_core::crypto::seal::Sealer;
use auth_core::ports::Random;
use shard_router::Router;

pub use redis::{RedisConfig, RedisLimits, RedisSessions};
pub use repositories::audit::Chain;
pub use repositories::backfills::BACKFILLS;
pub use repositories::keys::Keys;
pub use repositories::sweeps::Swept;

/// How much of a shard one node may use.
#[derive(Clone, Copy, Debug)]
pub struct StoreLimits {
    /// Attempts on their way to one shard; and callers that wait there to load a session.
    pub shard_concurrency: usize,
    /// Sessions that are read from one shard at a time because no copy was to be had.
    pub session_loads: usize,
    /// How long a caller waits to load a session.
    pub session_load_wait: Duration,
}

impl Default for StoreLimits {
    fn default() -> Self {
        let session_load_wait = Duration::from_millis(250);
        Self { shard_concurrency: 512, session_loads: 8, session_load_wait }
    }
}

/// Accounts, logins and sessions on the shards. Cheap to clone; implements `Accounts`, `Logins` and `Sessions`.
#[derive(Clone)]
pub struct Store {
    tx: tx::Tx,
    sealer: Sealer,
    random: Arc<dyn Random>,
}

impl Store {
    /// A store over the shards of `router`. `sealer` opens and seals personal values, `random` gives its nonces.
    pub fn new(router: Router, sealer: Sealer, random: Arc<dyn Random>) -> Self {
        Self { tx: tx::Tx::new(router, StoreLimits::default()), sealer, random }
    }

    /// The same within other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: StoreLimits) -> Self {
        self.tx = tx::Tx::new(self.tx.router().clone(), limits);
        self
    }
}
