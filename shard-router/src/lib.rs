//! From a bucket to a connection: which shard owns it, and an exclusive connection to that shard.
//!
//! Two halves. *Deciding* is pure: [`BucketMap`], [`Hint`], [`Ownership`], [`gated!`]. *Reaching* is
//! [`Router`]: pools, health, the polled directory. The map may be of any age: every statement asks the shard
//! itself ([`gated!`]), and the shard's answer repairs the map. Nothing here is needed for safety.
//!
//! A caller's loop: `place` → `primary` → [`Gated::run`] (or, of its error,
//! [`Ownership::from_error`]) → [`Router::redirected`]: if it says that the map has changed, again at once, at most
//! [`MAX_HOPS`] times; if not, the bucket is between two owners: give the connection back, [`Router::fence_wait`],
//! sleep 1–5 ms, again, for at most [`MAX_FENCE_WAIT`].
//!
//! This crate knows nothing of users: its SQL is about `directory.*` and `meta.*` only.
#![deny(missing_docs)]

mod beats;
mod breaker;
mod bulkhead;
mod caught_up;
mod checks;
mod config;
pub mod directory;
mod fitness;
#[doc(hidden)]
pub mod gate;
mod health;
mod map;
pub mod migrate;
pub mod moves;
mod ownership;
mod plan;
mod poll;
mod pool;
mod position;
pub mod quarantine;
mod router;
mod server;
mod shards;

pub use breaker::{Breaker, BreakerSettings, Change, Pass, Phase};
pub use bulkhead::{FenceFull, FencePermit, MAX_WAITERS_PER_BUCKET, MAX_WAITERS_PER_SHARD};
pub use checks::CheckError;
pub use config::RouterConfig;
pub use gate::Gated;
pub use map::{BucketMap, Hint, MAX_EPOCH, Placement, ShardId};
pub use ownership::{OwnerState, Ownership, SQLSTATE_BUCKET_CHANGED, SQLSTATE_ELSEWHERE, SQLSTATE_FENCED};
pub use plan::first_placement;
pub use pool::{Conn, PoolError, PoolStatus, Role};
pub use position::{BadPosition, Position};
pub use router::{DirectoryProblem, DirectoryStatus, DiskProblem, Router, RouterStatus, StartError};
pub use server::{Address, Login, plain_options, request_options};
pub use shard_key;
pub use shards::{ServerStatus, ShardStatus};

use std::time::Duration;

/// Redirects that one request follows before it answers "unavailable" (ARCHITECTURE, invariant 12).
pub const MAX_HOPS: u32 = 3;
/// How long one request waits for a fenced bucket, all sleeps together.
pub const MAX_FENCE_WAIT: Duration = Duration::from_millis(500);

/// A tenth up or down, so that nodes and connections do not act in step.
pub(crate) fn jitter(duration: Duration) -> Duration {
    duration.mul_f64(rand::random_range(0.9..1.1))
}
