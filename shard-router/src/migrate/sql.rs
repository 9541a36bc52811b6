//! Every statement of rollouts and backfills, except the steps of a backfill, which whoever writes one brings along.

pub(crate) const SHARD_HISTORY: &str =
    "SELECT version, description, checksum FROM meta.applied_migration WHERE success ORDER BY version";

pub(super) const HAS_HISTORY: &str = "SELECT to_regclass($1 || '.applied_migration') IS NOT NULL";
pub(super) const DIRECTORY_HISTORY: &str =
    "SELECT version, description, checksum FROM directory.applied_migration WHERE success ORDER BY version";

/// What a concurrent build left behind that did not finish: it costs every write and helps no read.
pub(super) const HALF_BUILT: &str = "SELECT format('DROP INDEX CONCURRENTLY %I.%I', n.nspname, c.relname)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT i.indisvalid AND c.relkind = 'i' AND $1 ~ ('\\m' || c.relname || '\\M')";

// ---- rollouts, in the directory ----

/// One at a time. Held by the session, so that it ends with whoever holds it. Waited for, because the session of one
/// that was killed takes a moment to end.
pub(super) const WAIT_FOR_ROLLOUTS: &str = "SELECT set_config('lock_timeout', '5s', false)";
pub(super) const LOCK_ROLLOUT: &str = "SELECT pg_advisory_lock(7305020)";
pub(super) const UNLOCK_ROLLOUT: &str = "SELECT pg_advisory_unlock(7305020)";

pub(super) const OPEN_ROLLOUT: &str =
    "SELECT target, canary FROM directory.rollout WHERE finished_at IS NULL";

/// Refused with `SH409` while a move is open.
pub(super) const BEGIN_ROLLOUT: &str = "INSERT INTO directory.rollout (target, canary) VALUES ($1, $2)";

pub(super) const EXTEND_ROLLOUT: &str =
    "UPDATE directory.rollout SET target = greatest(target, $1) WHERE finished_at IS NULL";

pub(super) const END_ROLLOUT: &str =
    "UPDATE directory.rollout SET finished_at = clock_timestamp() WHERE finished_at IS NULL";

pub(super) const SHARD_BEGINS: &str =
    "INSERT INTO directory.schema_state AS s (shard_id, schema_hash, version, stage, started_at)
    VALUES ($1, $2, $3, $4, clock_timestamp())
    ON CONFLICT (shard_id) DO UPDATE SET schema_hash = excluded.schema_hash, version = excluded.version,
        stage = excluded.stage, started_at = excluded.started_at, finished_at = NULL, error = NULL";

pub(super) const SHARD_FAILED: &str = "UPDATE directory.schema_state SET error = $2 WHERE shard_id = $1";

/// Touches nothing that is recorded already.
pub(super) const SHARD_IS_AT: &str =
    "INSERT INTO directory.schema_state AS s (shard_id, schema_hash, version, stage, finished_at)
    VALUES ($1, $2, $3, $4, clock_timestamp())
    ON CONFLICT (shard_id) DO UPDATE SET schema_hash = excluded.schema_hash, version = excluded.version,
        stage = excluded.stage, migrated_at = clock_timestamp(), finished_at = clock_timestamp(), error = NULL
    WHERE (s.schema_hash, s.version, s.stage) IS DISTINCT FROM (excluded.schema_hash, excluded.version, excluded.stage)
        OR s.error IS NOT NULL OR s.finished_at IS NULL";

/// What one more shard must have, so that buckets can move there: what the others have.
pub(super) const LEAST_VERSION: &str = "SELECT min(version) FROM directory.schema_state WHERE version > 0";

// ---- backfills: the directory's side ----

pub(super) const BEGIN_BACKFILL: &str =
    "INSERT INTO directory.backfill (name) VALUES ($1) ON CONFLICT (name) DO NOTHING";

/// Those of some buckets that are not done.
pub(super) const NOT_DONE: &str = "SELECT b.bucket FROM unnest($2::int[]) AS b (bucket), directory.backfill f
    WHERE f.name = $1 AND NOT f.done @> b.bucket ORDER BY b.bucket";

pub(super) const BUCKET_DONE: &str = "WITH c AS (
        DELETE FROM directory.backfill_cursor WHERE name = $1 AND shard_id = $2)
    UPDATE directory.backfill SET done = done + int4multirange(int4range($3, $3, '[]')) WHERE name = $1";

pub(super) const READ_CURSOR: &str =
    "SELECT bucket, last_key FROM directory.backfill_cursor WHERE name = $1 AND shard_id = $2";

pub(super) const WRITE_CURSOR: &str =
    "INSERT INTO directory.backfill_cursor (name, shard_id, bucket, last_key) VALUES ($1, $2, $3, $4)
    ON CONFLICT (name, shard_id) DO UPDATE SET bucket = excluded.bucket, last_key = excluded.last_key";

/// Ends a backfill once every bucket is done; how many are not.
pub(super) const END_BACKFILL: &str = "WITH left_over AS (
        SELECT 16384 - coalesce(sum(upper(r) - lower(r)), 0)::bigint AS n
        FROM directory.backfill f LEFT JOIN LATERAL unnest(f.done) AS r ON true WHERE f.name = $1),
    ended AS (
        UPDATE directory.backfill SET finished_at = clock_timestamp()
        WHERE name = $1 AND finished_at IS NULL AND (SELECT n FROM left_over) = 0)
    SELECT n FROM left_over";

pub(super) const BACKFILL_ENDED: &str =
    "SELECT EXISTS (SELECT FROM directory.backfill WHERE name = $1 AND finished_at IS NOT NULL)";

// ---- backfills: a shard's side ----

pub(super) const OWNED: &str = "SELECT bucket FROM meta.bucket_owner WHERE state = 'A' ORDER BY bucket";

/// Bytes that the replica (or mover) furthest behind has yet to replay.
pub(super) const LAG_BYTES: &str =
    "SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)), 0)::bigint
    FROM pg_stat_replication WHERE state = 'streaming'";
