//! Logging in: the exact failure limits, the candidate, and the session that success opens.
use std::time::Duration;

use async_trait::async_trait;
use shard_key::{Bucket, SessionId, TenantId, UserId};

use super::{Revoked, StoreError, StoredCredential};
use crate::crypto::password::StoredPassword;
use crate::domain::{DeviceHash, LiveSession, PasswordLimits, SessionLimits, User};

/// What failures are counted for.
#[derive(Clone, Debug)]
pub struct AttemptKey {
    /// The bucket of the counters: the identifier's, or the user's for a logged-in one.
    pub bucket: Bucket,
    /// The tenant.
    pub tenant: TenantId,
    /// The identifier's lookup hash, or a hash of the user id.
    pub subject: [u8; 32],
    /// The address prefix.
    pub scope: String,
}

/// The account behind an identifier that somebody tries to log in to.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The user, active.
    pub user: User,
    /// Its password row.
    pub credential: StoredCredential,
    /// Whether the presented device has logged in to this account before.
    pub known_device: bool,
}

/// The answer to a reservation.
#[derive(Debug)]
pub enum Reserved {
    /// The limit is reached: nothing may be evaluated for that long.
    Limited(Duration),
    /// One evaluation is paid for.
    Go {
        /// The account; `None` looks the same to the caller from outside.
        candidate: Option<Candidate>,
        /// Too many unknown devices tried this identifier: answer late.
        delayed: bool,
    },
}

/// A proven login.
pub struct Login {
    /// The user.
    pub user_id: UserId,
    /// The session to open, in the user's bucket.
    pub session: SessionId,
    /// The client, `first-party` for our own.
    pub client_id: String,
    /// How it was proven (RFC 8176).
    pub amr: Vec<String>,
    /// SHA-256 of the refresh family's seed.
    pub seed_hash: [u8; 32],
    /// The key that the first refresh token is made with.
    pub refresh_kid: u32,
    /// The device, known or newly issued.
    pub device: DeviceHash,
    /// Whether the client presented it (else the binding waits for the first refresh that does).
    pub bound: bool,
    /// The address as text.
    pub ip: String,
    /// The user agent.
    pub user_agent: String,
    /// The version of the credential that was verified: a password changed meanwhile fails the login.
    pub credential_version: i64,
    /// A new hash of the same password, when parameters changed; stored if nobody else did, without a new version.
    pub rehashed: Option<StoredPassword>,
    /// The counters to clear.
    pub attempt: AttemptKey,
}

/// A session was opened.
#[derive(Debug)]
pub struct Opened {
    /// The session.
    pub session: LiveSession,
    /// Sessions beyond the allowed number, ended in the same transaction.
    pub ended: Vec<Revoked>,
}

/// The login repository.
#[async_trait]
pub trait Logins: Send + Sync {
    /// Counts one attempt against both limits and fetches the candidate of an e-mail's lookup hash, committed before
    /// the password is looked at. `device`: the presented device.
    async fn reserve(
        &self,
        attempt: &AttemptKey,
        device: Option<DeviceHash>,
        limits: &PasswordLimits,
    ) -> Result<Reserved, StoreError>;

    /// Takes one counted attempt back: its password was never looked at, because the hash queue was full.
    async fn refund(&self, attempt: &AttemptKey, device: Option<DeviceHash>) -> Result<(), StoreError>;

    /// Counts one attempt of a logged-in user who must prove their password. `Some(wait)`: limited.
    async fn reserve_proof(
        &self,
        attempt: &AttemptKey,
        limits: &PasswordLimits,
    ) -> Result<Option<Duration>, StoreError>;

    /// Clears the counters of a proof that succeeded.
    async fn clear_proof(&self, attempt: &AttemptKey) -> Result<(), StoreError>;

    /// Opens the session, remembers the device, clears the attempts, keeps a rehash, audits. `None`: user or credential
    /// changed meanwhile.
    async fn open(&self, login: &Login, limits: &SessionLimits) -> Result<Option<Opened>, StoreError>;
}
