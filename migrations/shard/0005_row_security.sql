-- The net below the gates, for a third of its price. A trigger in PL/pgSQL costs 15 to 40 µs a row; a policy is a part of the
-- statement's own plan. So whom row security binds, as the nodes' role, meets policies; whom it does not bind (superusers,
-- the tables' owner) meets the trigger still. docs/adr/0019-ownership-by-row-security.md.

-- Says why a bucket cannot be written, as SQLSTATE SH503 or SH301. Never returns.
CREATE FUNCTION meta.refuse_write(the_bucket int) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    owner record;
BEGIN
    SELECT o.state, o.moved_to, o.epoch INTO owner FROM meta.bucket_owner o WHERE o.bucket = the_bucket;
    IF owner.state IN ('F', 'A') THEN  -- A: it came back meanwhile
        RAISE EXCEPTION 'bucket % is fenced', the_bucket USING ERRCODE = 'SH503';
    END IF;
    RAISE EXCEPTION 'bucket % is not owned here', the_bucket
        USING ERRCODE = 'SH301',
              DETAIL = json_build_object(
                  'moved_to', CASE WHEN owner.state = 'M' THEN owner.moved_to END,
                  'epoch',    CASE WHEN owner.state = 'M' THEN owner.epoch END)::text;
END
$$;

-- For whom no policy binds, after each row; for all, after a change of the bucket, which is never right. After the row and
-- not before: a BEFORE trigger locks the row first, also for those whom its WHEN leaves out.
CREATE OR REPLACE FUNCTION meta.check_owner() RETURNS trigger
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    the_bucket int := CASE TG_OP WHEN 'DELETE' THEN OLD.bucket ELSE NEW.bucket END;
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.bucket IS DISTINCT FROM OLD.bucket THEN
        RAISE EXCEPTION 'the bucket of a row never changes'
            USING ERRCODE = 'SH400', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
    END IF;
    IF NOT EXISTS (SELECT FROM meta.bucket_owner o WHERE o.bucket = the_bucket AND o.state = 'A') THEN
        PERFORM meta.refuse_write(the_bucket);
    END IF;
    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
    RETURN NEW;
END
$$;

-- Appends one event to its bucket's chain, as before; each of the three statements sees ownership as of its own start, so
-- that a fence may come between two of them: a change that finds no row must say so.
CREATE OR REPLACE FUNCTION shard.audit_append(p_bucket int, p_tenant int, p_user uuid, p_event text, p_detail jsonb)
RETURNS bigint
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
    IF NOT FOUND THEN
        PERFORM meta.refuse_write(p_bucket);
    END IF;
    RETURN head_seq;
END
$$;

-- Reads gate themselves: "not mine" must differ from "not there". A change of rows that are not ours finds none, and the
-- statement's gate says why; a new row has nothing to be found by, so it is refused with an error.
-- Whoever may write in a role of its own must come as that role: a view without security_invoker would check its owner.
CREATE OR REPLACE FUNCTION meta.protect(target regclass) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    owned text := (SELECT format('(SELECT o.state = ''A'' FROM meta.bucket_owner o WHERE o.bucket = %I.bucket)', relname)
                   FROM pg_class WHERE oid = target);
    part  regclass;
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_index i
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = target AND i.indisprimary AND a.attname = 'bucket'
    ) THEN
        RAISE EXCEPTION '% needs a primary key that starts with bucket', target;
    END IF;
    EXECUTE format('DROP TRIGGER IF EXISTS owner_check ON %s', target);
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
    -- Nobody names a partition: policies stand on the table that a statement names.
    FOR part IN SELECT relid FROM pg_partition_tree(target) WHERE relid <> target LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', part);
        EXECUTE format('REVOKE ALL ON %s FROM tessera_app', part);
    END LOOP;
    EXECUTE format('CREATE POLICY reads ON %s FOR SELECT USING (true)', target);
    EXECUTE format('CREATE POLICY owner_inserts ON %s FOR INSERT
                    WITH CHECK (%s IS TRUE OR meta.refuse_write(bucket))', target, owned);
    EXECUTE format('CREATE POLICY owner_updates ON %s FOR UPDATE USING (%s) WITH CHECK (true)', target, owned);
    EXECUTE format('CREATE POLICY owner_deletes ON %s FOR DELETE USING (%s)', target, owned);
    EXECUTE format('CREATE TRIGGER owner_check AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW
                    WHEN (NOT row_security_active(%L::regclass)) EXECUTE FUNCTION meta.check_owner()', target, target);
    EXECUTE format('CREATE TRIGGER bucket_fixed AFTER UPDATE OF bucket ON %s FOR EACH ROW
                    EXECUTE FUNCTION meta.check_owner()', target);
END
$$;

-- As before, but for the rights on a partition: nobody names one.
CREATE OR REPLACE FUNCTION shard.ensure_audit_partitions(p_ahead interval) RETURNS int
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
            EXECUTE format('ALTER TABLE shard.%I ENABLE ROW LEVEL SECURITY', part);
            made := made + 1;
        END IF;
        month := month + interval '1 month';
    END LOOP;
    RETURN made;
END
$$;
