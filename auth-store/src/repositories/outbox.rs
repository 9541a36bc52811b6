//! Intents that must reach the outside world, written with the change that causes them.
use serde_json::Value;
use shard_key::{Bucket, TenantId, UserId};
use shard_router::Gated;
use sqlx::postgres::PgConnection;
use sqlx::types::Json;

use super::args;
use super::rows::gated;
use crate::errors::TxError;

/// Sessions ended: for the revocation feed.
pub(crate) const SESSIONS_ENDED: &str = "session.revoked";
/// The user should hear that a refresh token was used twice.
pub(crate) const NOTICE_REUSE: &str = "notice.refresh_reuse";
/// The user should hear that a device came back late.
pub(crate) const NOTICE_LATE: &str = "notice.refresh_late_replay";

const INSERT: Gated = shard_router::gated!(
    "INSERT INTO shard.outbox (bucket, outbox_id, tenant_id, topic, user_id, payload)
     VALUES ($1, gen_random_uuid(), $2, $3, $4, $5) RETURNING outbox_id"
);

/// Adds an intent. The payload holds ids and reasons, never a personal value or a secret.
pub(crate) async fn insert(
    conn: &mut PgConnection,
    bucket: Bucket,
    tenant: TenantId,
    user: UserId,
    topic: &str,
    payload: Value,
) -> Result<(), TxError> {
    let args = args![i32::from(bucket), tenant.get(), topic, user.as_uuid(), Json(payload)];
    gated(conn, INSERT, args).await?;
    Ok(())
}
