//! Accounts: users with their identifiers and credentials.
use async_trait::async_trait;
use chrono::Duration;
use shard_key::{Bucket, LookupHash, SessionId, UserId};
use uuid::Uuid;

use super::{Freshness, Revoked, StoreError};
use crate::crypto::password::StoredPassword;
use crate::domain::{DisplayName, Email, User};

/// An account to insert. Its user id lies in the bucket of its e-mail address.
pub struct NewAccount {
    /// The user; `created_at` is replaced by the database's clock.
    pub user: User,
    /// The address, with its normal form.
    pub email: Email,
    /// The key of the address on its shard.
    pub lookup_hash: LookupHash,
    /// The hashed password.
    pub password: StoredPassword,
}

/// The password row of a user.
#[derive(Clone, Debug)]
pub struct StoredCredential {
    /// PHC string and pepper.
    pub password: StoredPassword,
    /// Grows with every new password, and only then: a rehash of the same password leaves it, so that parallel logins
    /// do not fail each other.
    pub version: i64,
}

/// A password change by a logged-in user. `session` stays, every other session of the user ends.
pub struct PasswordChange {
    /// Whose password.
    pub user_id: UserId,
    /// The caller's session, which must still be live.
    pub session: SessionId,
    /// The version of the credential that was verified.
    pub expected_version: i64,
    /// The new hash.
    pub password: StoredPassword,
}

/// An `Idempotency-Key`, bound to tenant, route, principal and key by its hash, and to the request by a MAC.
#[derive(Clone, Copy, Debug)]
pub struct Idempotency {
    /// Names the row.
    pub key_hash: [u8; 32],
    /// Differs when the request differs.
    pub request_mac: [u8; 32],
}

/// The outcome of a call that an idempotency key may guard.
#[derive(Debug, PartialEq, Eq)]
pub enum Once<T> {
    /// It ran now.
    Done(T),
    /// It ran before with the same request; the id is what it made.
    Replayed(Option<Uuid>),
    /// The key was used for another request.
    Mismatch,
    /// Another call with the key is running.
    Running,
}

/// The account repository.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// Inserts identifier, user, credential and audit event. `Done(None)`: the address is taken (active, reserved or held).
    async fn insert(
        &self,
        account: &NewAccount,
        once: Option<&Idempotency>,
    ) -> Result<Once<Option<User>>, StoreError>;

    /// What an idempotency key answered, if it did: `Replayed` or `Mismatch`. For callers that want to know before
    /// they do costly work; the transaction of the effect decides.
    async fn find_once(&self, bucket: Bucket, once: &Idempotency) -> Result<Option<Once<()>>, StoreError>;

    /// The active user.
    async fn get(&self, user: UserId, freshness: Freshness) -> Result<Option<User>, StoreError>;

    /// Sets the display name, if the session is live and the user active. `Done(None)`: they are not.
    async fn rename(
        &self,
        user: UserId,
        session: SessionId,
        name: Option<&DisplayName>,
        once: Option<&Idempotency>,
    ) -> Result<Once<Option<User>>, StoreError>;

    /// The password row of an active user with this live session.
    async fn get_password(
        &self,
        user: UserId,
        session: SessionId,
    ) -> Result<Option<StoredCredential>, StoreError>;

    /// Replaces the password and ends all other sessions. `Done(None)`: session, user or credential changed meanwhile.
    async fn change_password(
        &self,
        change: &PasswordChange,
        once: Option<&Idempotency>,
    ) -> Result<Once<Option<Vec<Revoked>>>, StoreError>;

    /// Marks the user deleted, drops credentials and devices, ends all sessions and holds the identifiers for `hold`.
    /// `Done(None)`: session, user or credential changed meanwhile.
    async fn delete(
        &self,
        user: UserId,
        session: SessionId,
        expected_version: i64,
        hold: Duration,
        once: Option<&Idempotency>,
    ) -> Result<Once<Option<Vec<Revoked>>>, StoreError>;
}
