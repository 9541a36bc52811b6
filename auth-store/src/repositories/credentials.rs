//! The password row of a user.
use auth_core::ports::PasswordChange;
use shard_key::UserId;
use shard_router::{Gated, gated, gated_read};
use sqlx::postgres::PgConnection;

use super::args;
use super::rows::gated_one;
use crate::errors::TxError;

/// Of an active user with a live session.
pub(crate) const GET: Gated = gated_read!(
    "SELECT k.phc, k.pepper_id, k.version AS credential_version
     FROM shard.users u JOIN shard.credentials k ON k.bucket = $1 AND k.user_id = u.user_id AND k.kind = 'password'
        JOIN shard.sessions s ON s.bucket = $1 AND s.session_id = $3 AND s.user_id = u.user_id
            AND s.revoked_at IS NULL AND s.expires_at > now()
     WHERE u.bucket = $1 AND u.user_id = $2 AND u.status = 'active'"
);

const REPLACE: Gated = gated!(
    "UPDATE shard.credentials k SET phc = $4, pepper_id = $5, version = k.version + 1, updated_at = now()
     WHERE k.bucket = $1 AND k.user_id = $2 AND k.kind = 'password' AND k.version = $3
     RETURNING k.version"
);

const LOCK: Gated = gated_read!(
    "SELECT k.version FROM shard.credentials k
     WHERE k.bucket = $1 AND k.user_id = $2 AND k.kind = 'password' AND k.version = $3 FOR NO KEY UPDATE OF k"
);

/// A new password in place of the version that was verified. `false`: it changed meanwhile.
pub(crate) async fn replace(conn: &mut PgConnection, change: &PasswordChange) -> Result<bool, TxError> {
    let args = args![
        i32::from(change.user_id.bucket()),
        change.user_id.as_uuid(),
        change.expected_version,
        &change.password.phc,
        change.password.pepper_id.map(i64::from)
    ];
    Ok(gated_one(conn, REPLACE, args, "version").await?.is_some())
}

/// Locks the version that was verified. `false`: it changed meanwhile.
pub(crate) async fn lock(conn: &mut PgConnection, user: UserId, version: i64) -> Result<bool, TxError> {
    let args = args![i32::from(user.bucket()), user.as_uuid(), version];
    Ok(gated_one(conn, LOCK, args, "version").await?.is_some())
}
