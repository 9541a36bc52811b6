//! The state of Tessera: everything that is written about users, in PostgreSQL, and the copies of it in Redis.
//!
//! The only crate with SQL of users and with Redis commands. It implements the ports of `auth-core`; which shard a
//! bucket lives on is `shard-router`'s business. Start reading at `tx.rs`, the choke
//! point of every statement.
mod admission;
mod budget;
mod errors;
mod redis;
mod repositories;
mod spans;
mod tx;

use std::sync::Arc;

use auth_core::crypto::seal::Sealer;
use auth_core::ports::Random;
use shard_router::Router;

pub use redis::{RedisConfig, RedisLimits, RedisSessions};
pub use repositories::audit::Chain;
pub use repositories::keys::Keys;
pub use repositories::sweeps::Swept;

/// Attempts of one node on their way to one shard, unless it is told otherwise.
const SHARD_CONCURRENCY: usize = 512;

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
        Self { tx: tx::Tx::new(router, SHARD_CONCURRENCY), sealer, random }
    }

    /// The same with another cap of attempts that may be on their way to one shard at a time.
    #[must_use]
    pub fn with_shard_concurrency(mut self, cap: usize) -> Self {
        self.tx = tx::Tx::new(self.tx.router().clone(), cap);
        self
    }
}
