//! Sessions and the refresh table of RELIABILITY.
use async_trait::async_trait;
use shard_key::{SessionId, UserId};

use super::{Freshness, StoreError};
use crate::domain::{DeviceHash, LiveSession, RevokeReason, SessionLimits, SessionSummary, User};

/// A refresh token whose MAC was right, and who presents it.
#[derive(Clone, Debug)]
pub struct Presented {
    /// The session in the token.
    pub session: SessionId,
    /// The generation in the token.
    pub generation: i64,
    /// SHA-256 of the seed in the token.
    pub seed_hash: [u8; 32],
    /// The device, where one was presented.
    pub device: Option<DeviceHash>,
    /// The key that a new successor is made with.
    pub new_kid: u32,
    /// The address as text.
    pub ip: String,
    /// The user agent.
    pub user_agent: String,
}

/// The successor to hand out: everything a token pair is made of.
#[derive(Debug)]
pub struct Refreshed {
    /// The session, live on the primary.
    pub session: LiveSession,
    /// Its user, active.
    pub user: User,
    /// The generation of the successor.
    pub generation: i64,
    /// The key that the successor is (or was) made with.
    pub refresh_kid: u32,
}

/// The verdict over a token that could neither be rotated nor replayed at once.
#[derive(Debug)]
pub enum Judgement {
    /// A bound device came back late: the same successor, a risk event, a notice.
    Late(Box<Refreshed>),
    /// The successor was handed out often enough; nothing was written.
    Storm,
    /// By now it can be rotated or replayed: the session changed between the statements. Try again.
    Current,
    /// Reuse: the family is revoked now, in this transaction.
    Reused(Revoked),
    /// No such session, already over, another family's seed, or the user is not active.
    Dead,
}

/// A session that ended, with the version that its tombstone carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// The session.
    pub session: SessionId,
    /// Its version after the revocation.
    pub version: i64,
}

/// The session repository. All windows are measured by the database's clock.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// The hot path: one gated statement, one durable write. `None`: not current, or not live.
    async fn rotate(
        &self,
        token: &Presented,
        limits: &SessionLimits,
    ) -> Result<Option<Refreshed>, StoreError>;

    /// The same successor again, inside the window and the count. `None`: neither.
    async fn replay(
        &self,
        token: &Presented,
        limits: &SessionLimits,
    ) -> Result<Option<Refreshed>, StoreError>;

    /// Classifies under a row lock and acts on it, with its audit event.
    async fn judge(&self, token: &Presented, limits: &SessionLimits) -> Result<Judgement, StoreError>;

    /// The session, if it is live and its user active, from the primary.
    async fn get(&self, session: SessionId) -> Result<Option<LiveSession>, StoreError>;

    /// The live sessions of a user, the newest first, at most `limit`.
    async fn list(
        &self,
        user: UserId,
        limit: i64,
        freshness: Freshness,
    ) -> Result<Vec<SessionSummary>, StoreError>;

    /// Ends one session of this user. `None`: it is not theirs, or over already.
    async fn revoke(
        &self,
        session: SessionId,
        user: UserId,
        reason: RevokeReason,
    ) -> Result<Option<Revoked>, StoreError>;

    /// Ends all live sessions of the user but `keep`, if `keep` is live itself. `None`: it is not.
    async fn revoke_others(&self, user: UserId, keep: SessionId) -> Result<Option<Vec<Revoked>>, StoreError>;

    /// The sessions of a user that ended within the last minutes, as long as a copy of one might still be believed: for
    /// the tombstones of a call whose outcome nobody heard.
    async fn list_ended(&self, user: UserId) -> Result<Vec<Revoked>, StoreError>;
}
