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

-- After the row and not before: a BEFORE trigger locks the row first, also for those whom its WHEN leaves out.
CREATE OR REPLACE FUNCTION meta.check_owner() RETURNS trigger
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    the_bucket int := CASE TG_OP WHEN 'DELETE' THEN OLD.bucket ELSE NEW.bucket END;
BEGIN
    IF NOT EXISTS (SELECT FROM meta.bucket_owner o WHERE o.bucket = the_bucket AND o.state = 'A') THEN
        PERFORM meta.refuse_write(the_bucket);
    END IF;
    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
    RETURN NEW;
END
$$;

CREATE FUNCTION meta.refuse_other_bucket() RETURNS trigger
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NEW.bucket IS DISTINCT FROM OLD.bucket THEN
        RAISE EXCEPTION 'the bucket of a row never changes'
            USING ERRCODE = 'SH400', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
    END IF;
    RETURN NEW;
END
$$;

-- Reads gate themselves: "not mine" must differ from "not there". A change of rows that are not ours finds none, and the
-- statement's gate says why; a new row has nothing to be found by, so it is refused with an error.
CREATE OR REPLACE FUNCTION meta.protect(target regclass) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    owned text := (SELECT format('(SELECT o.state = ''A'' FROM meta.bucket_owner o WHERE o.bucket = %I.bucket)', relname)
                   FROM pg_class WHERE oid = target);
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_index i
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = target AND i.indisprimary AND a.attname = 'bucket'
    ) THEN
        RAISE EXCEPTION '% needs a primary key that starts with bucket', target;
    END IF;
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
    EXECUTE format('CREATE POLICY reads ON %s FOR SELECT USING (true)', target);
    EXECUTE format('CREATE POLICY owner_inserts ON %s FOR INSERT
                    WITH CHECK (%s IS TRUE OR meta.refuse_write(bucket))', target, owned);
    EXECUTE format('CREATE POLICY owner_updates ON %s FOR UPDATE USING (%s) WITH CHECK (true)', target, owned);
    EXECUTE format('CREATE POLICY owner_deletes ON %s FOR DELETE USING (%s)', target, owned);
    EXECUTE format('CREATE TRIGGER owner_check AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW
                    WHEN (NOT row_security_active(%L::regclass)) EXECUTE FUNCTION meta.check_owner()', target, target);
    EXECUTE format('CREATE TRIGGER bucket_fixed AFTER UPDATE OF bucket ON %s FOR EACH ROW
                    EXECUTE FUNCTION meta.refuse_other_bucket()', target);
END
$$;

DO $$
DECLARE
    target regclass;
BEGIN
    FOR target IN SELECT t.tgrelid FROM pg_trigger t WHERE t.tgname = 'owner_check' AND t.tgparentid = 0 LOOP
        EXECUTE format('DROP TRIGGER owner_check ON %s', target);
        PERFORM meta.protect(target);
    END LOOP;
END
$$;

-- Policies stand on the table that a statement names: nobody names a partition.
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
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT relid FROM pg_partition_tree('shard.audit') WHERE isleaf LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', part);
        EXECUTE format('REVOKE ALL ON %s FROM tessera_app', part);
    END LOOP;
END
$$;
