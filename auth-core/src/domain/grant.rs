//! What a login or a refresh hands out, and who an access token speaks for.
use shard_key::{SessionId, UserId};

use super::{LiveSession, User};

/// The answer to a login or a refresh. Holds bearer secrets: no `Debug`.
pub struct Grant {
    /// The signed access token.
    pub access_token: String,
    /// How long it lives, in seconds.
    pub expires_in: i64,
    /// The refresh token to use next.
    pub refresh_token: String,
    /// The session behind both.
    pub session: LiveSession,
    /// The user.
    pub user: User,
}

/// The caller of an authenticated endpoint: what a verified access token says, and a live session.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The user.
    pub user_id: UserId,
    /// The session that the token belongs to.
    pub session_id: SessionId,
    /// The roles in the token.
    pub roles: Vec<String>,
}
