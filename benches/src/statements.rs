//! The statements whose ownership check is measured, with and without it, and the tables they write to: three of each
//! shape, which is that of the real ones, indexes included.
use shard_router::{Ownership, gated};
use sqlx::postgres::types::PgInterval;
use sqlx::types::Uuid;
use sqlx::{Connection, PgConnection, Row, ValueRef};

use crate::Outcome;

/// Made by the owner, on one shard. `$ROWS` is replaced.
pub const TABLES: &str = "
    CREATE SCHEMA bench;
    CREATE TABLE bench.account (LIKE shard.users INCLUDING ALL);
    CREATE TABLE bench.address (LIKE shard.user_identifiers INCLUDING ALL);
    CREATE TABLE bench.bare_session (LIKE shard.sessions INCLUDING ALL) WITH (fillfactor = 80);
    CREATE TABLE bench.gated_session (LIKE shard.sessions INCLUDING ALL) WITH (fillfactor = 80);
    CREATE TABLE bench.owned_session (LIKE shard.sessions INCLUDING ALL) WITH (fillfactor = 80);
    CREATE TABLE bench.bare_outbox (LIKE shard.outbox INCLUDING ALL);
    CREATE TABLE bench.gated_outbox (LIKE shard.outbox INCLUDING ALL);
    CREATE TABLE bench.owned_outbox (LIKE shard.outbox INCLUDING ALL);
    SELECT meta.protect('bench.owned_session'), meta.protect('bench.owned_outbox');
    GRANT USAGE ON SCHEMA bench TO tessera_app;
    GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA bench TO tessera_app;

    CREATE TEMP TABLE person AS
        SELECT n * 7919 % 16384 AS bucket, md5('user' || n)::uuid AS user_id, md5('session' || n)::uuid AS session_id,
            sha256(n::text::bytea) AS hash
        FROM generate_series(1, $ROWS) n;
    INSERT INTO bench.account (bucket, user_id, tenant_id, name)
        SELECT bucket, user_id, 1, hash || hash FROM person;
    INSERT INTO bench.address (bucket, user_id, kind, lookup_hash, tenant_id, sealed)
        SELECT bucket, user_id, 1, hash, 1, hash || hash FROM person;
    INSERT INTO bench.bare_session (bucket, session_id, user_id, tenant_id, client_id, amr, seed_hash, refresh_kid,
            device_hash, bound, ip, user_agent, expires_at, absolute_expires_at)
        SELECT bucket, session_id, user_id, 1, 'first-party', '{pwd}', hash, 1, hash, true, '192.0.2.1',
            repeat('x', 100), now() + interval '30 days', now() + interval '90 days'
        FROM person;
    INSERT INTO bench.gated_session SELECT * FROM bench.bare_session;
    INSERT INTO bench.owned_session SELECT * FROM bench.bare_session;
    ANALYZE bench.account, bench.address, bench.bare_session, bench.gated_session, bench.owned_session;";

/// Where the sessions are.
pub const ROWS: &str =
    "SELECT bucket, session_id, user_id, seed_hash FROM bench.bare_session ORDER BY bucket";

macro_rules! rotate {
    ($table:literal, $from:literal, $gate:literal) => {
        concat!(
            "UPDATE bench.",
            $table,
            " s SET generation = s.generation + 1, rotated_at = now(), replays = 0, refresh_kid = $5,
                last_seen_at = now(), ip = $6, user_agent = $7, expires_at = LEAST(s.absolute_expires_at, now() + $8),
                bound = s.bound OR coalesce(s.device_hash = $9, false)
             FROM ",
            $from,
            "bench.account u LEFT JOIN bench.address i
                ON i.bucket = $1 AND i.user_id = u.user_id AND i.is_primary AND i.state = 'active'
             WHERE ",
            $gate,
            "s.bucket = $1 AND s.session_id = $2 AND s.generation = $3 AND s.seed_hash = $4
                AND s.revoked_at IS NULL AND s.expires_at > now()
                AND u.bucket = $1 AND u.user_id = s.user_id AND u.status = 'active'
             RETURNING s.session_id, s.user_id, s.tenant_id, s.client_id, s.amr, s.auth_time, s.version, s.expires_at,
                s.generation, s.refresh_kid, u.name, u.created_at, i.sealed, i.verified_at"
        )
    };
}

macro_rules! touch {
    ($table:literal, $from:literal, $gate:literal) => {
        concat!(
            "UPDATE bench.",
            $table,
            " s SET version = s.version + 1, last_seen_at = now() ",
            $from,
            "WHERE ",
            $gate,
            "s.bucket = $1 AND s.session_id = $2 AND s.revoked_at IS NULL RETURNING s.version"
        )
    };
}

macro_rules! note {
    ($table:literal, $from:literal) => {
        concat!(
            "INSERT INTO bench.",
            $table,
            " (bucket, outbox_id, tenant_id, topic, user_id, payload)
             SELECT $1, gen_random_uuid(), 1, 'notice.session_ended', $2, '{\"reason\": \"logout\"}'::jsonb ",
            $from,
            " RETURNING outbox_id"
        )
    };
}

macro_rules! gated_rotate {
    ($table:literal) => {
        gated!(
            rotate!($table, "o, ", "o.state = 'A' AND ");
            "w.session_id, w.user_id, w.tenant_id, w.client_id, w.amr, w.auth_time, w.version, w.expires_at, w.generation,
             w.refresh_kid, w.name, w.created_at, w.sealed, w.verified_at"
        )
    };
}

macro_rules! gated_touch {
    ($table:literal) => {
        gated!(touch!($table, "FROM o ", "o.state = 'A' AND "); "w.version")
    };
}

macro_rules! gated_note {
    ($table:literal) => {
        gated!(note!($table, "FROM o WHERE o.state = 'A'"); "w.outbox_id")
    };
}

// In the order of `Guard`.
const ROTATE: [&str; 3] =
    [rotate!("bare_session", "", ""), gated_rotate!("gated_session"), gated_rotate!("owned_session")];
const TOUCH: [&str; 3] =
    [touch!("bare_session", "", ""), gated_touch!("gated_session"), gated_touch!("owned_session")];
const NOTE: [&str; 3] = [note!("bare_outbox", ""), gated_note!("gated_outbox"), gated_note!("owned_outbox")];

/// What stands between a statement and somebody else's bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    Bare,
    /// The gate in the statement.
    Gate,
    /// The gate, and the trigger on each row: what every table of a shard has.
    GateAndTrigger,
}

impl Guard {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Bare, Self::Gate, Self::GateAndTrigger];
}

/// What is done in one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// The refresh: one statement that commits itself, one row.
    Rotation,
    /// Two statements between BEGIN and COMMIT, a row each: one is changed, one is added.
    TwoStatements,
}

impl Work {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Rotation, Self::TwoStatements];

    /// For the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rotation => "rotation of a refresh token: one statement, 1 row",
            Self::TwoStatements => "transaction of two statements: 2 rows",
        }
    }

    /// Rows that one transaction writes.
    pub const fn rows(self) -> f64 {
        match self {
            Self::Rotation => 1.0,
            Self::TwoStatements => 2.0,
        }
    }
}

/// A session, and how often it was rotated in each of the tables.
pub struct Item {
    bucket: i32,
    session: Uuid,
    user: Uuid,
    seed_hash: Vec<u8>,
    generation: [i64; 3],
}

impl Item {
    /// From a row of [`ROWS`].
    pub fn read(row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            bucket: row.try_get(0)?,
            session: row.try_get(1)?,
            user: row.try_get(2)?,
            seed_hash: row.try_get(3)?,
            generation: [0; 3],
        })
    }
}

/// One transaction.
pub async fn carry_out(conn: &mut PgConnection, work: Work, guard: Guard, item: &mut Item) -> Outcome<()> {
    match work {
        Work::Rotation => rotate(conn, guard, item).await,
        Work::TwoStatements => {
            let mut tx = conn.begin().await?;
            let touched = sqlx::query(TOUCH[guard as usize]).bind(item.bucket).bind(item.session);
            written(touched.fetch_optional(&mut *tx).await?, guard)?;
            let noted = sqlx::query(NOTE[guard as usize]).bind(item.bucket).bind(item.user);
            written(noted.fetch_optional(&mut *tx).await?, guard)?;
            Ok(tx.commit().await?)
        }
    }
}

async fn rotate(conn: &mut PgConnection, guard: Guard, item: &mut Item) -> Outcome<()> {
    let generation = &mut item.generation[guard as usize];
    let query = sqlx::query(ROTATE[guard as usize])
        .bind(item.bucket)
        .bind(item.session)
        .bind(*generation)
        .bind(item.seed_hash.as_slice())
        .bind(2_i64)
        .bind("192.0.2.7")
        .bind("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
        .bind(PgInterval { months: 0, days: 30, microseconds: 0 })
        .bind(item.seed_hash.as_slice());
    written(query.fetch_optional(conn).await?, guard)?;
    *generation += 1;
    Ok(())
}

/// The row must have been written: a statement that finds nothing would be measured as a cheap one.
fn written(row: Option<sqlx::postgres::PgRow>, guard: Guard) -> Outcome<()> {
    let gate = guard != Guard::Bare;
    if gate && Ownership::from_row(row.as_ref())? != Ownership::Active {
        return Err("the shard says that it does not own the bucket".into());
    }
    let row = row.ok_or("no row was written")?;
    // The first column of the statement itself: null if only the gate has answered.
    if row.try_get_raw(if gate { 3 } else { 0 })?.is_null() {
        return Err("no row was written".into());
    }
    Ok(())
}
