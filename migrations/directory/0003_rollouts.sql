-- Rollouts of the shards' migrations, and how far each backfill has come. docs/operations/migrations.md.

-- What became of the latest attempt on a shard: under way while both ends are empty, failed while `error` is not.
ALTER TABLE directory.schema_state
    ADD COLUMN stage       text NOT NULL DEFAULT 'expand' CHECK (stage IN ('expand', 'contract')),
    ADD COLUMN started_at  timestamptz,
    ADD COLUMN finished_at timestamptz,
    ADD COLUMN error       text;

-- A rollout is open from before its first statement on a shard until every shard has reached the target, whoever
-- carries it out: one that stopped in the middle stays open, and shards of unequal schema exchange no buckets.
CREATE TABLE directory.rollout (
    rollout_id  bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    target      bigint      NOT NULL,
    canary      smallint    NOT NULL REFERENCES directory.shard,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);
CREATE UNIQUE INDEX rollout_open ON directory.rollout ((true)) WHERE finished_at IS NULL;

-- Logical replication carries no DDL, so that there is either an open move or an open rollout, never both. Enforced
-- here, where neither side can forget it. The lock makes two that begin at once come one after the other; the
-- function is volatile, so that the second one sees what the first one wrote.
CREATE FUNCTION directory.exclude_move_and_rollout() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog AS $$
DECLARE
    other bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(7305019);
    IF TG_TABLE_NAME = 'move' THEN
        SELECT r.rollout_id INTO other FROM directory.rollout r WHERE r.finished_at IS NULL;
        IF FOUND THEN
            RAISE EXCEPTION 'rollout % of shard migrations has not ended: finish it with `auth-node migrate`', other
                USING ERRCODE = 'SH409';
        END IF;
    ELSE
        SELECT min(m.move_id) INTO other FROM directory.move m
        WHERE m.state NOT IN ('done', 'aborted', 'rolled_back');
        IF other IS NOT NULL THEN
            RAISE EXCEPTION 'move % has not ended: no shard is migrated while buckets move', other
                USING ERRCODE = 'SH409';
        END IF;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER no_rollout_is_open BEFORE INSERT ON directory.move
    FOR EACH ROW EXECUTE FUNCTION directory.exclude_move_and_rollout();
CREATE TRIGGER no_move_is_open BEFORE INSERT ON directory.rollout
    FOR EACH ROW EXECUTE FUNCTION directory.exclude_move_and_rollout();

-- A bucket that is done stays done wherever it moves: what was written moves with it.
CREATE TABLE directory.backfill (
    name        text           PRIMARY KEY CHECK (name <> ''),
    done        int4multirange NOT NULL DEFAULT '{}',
    started_at  timestamptz    NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);

-- Where each shard's worker is inside a bucket that is not done: the last key of the last batch that committed.
CREATE TABLE directory.backfill_cursor (
    name     text     NOT NULL REFERENCES directory.backfill,
    shard_id smallint NOT NULL REFERENCES directory.shard,
    bucket   int      NOT NULL CHECK (bucket BETWEEN 0 AND 16383),
    last_key text     NOT NULL,
    PRIMARY KEY (name, shard_id)
);
