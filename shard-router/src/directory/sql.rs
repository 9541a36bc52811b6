//! Every statement about the directory and about `meta.*`. Nothing here knows of users.

pub(crate) const SECTION_VERSIONS: &str = "SELECT section, v FROM directory.section_version";

pub(crate) const SHARDS: &str =
    "SELECT shard_id, host, port, dbname, replicas, weight FROM directory.shard ORDER BY shard_id";

pub(crate) const BUCKETS: &str = "SELECT bucket, shard_id, epoch FROM directory.bucket_map ORDER BY bucket";

pub(crate) const FINGERPRINTS: &str = "SELECT name, fingerprint FROM directory.key_fingerprint";

pub(crate) const KEYS: &str = "SELECT kid, alg, public, sealed_private, created_at, published_at, signs_from,
        signs_until, removed_at, distrusted_at
    FROM directory.signing_key ORDER BY signs_from, kid";

/// Holding this row keeps every other writer of keys out until commit.
pub(crate) const LOCK_KEYS: &str =
    "SELECT v FROM directory.section_version WHERE section = 'keys' FOR UPDATE";

pub(crate) const INSERT_KEY: &str = "INSERT INTO directory.signing_key
        (kid, alg, public, sealed_private, created_at, published_at, signs_from, signs_until)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (kid) DO NOTHING";

pub(crate) const SET_SIGNS_UNTIL: &str =
    "UPDATE directory.signing_key SET signs_until = $2 WHERE kid = $1 AND removed_at IS NULL";

pub(crate) const DISTRUST_KEY: &str =
    "UPDATE directory.signing_key SET distrusted_at = coalesce(distrusted_at, $2) WHERE kid = $1";

pub(crate) const REMOVE_KEY: &str =
    "UPDATE directory.signing_key SET removed_at = coalesce(removed_at, $2) WHERE kid = $1";

pub(crate) const UPSERT_SHARD: &str =
    "INSERT INTO directory.shard AS s (shard_id, host, port, dbname, replicas, weight)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (shard_id) DO UPDATE SET host = excluded.host, port = excluded.port, dbname = excluded.dbname,
        replicas = excluded.replicas
    WHERE (s.host, s.port, s.dbname, s.replicas)
        IS DISTINCT FROM (excluded.host, excluded.port, excluded.dbname, excluded.replicas)";

pub(crate) const DRAIN_SHARD: &str =
    "UPDATE directory.shard SET state = 'draining', weight = 0 WHERE shard_id = $1";

/// Serialises bootstraps; released at commit.
pub(crate) const LOCK_BOOTSTRAP: &str = "SELECT pg_advisory_xact_lock(7305017)";

pub(crate) const INSERT_PLACEMENTS: &str = "INSERT INTO directory.bucket_map (bucket, shard_id, epoch)
    SELECT b, s, 1 FROM unnest($1::int[], $2::smallint[]) AS t (b, s)";

pub(crate) const INSERT_FINGERPRINT: &str = "INSERT INTO directory.key_fingerprint (name, fingerprint)
    VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";

/// First ownership only: a row that exists is somebody's decision and stays.
pub(crate) const INSERT_OWNERS: &str = "INSERT INTO meta.bucket_owner (bucket, state, epoch)
    SELECT b, CASE WHEN mine THEN 'A' ELSE 'I' END::\"char\", 1
    FROM unnest($1::int[], $2::bool[]) AS t (b, mine) ON CONFLICT (bucket) DO NOTHING";

pub(crate) const INSERT_SHARD_FINGERPRINT: &str = "INSERT INTO meta.key_fingerprint (name, fingerprint)
    VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";

pub(crate) const SHARD_FINGERPRINTS: &str = "SELECT name, fingerprint FROM meta.key_fingerprint";

pub(crate) const INSERT_DISTRUSTED: &str =
    "INSERT INTO meta.distrusted_key (kid) VALUES ($1) ON CONFLICT (kid) DO NOTHING";

pub(crate) const DISTRUSTED_KIDS: &str = "SELECT kid FROM meta.distrusted_key ORDER BY kid";

/// A beat from the future was written before the clock was set back: it must not silence the next ones.
pub(crate) const BEAT: &str = "UPDATE meta.heartbeat SET beat_at = clock_timestamp()
    WHERE beat_at < clock_timestamp() - interval '500 milliseconds'
       OR beat_at > clock_timestamp()";

pub(crate) const READ_BEAT: &str = "SELECT beat_at, clock_timestamp(), pg_is_in_recovery(),
        (SELECT max(version) FROM meta.applied_migration WHERE success)
    FROM meta.heartbeat";

/// On a replica, in a statement of its own: a read that begins afterwards sees at least this much. With a schema older than
/// the fourth there is no timeline, and so no position.
pub(crate) const REPLAYED: &str =
    "SELECT (to_jsonb(h) ->> 'timeline')::int, pg_last_wal_replay_lsn()::text FROM meta.heartbeat h";

pub(crate) const READ_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

pub(crate) const PLACEMENT: &str = "SELECT shard_id, epoch FROM directory.bucket_map WHERE bucket = $1";

pub(crate) const OWNER_COUNTS: &str =
    "SELECT state::text, count(*) FROM meta.bucket_owner GROUP BY state ORDER BY state";

/// What is there already is what was believed first: a second quarantine adds nothing.
pub(crate) const REMEMBER_OWNERS: &str = "INSERT INTO meta.quarantine (bucket, state, epoch)
    SELECT bucket, state, epoch FROM meta.bucket_owner ON CONFLICT (bucket) DO NOTHING";

pub(crate) const OWN_NOTHING: &str = "UPDATE meta.bucket_owner SET state = 'I', fence_deadline = NULL
    WHERE state <> 'I'";

pub(crate) const REMEMBERED: &str = "SELECT bucket, state FROM meta.quarantine";

pub(crate) const OWNED: &str = "SELECT bucket FROM meta.bucket_owner WHERE state IN ('A', 'F')";

pub(crate) const OPEN_MOVES_OF: &str = "SELECT count(*) FROM directory.move
    WHERE state NOT IN ('planned', 'done', 'aborted', 'rolled_back') AND $1 IN (src, dst)";

pub(crate) const LOCKED_BUCKETS: &str =
    "SELECT bucket, shard_id, epoch FROM directory.bucket_map ORDER BY bucket FOR UPDATE";

pub(crate) const RAISE_EPOCHS: &str =
    "UPDATE directory.bucket_map SET epoch = epoch + 1 WHERE bucket = ANY ($1)";

pub(crate) const REDIRECT: &str =
    "UPDATE meta.bucket_owner o SET state = 'M', moved_to = t.owner, epoch = t.epoch
    FROM unnest($1::int[], $2::smallint[], $3::bigint[]) AS t (bucket, owner, epoch)
    WHERE o.bucket = t.bucket AND o.state = 'I'";

pub(crate) const SERVE_AGAIN: &str =
    "UPDATE meta.bucket_owner o SET state = 'A', moved_to = NULL, epoch = t.epoch
    FROM unnest($1::int[], $2::bigint[]) AS t (bucket, epoch)
    WHERE o.bucket = t.bucket AND o.state = 'I' AND EXISTS (SELECT FROM meta.quarantine)";

/// What is settled must not be believed in a later quarantine.
pub(crate) const FORGET_QUARANTINE: &str = "DELETE FROM meta.quarantine WHERE bucket <> ALL ($1)";
