-- What a shard believed to own when it was put in quarantine: after a restore to a point in time, or a forced promotion.
-- Until it is reconciled with the directory every bucket is `I`, and the shard answers for none.
CREATE TABLE meta.quarantine (
    bucket int         PRIMARY KEY CHECK (bucket BETWEEN 0 AND 16383),
    state  "char"      NOT NULL,
    epoch  bigint      NOT NULL,
    since  timestamptz NOT NULL DEFAULT clock_timestamp()
);
