//! A user, as the services and the API see one.
use chrono::{DateTime, Utc};
use shard_key::{TenantId, UserId};

use super::{DisplayName, Email};

/// An active user. Disabled and deleted users are not handed out by the ports.
#[derive(Clone, Debug)]
pub struct User {
    /// The id; the user's bucket is inside it.
    pub id: UserId,
    /// The tenant that the user belongs to.
    pub tenant: TenantId,
    /// The primary e-mail address, as the user wrote it.
    pub email: String,
    /// Whether the address was ever proven.
    pub email_verified: bool,
    /// What the user wants to be called.
    pub name: Option<DisplayName>,
    /// When the account was made (database clock).
    pub created_at: DateTime<Utc>,
}

impl User {
    /// The user that a registration is about to insert.
    pub fn new(id: UserId, email: &Email, name: Option<DisplayName>, created_at: DateTime<Utc>) -> Self {
        let email = email.as_written().to_owned();
        Self { id, tenant: TenantId::DEFAULT, email, email_verified: false, name, created_at }
    }
}

/// The name of a tenant as tokens carry it. There is one tenant until organisations come.
pub fn tenant_slug(tenant: TenantId) -> &'static str {
    if tenant == TenantId::DEFAULT { "default" } else { "unknown" }
}
