//! What the rules need from the world: state, time, chance. Implemented in `auth-store` and `auth-node`.
//!
//! Every data call names its bucket by type (a [`shard_key::UserId`], [`shard_key::SessionId`] or [`shard_key::Bucket`]).
//! One method is one atomic, shard-local transaction on the primary, acknowledged after its durable commit, unless it
//! says otherwise. Any `Err` means "unknown or unavailable" and never a verdict about a credential.
#![deny(missing_docs)]

mod accounts;
mod cache;
mod keys;
mod limits;
mod logins;
mod sessions;
pub mod trail;

use chrono::{DateTime, Utc};

use crate::domain::ReadPosition;

pub use accounts::{Accounts, Idempotency, NewAccount, Once, PasswordChange, StoredCredential};
pub use cache::{CacheAnswer, SessionCache};
pub use keys::{KeyRow, KeyStore, NewKey};
pub use limits::Limits;
pub use logins::{AttemptKey, Candidate, Login, Logins, Opened, Reserved};
pub use sessions::{Judgement, Presented, Refreshed, Revoked, Sessions};

/// Why a store could not say.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The shard, its pool or the bucket is not to be had now; nothing was written.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The connection was lost around the commit: it may or may not have happened.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// Turned away at the door to keep the rest of the node and of the shard well; nothing was written.
    #[error("overloaded: {0}")]
    Overloaded(String),
    /// A row that does not decode. A bug or a damaged row, not an outage.
    #[error("corrupt: {0}")]
    Corrupt(String),
}

impl StoreError {
    /// Whether the same call may be made again without doing the thing twice.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Overloaded(_))
    }
}

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// From the primary. Everything that decides about security.
    Primary,
    /// A replica may answer that has everything up to here; and the primary, if none has.
    After(ReadPosition),
    /// A healthy replica may answer, up to its allowed lag (1 s) late. Only where stale data harms nobody.
    ReplicaAllowed,
}

/// The wall clock of this node. The database has its own, and its windows are measured by that one.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> DateTime<Utc>;
}

/// A cryptographically secure source of bytes.
pub trait Random: Send + Sync {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// `N` random bytes.
pub fn random_bytes<const N: usize>(random: &dyn Random) -> [u8; N] {
    let mut bytes = [0; N];
    random.fill(&mut bytes);
    bytes
}
