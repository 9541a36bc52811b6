//! What nobody needs any more, a little at a time, on every shard. A background job: `scatter_` says so.
//!
//! Each statement looks only at buckets that its shard owns: what a move left behind, or is still bringing, is not
//! ours to judge.
use std::time::{Duration, Instant};

use shard_router::ShardId;

use crate::Store;
use crate::errors::TxError;

const BATCH: i64 = 500;
/// How long a pass works at one table of one shard; what is left waits for the next.
const PASS: Duration = Duration::from_secs(5);
const PARTITIONS_AHEAD: &str = "60 days";

const ENSURE_PARTITIONS: &str = "SELECT shard.ensure_audit_partitions($1::text::interval)";

/// Deletes up to $1 rows of a table, by its primary key, that satisfy a condition.
macro_rules! sweep {
    ($table:literal, $key:literal, $condition:literal, $order:literal) => {
        concat!(
            "DELETE FROM shard.",
            $table,
            " t WHERE (",
            $key,
            ") IN (SELECT ",
            $key,
            " FROM shard.",
            $table,
            " t JOIN meta.bucket_owner o ON o.bucket = t.bucket AND o.state = 'A' WHERE ",
            $condition,
            " ORDER BY ",
            $order,
            " LIMIT $1 FOR UPDATE OF t SKIP LOCKED) AND ",
            $condition
        )
    };
}

/// Name for metrics, statement.
const SWEEPS: [(&str, &str); 4] = [
    ("idempotency", sweep!("idempotency", "t.bucket, t.key_hash", "t.expires_at < now()", "t.expires_at")),
    (
        "login_attempts",
        sweep!(
            "login_attempts",
            "t.bucket, t.subject, t.scope",
            "t.window_ends < now() - interval '1 day'",
            "t.window_ends"
        ),
    ),
    (
        "sessions",
        sweep!(
            "sessions",
            "t.bucket, t.session_id",
            "t.absolute_expires_at < now() - interval '30 days'",
            "t.absolute_expires_at"
        ),
    ),
    // A revocation says nothing once every token of the session is dead; a notice waits until it was sent.
    (
        "outbox",
        sweep!(
            "outbox",
            "t.bucket, t.outbox_id",
            "t.created_at < now() - interval '30 days' AND (t.done_at IS NOT NULL OR t.topic = 'session.revoked')",
            "t.created_at"
        ),
    ),
];

/// What one pass did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Rows deleted.
    pub rows: u64,
    /// Monthly partitions of the audit trail that were made.
    pub partitions: i32,
    /// Shards that could not be swept (entirely); the next pass tries again.
    pub failed: Vec<ShardId>,
}

impl Store {
    /// One bounded pass over all shards. Call it every few minutes from one task a node: passes of several nodes only
    /// get in each other's way.
    pub async fn scatter_sweep(&self) -> Swept {
        let mut swept = Swept::default();
        for shard in self.tx.router().shards() {
            if let Err(error) = self.sweep_shard(shard, &mut swept).await {
                let (_, why) = error.fault();
                tracing::warn!(shard.id = shard.get(), why, "sweep did not finish");
                swept.failed.push(shard);
            }
        }
        swept
    }

    async fn sweep_shard(&self, shard: ShardId, swept: &mut Swept) -> Result<(), TxError> {
        let limit = Duration::from_secs(30);
        match tokio::time::timeout(limit, self.sweep_all(shard, swept)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                Err(auth_core::ports::StoreError::Unavailable("the sweep took too long".to_owned()).into())
            }
        }
    }

    async fn sweep_all(&self, shard: ShardId, swept: &mut Swept) -> Result<(), TxError> {
        let mut conn = self
            .tx
            .router()
            .primary(shard)
            .await
            .map_err(|e| auth_core::ports::StoreError::Unavailable(e.to_string()))?;
        swept.partitions += sqlx::query_scalar::<_, i32>(ENSURE_PARTITIONS)
            .bind(PARTITIONS_AHEAD)
            .fetch_one(&mut *conn)
            .await?;
        for (table, statement) in SWEEPS {
            let started = Instant::now();
            while started.elapsed() < PASS {
                let deleted = sqlx::query(statement).bind(BATCH).execute(&mut *conn).await?.rows_affected();
                metrics::counter!("tessera_store_swept_total", "table" => table).increment(deleted);
                swept.rows += deleted;
                if deleted < BATCH.unsigned_abs() {
                    break;
                }
            }
        }
        conn.release();
        Ok(())
    }
}
