-- On which timeline a heartbeat was written. A replica that shows it has replayed a part of that timeline, so that a
-- position in the log means to it what it meant to the primary: what a promotion left behind does not count.
-- A trigger, and not the statement that beats: nodes of an older release beat, too.
ALTER TABLE meta.heartbeat ADD COLUMN timeline int;

CREATE FUNCTION meta.note_timeline() RETURNS trigger
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    NEW.timeline := ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int;
    RETURN NEW;
END
$$;

CREATE TRIGGER note_timeline BEFORE UPDATE ON meta.heartbeat
    FOR EACH ROW EXECUTE FUNCTION meta.note_timeline();
