-- Users, what they prove themselves with, and their sessions.
--
-- Every table's primary key starts with `bucket`: it is the replica identity, the range that a move copies and
-- the index that the clean-up deletes by. `meta.protect` attaches the ownership trigger; the catalogue test
-- refuses a table without it. Every statement that touches these tables gates itself (ARCHITECTURE, invariant 2).
CREATE SCHEMA shard;

CREATE TABLE shard.users (
    bucket     int         NOT NULL,
    user_id    uuid        NOT NULL,
    tenant_id  int         NOT NULL,
    status     text        NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled', 'deleted')),
    name       bytea       CHECK (octet_length(name) <= 1024),  -- sealed
    version    bigint      NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    PRIMARY KEY (bucket, user_id)
);

-- The user's own list of identifiers: login obeys it, so an address dies here first.
CREATE TABLE shard.user_identifiers (
    bucket      int         NOT NULL,
    user_id     uuid        NOT NULL,
    kind        smallint    NOT NULL,
    lookup_hash bytea       NOT NULL CHECK (octet_length(lookup_hash) = 32),
    tenant_id   int         NOT NULL,
    state       text        NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'removed')),
    is_primary  boolean     NOT NULL DEFAULT true,
    sealed      bytea       NOT NULL,
    verified_at timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (bucket, user_id, kind, lookup_hash)
);
CREATE UNIQUE INDEX user_identifiers_primary ON shard.user_identifiers (bucket, user_id)
    WHERE is_primary AND state = 'active';

-- Who holds a name. The bucket is the name's own, so this primary key is the global uniqueness.
-- `held` until held_until after its owner is deleted or changes it, so that nobody takes an address over.
CREATE TABLE shard.identifiers (
    bucket      int         NOT NULL,
    kind        smallint    NOT NULL,
    lookup_hash bytea       NOT NULL CHECK (octet_length(lookup_hash) = 32),
    tenant_id   int         NOT NULL,
    user_id     uuid        NOT NULL,
    state       text        NOT NULL DEFAULT 'active' CHECK (state IN ('reserved', 'active', 'held')),
    held_until  timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (bucket, tenant_id, kind, lookup_hash)
);

CREATE TABLE shard.credentials (
    bucket     int         NOT NULL,
    user_id    uuid        NOT NULL,
    kind       text        NOT NULL CHECK (kind IN ('password')),
    tenant_id  int         NOT NULL,
    phc        text        NOT NULL,
    pepper_id  bigint,
    version    bigint      NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (bucket, user_id, kind)
);

-- Browsers and apps that a user has logged in from; only the hash of the device secret is kept.
CREATE TABLE shard.devices (
    bucket      int         NOT NULL,
    user_id     uuid        NOT NULL,
    device_hash bytea       NOT NULL CHECK (octet_length(device_hash) = 32),
    tenant_id   int         NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    seen_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (bucket, user_id, device_hash)
);

-- One row a login. The refresh columns are the table in docs/refresh.md; `version` grows with every
-- change that a cached copy must not survive (today: the revocation).
CREATE TABLE shard.sessions (
    bucket              int         NOT NULL,
    session_id          uuid        NOT NULL,
    user_id             uuid        NOT NULL,
    tenant_id           int         NOT NULL,
    client_id           text        NOT NULL,
    amr                 text[]      NOT NULL,
    version             bigint      NOT NULL DEFAULT 1,
    generation          bigint      NOT NULL DEFAULT 0,
    seed_hash           bytea       NOT NULL CHECK (octet_length(seed_hash) = 32),
    refresh_kid         bigint      NOT NULL,
    rotated_at          timestamptz NOT NULL DEFAULT now(),
    replays             smallint    NOT NULL DEFAULT 0,
    last_late_generation bigint,
    device_hash         bytea       NOT NULL CHECK (octet_length(device_hash) = 32),
    bound               boolean     NOT NULL,
    ip                  text        NOT NULL,
    user_agent          text        NOT NULL,
    auth_time           timestamptz NOT NULL DEFAULT now(),
    created_at          timestamptz NOT NULL DEFAULT now(),
    last_seen_at        timestamptz NOT NULL DEFAULT now(),
    expires_at          timestamptz NOT NULL,
    absolute_expires_at timestamptz NOT NULL,
    revoked_at          timestamptz,
    revoke_reason       text,
    PRIMARY KEY (bucket, session_id)
) WITH (fillfactor = 80);
-- Nothing that a refresh writes is indexed, so that its update stays heap-only.
CREATE INDEX sessions_live_by_user ON shard.sessions (bucket, user_id, created_at) WHERE revoked_at IS NULL;
CREATE INDEX sessions_by_end ON shard.sessions (absolute_expires_at);  -- for the sweep

-- Failed passwords, counted before the hash is computed. `scope` is an address prefix, or '' for all unknown devices.
-- `granted` is the answer to the latest attempt: an upsert can return it, and an attempt that was refused counts nothing.
-- `strikes` is how many windows in a row were used up; each doubles the next one.
CREATE TABLE shard.login_attempts (
    bucket      int         NOT NULL,
    subject     bytea       NOT NULL CHECK (octet_length(subject) = 32),
    scope       text        NOT NULL,
    tenant_id   int         NOT NULL,
    failures    int         NOT NULL CHECK (failures >= 0),
    strikes     int         NOT NULL DEFAULT 0,
    granted     boolean     NOT NULL DEFAULT true,
    window_ends timestamptz NOT NULL,
    PRIMARY KEY (bucket, subject, scope)
) WITH (fillfactor = 80);
CREATE INDEX login_attempts_by_end ON shard.login_attempts (window_ends);  -- for the sweep

-- What an Idempotency-Key answered. The MAC of the request, a status and a resource id: never a body.
CREATE TABLE shard.idempotency (
    bucket      int         NOT NULL,
    key_hash    bytea       NOT NULL CHECK (octet_length(key_hash) = 32),
    tenant_id   int         NOT NULL,
    request_mac bytea       NOT NULL CHECK (octet_length(request_mac) = 32),
    status      smallint    NOT NULL,  -- 1 done; refusals have no effect and keep no row
    resource_id uuid,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (bucket, key_hash)
);
CREATE INDEX idempotency_by_end ON shard.idempotency (expires_at);  -- for the sweep

-- Intents that must reach the outside world (notices now; mail and events later). Leases are columns of the row.
CREATE TABLE shard.outbox (
    bucket       int         NOT NULL,
    outbox_id    uuid        NOT NULL,
    tenant_id    int         NOT NULL,
    topic        text        NOT NULL,
    user_id      uuid        NOT NULL,
    payload      jsonb       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    leased_until timestamptz,
    attempts     int         NOT NULL DEFAULT 0,
    done_at      timestamptz,
    PRIMARY KEY (bucket, outbox_id)
);
CREATE INDEX outbox_by_age ON shard.outbox (created_at);  -- for the sweep

-- The audit trail: one hash chain a bucket. row hash = SHA-256 over the previous hash and the row, see audit_append.
CREATE TABLE shard.audit_head (
    bucket int    PRIMARY KEY,
    seq    bigint NOT NULL,
    hash   bytea  NOT NULL CHECK (octet_length(hash) = 32)
);

CREATE TABLE shard.audit (
    bucket     int         NOT NULL,
    seq        bigint      NOT NULL,
    at         timestamptz NOT NULL,
    tenant_id  int         NOT NULL,
    user_id    uuid        NOT NULL,
    event      text        NOT NULL,
    detail     jsonb       NOT NULL,
    hash       bytea       NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (bucket, seq, at)
) PARTITION BY RANGE (at);
-- The net below the months: an event is never refused because nobody made its partition.
CREATE TABLE shard.audit_default PARTITION OF shard.audit DEFAULT;

-- Makes the monthly partitions (UTC bounds) up to p_ahead from now. Idempotent; every node calls it once a day.
CREATE FUNCTION shard.ensure_audit_partitions(p_ahead interval) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    last  timestamp := (now() + p_ahead) AT TIME ZONE 'UTC';
    part  text;
    made  int := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(7237123);
    WHILE month <= last LOOP
        part := 'audit_' || to_char(month, 'YYYYMM');
        IF to_regclass('shard.' || part) IS NULL THEN
            EXECUTE format('CREATE TABLE shard.%I PARTITION OF shard.audit FOR VALUES FROM (%L) TO (%L)',
                           part, month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
            EXECUTE format('GRANT SELECT, INSERT ON shard.%I TO tessera_app', part);
            made := made + 1;
        END IF;
        month := month + interval '1 month';
    END LOOP;
    RETURN made;
END
$$;
SELECT shard.ensure_audit_partitions(interval '60 days');

-- The bytes that a row's hash covers. Fixed text forms, so that the chain can be recomputed outside PostgreSQL.
CREATE FUNCTION shard.audit_hash(prev bytea, bucket int, seq bigint, at timestamptz, tenant_id int, user_id uuid,
                                 event text, detail jsonb) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT sha256(prev || convert_to(
        concat_ws('|', bucket::text, seq::text, (extract(epoch FROM at) * 1000000)::bigint::text,
                  tenant_id::text, user_id::text, event, detail::text), 'UTF8'))
$$;

-- Appends one event to its bucket's chain. Called last in the transaction, because it locks the chain's head until
-- commit. Gates itself: on a bucket that this shard does not own it raises what the ownership trigger raises.
CREATE FUNCTION shard.audit_append(p_bucket int, p_tenant int, p_user uuid, p_event text, p_detail jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    head_seq  bigint;
    head_hash bytea;
    now_at    timestamptz := clock_timestamp();
    row_hash  bytea;
BEGIN
    INSERT INTO shard.audit_head AS h (bucket, seq, hash)
    VALUES (p_bucket, 1, sha256(''::bytea))
    ON CONFLICT (bucket) DO UPDATE SET seq = h.seq + 1
    RETURNING h.seq, h.hash INTO head_seq, head_hash;
    row_hash := shard.audit_hash(head_hash, p_bucket, head_seq, now_at, p_tenant, p_user, p_event, p_detail);
    INSERT INTO shard.audit (bucket, seq, at, tenant_id, user_id, event, detail, hash)
    VALUES (p_bucket, head_seq, now_at, p_tenant, p_user, p_event, p_detail, row_hash);
    UPDATE shard.audit_head SET hash = row_hash WHERE bucket = p_bucket;
    RETURN head_seq;
END
$$;

SELECT meta.protect(t) FROM unnest(ARRAY[
    'shard.users', 'shard.user_identifiers', 'shard.identifiers', 'shard.credentials', 'shard.devices',
    'shard.sessions', 'shard.login_attempts', 'shard.idempotency', 'shard.outbox',
    'shard.audit_head', 'shard.audit'
]::regclass[]) AS t;

GRANT USAGE ON SCHEMA shard TO tessera_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shard TO tessera_app;
-- The trail is written once: the application appends and reads, nothing more.
DO $$
DECLARE t regclass;
BEGIN
    FOR t IN SELECT relid FROM pg_partition_tree('shard.audit') LOOP
        EXECUTE format('REVOKE UPDATE, DELETE ON %s FROM tessera_app', t);
    END LOOP;
END
$$;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA shard TO tessera_app;
