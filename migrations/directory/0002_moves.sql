-- Moves of bucket ranges between shards. This table is the decision record: a range changes hands when, and only
-- when, the transaction commits that sets `committed` (or `returned`) here and the new owner in bucket_map.
--
--   planned → copying → fencing → committed → soaking → cleaning → done
--                ↑ ↓        │                  ↓   ↑
--                └──────────┘              returning → returned → undoing → rolled_back
--   planned, copying → aborting → aborted
CREATE TABLE directory.move (
    move_id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lo             int         NOT NULL CHECK (lo >= 0),
    hi             int         NOT NULL CHECK (hi <= 16383),
    src            smallint    NOT NULL REFERENCES directory.shard,
    dst            smallint    NOT NULL REFERENCES directory.shard,
    state          text        NOT NULL DEFAULT 'planned' CHECK (state IN (
                       'planned', 'copying', 'fencing', 'committed', 'soaking', 'cleaning', 'done',
                       'returning', 'returned', 'undoing', 'rolled_back', 'aborting', 'aborted')),
    -- One for each fence; what an old attempt still wants to write, no shard accepts.
    attempt        int         NOT NULL DEFAULT 1 CHECK (attempt >= 1),
    -- Allocated with each fence: the epoch of whoever owns the range after the decision.
    epoch          bigint      CHECK (epoch BETWEEN 2 AND 281474976710655),
    fence_deadline timestamptz,
    -- On the new owner, in the window: everything before it came from the old one, nothing after it did.
    reverse_from   pg_lsn,
    -- Of each taker when its stream began. A promoted standby may lack what the stream believes to have delivered.
    dst_timeline   int,
    src_timeline   int,
    -- Whether the way back is open: a marker has travelled from the new owner to the old one.
    reversible     boolean     NOT NULL DEFAULT false,
    -- Every row compared between two snapshots of the window: true equal, false different, null not compared.
    verified       boolean,
    paused         boolean     NOT NULL DEFAULT false,
    rows_estimated bigint,
    note           text,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    soaking_since  timestamptz,
    CHECK (lo <= hi),
    CHECK (src <> dst),
    CHECK (state NOT IN ('fencing', 'returning') OR (epoch IS NOT NULL AND fence_deadline IS NOT NULL)),
    -- A bucket is in one open move at most.
    CONSTRAINT move_overlap EXCLUDE USING gist (int4range(lo, hi, '[]') WITH &&)
        WHERE (state NOT IN ('done', 'aborted', 'rolled_back'))
);
