//! Every statement of a move. Each one that changes anything names the state, the attempt or the epoch under which
//! alone it may.

/// The columns of a [`Move`](super::Move), in the order that `ledger` reads them.
macro_rules! columns {
    () => {
        "m.move_id, m.lo, m.hi, m.src, m.dst, m.state, m.attempt, m.epoch, m.fence_deadline,
         m.reverse_from::text AS reverse_from, m.dst_timeline, m.src_timeline, m.reversible, m.verified, m.paused, m.rows_estimated, m.note,
         m.created_at, m.changed_at, m.soaking_since"
    };
}

// ---- the directory ----

pub(super) const GET: &str = concat!("SELECT ", columns!(), " FROM directory.move m WHERE m.move_id = $1");

pub(super) const OPEN: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM directory.move m WHERE m.state NOT IN ('done', 'aborted', 'rolled_back') ORDER BY m.move_id"
);

pub(super) const LATEST: &str =
    concat!("SELECT ", columns!(), " FROM directory.move m ORDER BY m.move_id DESC LIMIT $1");

/// Only a range that lies whole at its source may be planned.
pub(super) const PLAN: &str = concat!(
    "INSERT INTO directory.move AS m (lo, hi, src, dst)
     SELECT $1, $2, $3, $4
     WHERE (SELECT count(*) FROM directory.bucket_map
            WHERE bucket BETWEEN $1 AND $2 AND shard_id = $3) = $2 - $1 + 1
     RETURNING ",
    columns!()
);

/// One mover a pair of shards. Held by the session, so that it ends with the mover; safety does not rest on it.
pub(super) const LOCK_PAIR: &str = "SELECT pg_try_advisory_lock(7305018, $1::int * 32768 + $2::int)";

pub(super) const ADVANCE: &str = concat!(
    "UPDATE directory.move m SET state = $4, changed_at = clock_timestamp(), note = NULL,
         soaking_since = CASE WHEN $4 = 'soaking' THEN clock_timestamp() ELSE m.soaking_since END
     WHERE m.move_id = $1 AND m.state = $2 AND m.attempt = $3 RETURNING ",
    columns!()
);

/// Allocates the attempt and the epoch of a fence.
pub(super) const OPEN_WINDOW: &str = concat!(
    "UPDATE directory.move m SET state = $4, attempt = m.attempt + 1, changed_at = clock_timestamp(),
         fence_deadline = clock_timestamp() + $5 * interval '1 millisecond',
         epoch = (SELECT max(b.epoch) + 1 FROM directory.bucket_map b WHERE b.bucket BETWEEN m.lo AND m.hi)
     WHERE m.move_id = $1 AND m.state = $2 AND m.attempt = $3 AND NOT m.paused RETURNING ",
    columns!()
);

/// The decision against: the owner stays, with the epoch of the fence. Answers how many buckets that were.
pub(super) const UNDO_WINDOW: &str = "WITH m AS (
        UPDATE directory.move SET state = $4, fence_deadline = NULL, changed_at = clock_timestamp(), note = $5
        WHERE move_id = $1 AND state = $2 AND attempt = $3 RETURNING lo, hi, epoch)
    UPDATE directory.bucket_map b SET epoch = m.epoch FROM m WHERE b.bucket BETWEEN m.lo AND m.hi";

/// The decision for: the only statement by which a bucket changes its owner.
pub(super) const DECIDE: &str = "WITH m AS (
        UPDATE directory.move SET state = $4, fence_deadline = NULL, changed_at = clock_timestamp(), note = NULL,
            reverse_from = $5::pg_lsn, reversible = false, verified = NULL
        WHERE move_id = $1 AND state = $2 AND attempt = $3 AND fence_deadline > clock_timestamp()
        RETURNING lo, hi, epoch)
    UPDATE directory.bucket_map b SET shard_id = $6, epoch = m.epoch FROM m WHERE b.bucket BETWEEN m.lo AND m.hi";

pub(super) const IS_OVERDUE: &str = "SELECT coalesce(bool_or(fence_deadline < clock_timestamp()), false)
    FROM directory.move WHERE move_id = $1 AND state IN ('fencing', 'returning')";

pub(super) const SET_NOTE: &str = "UPDATE directory.move SET note = nullif($3, '') WHERE move_id = $1 AND attempt = $2 AND note IS DISTINCT FROM $3";
pub(super) const SET_ROWS: &str = "UPDATE directory.move SET rows_estimated = $2 WHERE move_id = $1";
pub(super) const SET_REVERSIBLE: &str =
    "UPDATE directory.move SET reversible = $3 WHERE move_id = $1 AND attempt = $2";
/// The first one stands.
pub(super) const SET_DST_TIMELINE: &str =
    "UPDATE directory.move SET dst_timeline = coalesce(dst_timeline, $2)
    WHERE move_id = $1 RETURNING dst_timeline";
pub(super) const SET_SRC_TIMELINE: &str =
    "UPDATE directory.move SET src_timeline = coalesce(src_timeline, $2)
    WHERE move_id = $1 RETURNING src_timeline";
pub(super) const SET_VERIFIED: &str =
    "UPDATE directory.move SET verified = $3 WHERE move_id = $1 AND attempt = $2";
pub(super) const SET_PAUSED: &str = "UPDATE directory.move SET paused = $2
    WHERE move_id = $1 AND state NOT IN ('done', 'aborted', 'rolled_back')";

// ---- who owns what, on a shard ----

/// Says which attempt alone may activate this shard. Never touches what it owns, and never goes back: (move, attempt)
/// rises, so that neither an older move nor an older attempt can arm or disarm a later one.
pub(super) const ARM: &str = "UPDATE meta.bucket_owner SET move_id = $3, attempt = $4
    WHERE bucket BETWEEN $1 AND $2 AND state IN ('I', 'M')
      AND (coalesce(move_id, 0), coalesce(attempt, 0)) < ($3, $4)";

/// Buckets of a range that are armed for one attempt, or for a later one; burnt ones only if that is asked.
pub(super) const COUNT_ARMED: &str = "SELECT count(*) FROM meta.bucket_owner
    WHERE bucket BETWEEN $1 AND $2 AND state IN ('I', 'M') AND move_id = $3
      AND attempt >= $4 AND (attempt < 2147483647 OR $4 = 2147483647)";

/// Buckets that a stream may fill: exactly this attempt's. Locked, so that it stays true until the subscription is made.
pub(super) const LOCK_ARMED: &str = "SELECT bucket FROM meta.bucket_owner
    WHERE bucket BETWEEN $1 AND $2 AND state IN ('I', 'M') AND move_id = $3 AND attempt = $4 FOR SHARE";

/// Changes with every promotion. Not from the control file, which learns of it only at a checkpoint.
pub(super) const TIMELINE: &str =
    "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int";

pub(super) const FENCE: &str =
    "UPDATE meta.bucket_owner SET state = 'F', epoch = $3, move_id = $4, attempt = $5,
        moved_to = NULL, fence_deadline = clock_timestamp() + $6 * interval '1 millisecond'
    WHERE bucket BETWEEN $1 AND $2 AND state = 'A' AND epoch < $3";

/// Also raises the epoch of what a late fence of the undone attempt could still reach.
pub(super) const UNFENCE: &str = "UPDATE meta.bucket_owner SET state = 'A', epoch = $3, fence_deadline = NULL
    WHERE bucket BETWEEN $1 AND $2
      AND (state = 'F' AND move_id = $4 AND attempt <= $5 OR state = 'A' AND epoch < $3)";

pub(super) const ACTIVATE: &str = "UPDATE meta.bucket_owner SET state = 'A', epoch = $3, moved_to = NULL,
        fence_deadline = NULL
    WHERE bucket BETWEEN $1 AND $2 AND state IN ('I', 'M') AND move_id = $4 AND attempt = $5 AND epoch < $3";

pub(super) const MARK_MOVED: &str =
    "UPDATE meta.bucket_owner SET state = 'M', moved_to = $6, fence_deadline = NULL
    WHERE bucket BETWEEN $1 AND $2 AND state = 'F' AND epoch = $3 AND move_id = $4 AND attempt = $5";

/// How many buckets of a range are in a state, at an epoch or later.
pub(super) const COUNT_STATE: &str = "SELECT count(*) FROM meta.bucket_owner
    WHERE bucket BETWEEN $1 AND $2 AND state::text = $3 AND epoch >= $4";

// ---- the window ----

pub(super) const FLUSHED: &str = "SELECT pg_current_wal_flush_lsn()::text";
pub(super) const INSERTED: &str = "SELECT pg_current_wal_insert_lsn()::text";

/// Names of the physical standbys that stream and have flushed a position. A logical walsender is none.
pub(super) const STANDBYS: &str = "SELECT r.application_name
    FROM pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
    WHERE r.state = 'streaming' AND r.flush_lsn >= $1::pg_lsn
      AND coalesce(s.slot_type, 'physical') = 'physical' AND r.application_name <> 'pg_basebackup'
      AND r.application_name NOT LIKE 'bucket\\_move\\_%' AND r.application_name NOT LIKE 'pg\\_%\\_sync\\_%'";

/// Transactions that may have passed the gate: of this database, not ours, by roles that can write.
pub(super) const OPEN_TRANSACTIONS: &str = "SELECT l.virtualtransaction, l.pid
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'virtualxid' AND l.granted AND l.pid <> pg_backend_pid()
      AND a.datname = current_database() AND a.backend_type = 'client backend'
      AND a.application_name <> $1
      AND (SELECT bool_or(has_table_privilege(a.usesysid, t.tgrelid, 'INSERT, UPDATE, DELETE'))
           FROM pg_trigger t WHERE t.tgname = 'owner_check')";

pub(super) const TERMINATE: &str = "SELECT pg_terminate_backend(pid)
    FROM pg_stat_activity WHERE pid = ANY ($1) AND backend_type = 'client backend'";

pub(super) const PREPARED: &str =
    "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()";

/// Outside a window, and only by the owner: a marker that comes late must not travel behind a change of owner.
pub(super) const WRITE_MARKER: &str = "INSERT INTO meta.move_marker (move_id, phase) SELECT $1, $2
    WHERE (SELECT count(*) FROM meta.bucket_owner WHERE bucket BETWEEN $3 AND $4 AND state = 'A') = $4 - $3 + 1";
/// In a window, and only under its own fence.
pub(super) const WRITE_FENCED_MARKER: &str = "INSERT INTO meta.move_marker (move_id, phase) SELECT $1, $2
    WHERE (SELECT count(*) FROM meta.bucket_owner WHERE bucket BETWEEN $3 AND $4 AND state = 'F'
           AND move_id = $1 AND epoch = $5) = $4 - $3 + 1";
pub(super) const SEE_MARKER: &str =
    "SELECT EXISTS (SELECT FROM meta.move_marker WHERE move_id = $1 AND phase = $2)";
pub(super) const DELETE_MARKERS: &str = "DELETE FROM meta.move_marker WHERE move_id = $1";

// ---- what is moved ----

/// Every table that `meta.protect` was called for; of a partitioned one the root.
pub(super) const TABLES: &str = "SELECT format('%I.%I', n.nspname, c.relname)
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE t.tgname = 'owner_check' AND NOT c.relispartition ORDER BY 1";

/// The schemas of these tables.
pub(super) const SCHEMAS: &str = "SELECT DISTINCT format('%I', n.nspname)
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE t.tgname = 'owner_check' AND NOT c.relispartition ORDER BY 1";

/// Whether a role can read all of them, and markers.
pub(super) const MAY_READ: &str = "SELECT bool_and(has_table_privilege($2::name, c.oid, 'SELECT')
        AND has_schema_privilege($2::name, c.relnamespace, 'USAGE'))
    FROM unnest($1::text[] || 'meta.move_marker'::text) AS name JOIN pg_class c ON c.oid = name::regclass";
/// Asked by the role itself.
pub(super) const MAY_STREAM: &str =
    "SELECT rolreplication AND NOT rolsuper FROM pg_roles WHERE rolname = current_user";

/// Tables with a bucket that lack trigger or policies: they would be left behind, or written to behind a fence.
pub(super) const UNPROTECTED: &str = "SELECT format('%I.%I', n.nspname, c.relname)
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE a.attname = 'bucket' AND NOT a.attisdropped AND c.relkind IN ('r', 'p') AND n.nspname NOT IN ('meta', 'pg_catalog')
      AND NOT (c.relrowsecurity
          AND EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'owner_check' AND t.tgenabled = 'O'))
    ORDER BY 1";

/// Names and types of all columns of what is moved: two shards must agree to the letter.
pub(super) const SHAPE: &str =
    "SELECT coalesce(string_agg(format('%s.%s.%s %s', n.nspname, c.relname, a.attname,
        format_type(a.atttypid, a.atttypmod)), ',' ORDER BY n.nspname, c.relname, a.attnum), '')
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE t.tgname = 'owner_check' AND NOT c.relispartition";

pub(super) const SERVER: &str =
    "SELECT current_setting('server_version_num')::int, current_setting('wal_level'),
        current_setting('max_prepared_transactions')::int, pg_is_in_recovery()";

pub(super) const VERSION: &str = "SELECT current_setting('server_version_num')::int";
pub(super) const SYNCHRONOUS: &str = "SELECT current_setting('synchronous_standby_names')";

pub(super) const FREE_SLOTS: &str = "SELECT current_setting('max_replication_slots')::bigint - count(*)
    FROM pg_replication_slots";

/// Transactions older than this would hold the window open, or the snapshot of the copy.
pub(super) const OLD_TRANSACTIONS: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
      AND application_name <> $2 AND xact_start < clock_timestamp() - $1 * interval '1 second'";

// ---- streams ----

pub(super) const HAS_PUBLICATION: &str = "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1)";
pub(super) const HAS_SUBSCRIPTION: &str = "SELECT EXISTS (SELECT FROM pg_subscription WHERE subname = $1 AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()))";
pub(super) const HAS_SLOT: &str = "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)";
/// Whether something can still be read from it.
pub(super) const HAS_USABLE_SLOT: &str = "SELECT EXISTS (SELECT FROM pg_replication_slots
    WHERE slot_name = $1 AND NOT temporary AND wal_status IS DISTINCT FROM 'lost')";
/// From PostgreSQL 17 on: standbys keep a copy of it.
pub(super) const MAKE_KEPT_SLOT: &str =
    "SELECT pg_create_logical_replication_slot($1, 'pgoutput', failover => true)::text";
pub(super) const MAKE_SLOT: &str = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')::text";

/// `r` is a table whose changes stream; until then it lives in a snapshot of its own.
pub(super) const SYNCED: &str = "SELECT count(*), count(*) FILTER (WHERE r.srsubstate = 'r')
    FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid WHERE s.subname = $1";

/// The slot of a stream and those of its table copies, with who uses them.
pub(super) const SLOTS_OF: &str = "SELECT slot_name::text, active_pid FROM pg_replication_slots
    WHERE slot_name = $1 OR slot_name LIKE $2";
/// What PostgreSQL calls the slots of a subscription's table copies, as a pattern; asked of the subscriber.
pub(super) const COPY_SLOTS: &str = "SELECT format('pg\\_%s\\_sync\\_%%\\_%s', s.oid, c.system_identifier)
    FROM pg_subscription s, pg_control_system() c
    WHERE s.subname = $1 AND s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
pub(super) const DROP_SLOT: &str = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active";
pub(super) const END_BACKEND: &str = "SELECT pg_terminate_backend($1)";

/// Never backwards: a second run finds the slot where the first one left it.
pub(super) const ADVANCE_SLOT: &str = "SELECT pg_replication_slot_advance(slot_name, $2::pg_lsn)::text
    FROM pg_replication_slots WHERE slot_name = $1 AND confirmed_flush_lsn < $2::pg_lsn AND NOT active";

/// Errors of a stream's workers. PostgreSQL 15 and later.
pub(super) const STREAM_ERRORS: &str = "SELECT coalesce(sum(apply_error_count + sync_error_count), 0)::bigint
    FROM pg_stat_subscription_stats WHERE subname = $1";

/// Bytes that a stream has yet to confirm.
pub(super) const STREAM_LAG: &str =
    "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint
    FROM pg_replication_slots WHERE slot_name = $1";

/// Rows that running table copies have written so far, on the subscriber.
pub(super) const COPYING_ROWS: &str =
    "SELECT coalesce(sum(tuples_processed), 0)::bigint FROM pg_stat_progress_copy
    WHERE datname = current_database() AND command = 'COPY FROM'";

// ---- givers that fail over ----

/// The standbys' slots that nothing is sent past, and those of standbys that stream all the same without being named.
pub(super) const STANDBY_SLOTS: &str = "WITH named AS (
        SELECT regexp_replace(name, '[\\s\"]', '', 'g') AS name
        FROM regexp_split_to_table(current_setting('synchronized_standby_slots'), ',') AS name)
    SELECT ARRAY(SELECT name FROM named WHERE name <> ''),
        ARRAY(SELECT r.application_name FROM pg_stat_replication r
              LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
              WHERE r.state = 'streaming' AND coalesce(s.slot_type, 'physical') = 'physical'
                AND r.application_name <> 'pg_basebackup' AND coalesce(s.slot_name::text, '') NOT IN (SELECT name FROM named)
                AND r.application_name NOT LIKE 'bucket\\_move\\_%' AND r.application_name NOT LIKE 'pg\\_%\\_sync\\_%')";
/// Asked of a standby: through which slot it follows, and whether it could go on with a slot of its primary's.
pub(super) const IS_SLOT_KEPT: &str = "SELECT current_setting('primary_slot_name'), EXISTS (
        SELECT FROM pg_replication_slots WHERE slot_name = $1 AND synced AND failover AND NOT temporary
          AND invalidation_reason IS NULL)";
/// Without it a slot that is new becomes one that a standby can keep only after up to 15 s.
pub(super) const LOG_SNAPSHOT: &str = "SELECT pg_log_standby_snapshot()::text";

/// What a subscription was told of its giver, if it was, and whether it may have workers.
pub(super) const GIVER_OF: &str =
    "SELECT obj_description(oid, 'pg_subscription'), subenabled FROM pg_subscription
    WHERE subname = $1 AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
pub(super) const WORKERS: &str =
    "SELECT pid FROM pg_stat_subscription WHERE subname = $1 AND pid IS NOT NULL";
/// Where a timeline branched off from an earlier one, as the new primary's history has it.
pub(super) const FORK: &str = "SELECT (regexp_match(pg_read_file(
        'pg_wal/' || lpad(upper(to_hex($1)), 8, '0') || '.history', 0, 1048576, true),
        '(?n)^\\s*' || $2::text || '\\s+([0-9A-F]+/[0-9A-F]+)'))[1]";
/// Whether a subscription has nothing from behind a position.
pub(super) const HAS_NOTHING_BEYOND: &str = "SELECT coalesce(max(p.remote_lsn) <= $2::pg_lsn, true)
    FROM pg_subscription s JOIN pg_replication_origin o ON o.roname = 'pg_' || s.oid OR o.roname LIKE 'pg\\_' || s.oid || '\\_%'
    JOIN pg_replication_origin_status p ON p.local_id = o.roident
    WHERE s.subname = $1 AND s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// Slots from which tables go on that are copied and do not stream yet; asked of the subscriber.
pub(super) const COPIED_FROM: &str =
    "SELECT format('pg_%s_sync_%s_%s', s.oid, r.srrelid, c.system_identifier)
    FROM pg_subscription s JOIN pg_subscription_rel r ON r.srsubid = s.oid, pg_control_system() c
    WHERE r.srsubstate = 'f' AND s.subname = $1
      AND s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
pub(super) const MISSING_SLOTS: &str = "SELECT name FROM unnest($1::text[]) AS name
    WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = name)";
