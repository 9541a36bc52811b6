-- The control plane: which shards there are, who owns which bucket, which keys sign. Off the request path.
-- No credentials here: nodes bring their own user and password.

CREATE SCHEMA IF NOT EXISTS directory;   -- the migrator made it, for its own table

CREATE TABLE directory.shard (
    shard_id     smallint PRIMARY KEY CHECK (shard_id >= 1),
    host         text     NOT NULL CHECK (host <> ''),
    port         int      NOT NULL CHECK (port BETWEEN 1 AND 65535),
    dbname       text     NOT NULL CHECK (dbname <> ''),
    replicas     jsonb    NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(replicas) = 'array'),  -- [{"host", "port"}]
    state        text     NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'draining')),
    weight       int      NOT NULL DEFAULT 1 CHECK (weight >= 0),
    pg_system_id bigint
);

CREATE TABLE directory.bucket_map (
    bucket   int      PRIMARY KEY CHECK (bucket BETWEEN 0 AND 16383),
    shard_id smallint NOT NULL REFERENCES directory.shard,
    epoch    bigint   NOT NULL CHECK (epoch BETWEEN 1 AND 281474976710655)
);

CREATE TABLE directory.key_fingerprint (
    name        text PRIMARY KEY,
    fingerprint text NOT NULL CHECK (fingerprint ~ '^[0-9a-f]{16}$')
);

-- The private half is sealed with a key from outside this database.
CREATE TABLE directory.signing_key (
    kid            text        PRIMARY KEY CHECK (kid <> ''),
    alg            text        NOT NULL,
    public         bytea       NOT NULL,
    sealed_private bytea       NOT NULL,
    created_at     timestamptz NOT NULL,
    published_at   timestamptz NOT NULL,
    signs_from     timestamptz NOT NULL,
    signs_until    timestamptz,
    removed_at     timestamptz,
    distrusted_at  timestamptz,
    CHECK (published_at <= signs_from),
    CHECK (signs_until >= signs_from)
);

-- What each shard was last migrated to, and by it a stopped rollout finds its place again.
CREATE TABLE directory.schema_state (
    shard_id    smallint    PRIMARY KEY REFERENCES directory.shard,
    schema_hash text        NOT NULL,
    version     bigint      NOT NULL,
    migrated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What every node polls. The row lock that a bump takes makes versions rise in commit order.
CREATE TABLE directory.section_version (
    section    text        PRIMARY KEY,
    v          bigint      NOT NULL DEFAULT 1,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 10);
INSERT INTO directory.section_version (section) VALUES ('topology'), ('keys');

CREATE FUNCTION directory.bump_section() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    UPDATE directory.section_version SET v = v + 1, changed_at = clock_timestamp() WHERE section = TG_ARGV[0];
    RETURN NULL;
END
$$;

CREATE TRIGGER bump AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON directory.shard
    FOR EACH STATEMENT EXECUTE FUNCTION directory.bump_section('topology');
CREATE TRIGGER bump AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON directory.bucket_map
    FOR EACH STATEMENT EXECUTE FUNCTION directory.bump_section('topology');
CREATE TRIGGER bump AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON directory.key_fingerprint
    FOR EACH STATEMENT EXECUTE FUNCTION directory.bump_section('topology');
CREATE TRIGGER bump AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON directory.signing_key
    FOR EACH STATEMENT EXECUTE FUNCTION directory.bump_section('keys');

-- Nodes read everything and add and retire keys. Placement belongs to the operator.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'tessera_app') THEN
        GRANT USAGE ON SCHEMA directory TO tessera_app;
        GRANT SELECT ON ALL TABLES IN SCHEMA directory TO tessera_app;
        GRANT INSERT, UPDATE ON directory.signing_key TO tessera_app;
        -- Column-wise, so that a node may lock the `keys` row (SELECT … FOR UPDATE) without moving versions.
        GRANT UPDATE (changed_at) ON directory.section_version TO tessera_app;
        ALTER DEFAULT PRIVILEGES IN SCHEMA directory GRANT SELECT ON TABLES TO tessera_app;
    END IF;
END
$$;
