//! Rewritings of users' rows that a release needs, in order. docs/operations/migrations.md shows how one is written and
//! when it may be deleted again: once its contraction has been rolled out everywhere.
use shard_router::migrate::Backfill;

/// What `auth-node migrate backfill` runs, and what must have ended before anything is taken away.
pub const BACKFILLS: [Backfill; 0] = [];
