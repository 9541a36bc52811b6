//! Sessions: one login of one user on one device.
use chrono::{DateTime, Utc};
use shard_key::{SessionId, TenantId, UserId};

/// A session that was live on its primary at `checked_at`, of a user who was active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveSession {
    /// The session; its bucket is the user's.
    pub id: SessionId,
    /// Whose session it is.
    pub user_id: UserId,
    /// The tenant of the user.
    pub tenant: TenantId,
    /// The client that the session was opened for (`first-party` until OAuth).
    pub client_id: String,
    /// How the user proved who they are (RFC 8176).
    pub amr: Vec<String>,
    /// When the user last proved it.
    pub auth_time: DateTime<Utc>,
    /// Grows with every change that a cached copy must not survive.
    pub version: i64,
    /// The end if nothing happens: idle or absolute, whichever is first.
    pub expires_at: DateTime<Utc>,
    /// When the primary said all this, by its own clock.
    pub checked_at: DateTime<Utc>,
}

/// A session as its owner sees it in the list.
#[derive(Clone, Debug)]
pub struct SessionSummary {
    /// The session.
    pub id: SessionId,
    /// The address it was last used from.
    pub ip: String,
    /// The user agent it was last used with.
    pub user_agent: String,
    /// When it was opened.
    pub created_at: DateTime<Utc>,
    /// When it last logged in or refreshed.
    pub last_seen_at: DateTime<Utc>,
    /// When it ends if nothing happens.
    pub expires_at: DateTime<Utc>,
}

/// Why a session was ended; kept in the row and in the audit trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokeReason {
    /// The user logged out of it.
    Logout,
    /// The user ended it from another session.
    EndedByUser,
    /// The password was changed from another session.
    PasswordChanged,
    /// A refresh token was used twice: theft or a fork.
    RefreshReuse,
    /// More than the allowed number of live sessions: the oldest goes.
    TooMany,
    /// The account was deleted.
    UserDeleted,
}

impl RevokeReason {
    /// The stable text for rows, audit and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::EndedByUser => "ended_by_user",
            Self::PasswordChanged => "password_changed",
            Self::RefreshReuse => "refresh_reuse",
            Self::TooMany => "too_many",
            Self::UserDeleted => "user_deleted",
        }
    }
}
