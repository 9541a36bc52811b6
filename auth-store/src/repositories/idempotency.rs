//! `Idempotency-Key` rows, written in the transaction of the effect that they guard.
//!
//! Only what happened is kept: a refusal has no effect, so asking again is harmless.
use auth_core::ports::{Idempotency, Once};
use shard_key::{Bucket, TenantId};
use shard_router::Gated;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::args;
use super::rows::{gated, gated_one, get};
use crate::errors::TxError;

/// A lock of its own statement: a lock and a read in one would read from before the lock.
const LOCK: &str = "SELECT pg_try_advisory_xact_lock($1)";

const FIND: Gated = shard_router::gated_read!(
    "SELECT i.request_mac, i.resource_id FROM shard.idempotency i
     WHERE i.bucket = $1 AND i.key_hash = $2 AND i.expires_at > now()"
);

const INSERT: Gated = shard_router::gated!(
    "INSERT INTO shard.idempotency AS i (bucket, key_hash, tenant_id, request_mac, status, resource_id, expires_at)
     VALUES ($1, $2, $3, $4, 1, $5, now() + interval '24 hours')
     ON CONFLICT (bucket, key_hash) DO UPDATE SET request_mac = excluded.request_mac, status = excluded.status,
        resource_id = excluded.resource_id, created_at = now(), expires_at = excluded.expires_at
     WHERE i.expires_at <= now()
     RETURNING i.key_hash"
);

/// Claims the key for this transaction. `Some`: the answer is known already, or another call is working on it.
pub(crate) async fn begin<T>(
    conn: &mut PgConnection,
    bucket: Bucket,
    once: Option<&Idempotency>,
) -> Result<Option<Once<T>>, TxError> {
    let Some(once) = once else { return Ok(None) };
    let (head, _) = once.key_hash.split_first_chunk::<8>().expect("32 bytes have a first 8");
    let locked: bool =
        sqlx::query_scalar_with(LOCK, args![i64::from_be_bytes(*head)]).fetch_one(&mut *conn).await?;
    if !locked {
        return Ok(Some(Once::Running));
    }
    find(conn, bucket, once).await
}

/// What the key answered before.
pub(crate) async fn find<T>(
    conn: &mut PgConnection,
    bucket: Bucket,
    once: &Idempotency,
) -> Result<Option<Once<T>>, TxError> {
    let args = args![i32::from(bucket), once.key_hash.as_slice()];
    let Some(row) = gated_one(conn, FIND, args, "request_mac").await? else { return Ok(None) };
    let mac: Vec<u8> = get(&row, "request_mac")?;
    let resource: Option<Uuid> = get(&row, "resource_id")?;
    Ok(Some(if mac == once.request_mac { Once::Replayed(resource) } else { Once::Mismatch }))
}

/// Keeps the answer.
pub(crate) async fn finish(
    conn: &mut PgConnection,
    bucket: Bucket,
    tenant: TenantId,
    once: Option<&Idempotency>,
    resource: Uuid,
) -> Result<(), TxError> {
    let Some(once) = once else { return Ok(()) };
    let args = args![
        i32::from(bucket),
        once.key_hash.as_slice(),
        tenant.get(),
        once.request_mac.as_slice(),
        resource
    ];
    gated(conn, INSERT, args).await?;
    Ok(())
}
