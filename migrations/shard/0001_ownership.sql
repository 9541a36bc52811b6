-- Who owns which bucket, told by the shard itself. SHARDING.md 2.2.
-- Every statement gates itself on meta.bucket_owner; the trigger below is the backstop for what forgets to.

CREATE SCHEMA IF NOT EXISTS meta;   -- the migrator made it, for its own table

-- All 16384 rows. A active, F fenced (a move decides soon), I incoming, M moved. Absent or I: refuse.
-- Half-full pages: a fence updates a range of rows at once and must stay HOT.
CREATE TABLE meta.bucket_owner (
    bucket         int      PRIMARY KEY CHECK (bucket BETWEEN 0 AND 16383),
    state          "char"   NOT NULL CHECK (state IN ('A', 'F', 'I', 'M')),
    epoch          bigint   NOT NULL CHECK (epoch BETWEEN 1 AND 281474976710655),
    moved_to       smallint CHECK (moved_to >= 1),
    move_id        bigint,
    attempt        int,
    fence_deadline timestamptz,
    CHECK (state <> 'M' OR moved_to IS NOT NULL)
) WITH (fillfactor = 50);

-- Written by a mover on the source after the drain; seen on the target, everything before it has arrived.
CREATE TABLE meta.move_marker (
    move_id    bigint      NOT NULL,
    phase      text        NOT NULL,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (move_id, phase)
);

-- One row, touched at most twice a second: its age on a replica is the replica's lag.
CREATE TABLE meta.heartbeat (
    id      smallint    PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    beat_at timestamptz NOT NULL
) WITH (fillfactor = 10);
INSERT INTO meta.heartbeat (beat_at) VALUES (clock_timestamp());

-- Permanent keys by name (`routing`, `lookup`): a node with others would look in the wrong places.
CREATE TABLE meta.key_fingerprint (
    name        text PRIMARY KEY,
    fingerprint text NOT NULL CHECK (fingerprint ~ '^[0-9a-f]{16}$')
);

-- Signing keys that must not be trusted any more; a copy for nodes that cannot reach the directory.
CREATE TABLE meta.distrusted_key (
    kid           text PRIMARY KEY,
    distrusted_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- An ordinary trigger (never ENABLE ALWAYS): replication applies rows of buckets that are not ours yet.
-- It is volatile on purpose, so that it reads ownership as of now and not as of the statement's start.
CREATE FUNCTION meta.check_owner() RETURNS trigger
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    the_bucket int;
    owner      record;
BEGIN
    IF TG_OP = 'DELETE' THEN
        the_bucket := OLD.bucket;
    ELSE
        the_bucket := NEW.bucket;
        IF TG_OP = 'UPDATE' AND NEW.bucket IS DISTINCT FROM OLD.bucket THEN
            RAISE EXCEPTION 'the bucket of a row never changes'
                USING ERRCODE = 'SH400', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
        END IF;
    END IF;

    SELECT o.state, o.moved_to, o.epoch INTO owner FROM meta.bucket_owner o WHERE o.bucket = the_bucket;

    IF owner.state = 'A' THEN
        IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
        RETURN NEW;
    ELSIF owner.state = 'F' THEN
        RAISE EXCEPTION 'bucket % is fenced', the_bucket USING ERRCODE = 'SH503';
    ELSE
        RAISE EXCEPTION 'bucket % is not owned here', the_bucket
            USING ERRCODE = 'SH301',
                  DETAIL = json_build_object(
                      'moved_to', CASE WHEN owner.state = 'M' THEN owner.moved_to END,
                      'epoch',    CASE WHEN owner.state = 'M' THEN owner.epoch END)::text;
    END IF;
END
$$;

-- Puts the backstop on a table. Call it for every table with a bucket, right after CREATE TABLE.
CREATE FUNCTION meta.protect(target regclass) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_index i
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = target AND i.indisprimary AND a.attname = 'bucket'
    ) THEN
        RAISE EXCEPTION '% needs a primary key that starts with bucket', target;
    END IF;
    EXECUTE format('CREATE TRIGGER owner_check BEFORE INSERT OR UPDATE OR DELETE ON %s
                    FOR EACH ROW EXECUTE FUNCTION meta.check_owner()', target);
END
$$;

-- The application reads ownership and never writes it.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'tessera_app') THEN
        GRANT USAGE ON SCHEMA meta TO tessera_app;
        GRANT SELECT ON ALL TABLES IN SCHEMA meta TO tessera_app;
        GRANT UPDATE (beat_at) ON meta.heartbeat TO tessera_app;
        GRANT INSERT ON meta.distrusted_key TO tessera_app;
        ALTER DEFAULT PRIVILEGES IN SCHEMA meta GRANT SELECT ON TABLES TO tessera_app;
    END IF;
END
$$;
