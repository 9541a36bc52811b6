//! The audit trail: one hash chain a bucket, made by `shard.audit_append`, checked here.
use auth_core::ports::StoreError;
use serde_json::Value;
use shard_key::{Bucket, TenantId, UserId};
use shard_router::Gated;
use sqlx::postgres::PgConnection;
use sqlx::types::Json;

use super::args;
use super::rows::{gated, get};
use crate::Store;
use crate::errors::{Kind, TxError};
use crate::tx::{Call, End, op};

/// It gates itself: it begins with a new row for the chain's head, which a shard that does not own the bucket refuses.
const APPEND: &str = "SELECT shard.audit_append($1, $2, $3, $4, $5)";

/// Recomputes the chain from its first row. The head must be the last row's hash, else the end was cut off.
const VERIFY: Gated = shard_router::gated_read!(
    "SELECT min(c.seq) FILTER (WHERE c.broken) AS broken, count(*) AS rows FROM (
        SELECT a.seq, a.seq <> row_number() OVER (ORDER BY a.seq) OR a.hash <> shard.audit_hash(
            coalesce(lag(a.hash) OVER (ORDER BY a.seq), sha256(''::bytea)),
            a.bucket, a.seq, a.at, a.tenant_id, a.user_id, a.event, a.detail) AS broken
        FROM shard.audit a WHERE a.bucket = $1
        UNION ALL
        SELECT h.seq, NOT EXISTS (
            SELECT FROM shard.audit a WHERE a.bucket = $1 AND a.seq = h.seq AND a.hash = h.hash)
            OR EXISTS (SELECT FROM shard.audit a WHERE a.bucket = $1 AND a.seq > h.seq)
        FROM shard.audit_head h WHERE h.bucket = $1
     ) c"
);

/// Something that happened to a user, for the trail. Details hold ids and reasons, never a personal value.
pub(crate) struct Event<'a> {
    pub tenant: TenantId,
    pub user: UserId,
    pub name: &'a str,
    pub detail: Value,
}

/// Appends an event. The last statement of its transaction: it holds the chain's head until commit.
pub(crate) async fn append(conn: &mut PgConnection, bucket: Bucket, event: Event<'_>) -> Result<(), TxError> {
    let args =
        args![i32::from(bucket), event.tenant.get(), event.user.as_uuid(), event.name, Json(event.detail)];
    sqlx::query_with(APPEND, args).execute(conn).await?;
    Ok(())
}

/// What a check of a chain found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// Every hash follows from the one before.
    Whole,
    /// The first sequence number that does not.
    BrokenAt(i64),
}

impl Store {
    /// Recomputes a bucket's audit chain on its owner. For operators and tests: it reads the bucket's whole trail, so a
    /// very long one runs into the statement timeout and is `Unavailable`.
    pub async fn verify_chain(&self, bucket: Bucket) -> Result<Chain, StoreError> {
        let call = Call { bucket, op: op!("audit.verify_chain", P5), kind: Kind::Read };
        self.tx
            .run(call, &(), |(), conn| {
                Box::pin(async move {
                    let rows = gated(conn, VERIFY, args![i32::from(bucket)]).await?;
                    let broken = rows.first().map_or(Ok(None), |row| get::<Option<i64>>(row, "broken"))?;
                    Ok(End::Keep(broken.map_or(Chain::Whole, Chain::BrokenAt)))
                })
            })
            .await
    }
}
