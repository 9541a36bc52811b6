//! The statements whose ownership check is measured, with and without it, and the tables they write to: two of each
//! shape, which is that of the real ones, indexes included.
use shard_router::{Gated, Ownership, gated};
use sqlx::postgres::PgArguments;
use sqlx::postgres::types::PgInterval;
use sqlx::types::Uuid;
use sqlx::{Arguments, Connection, PgConnection, Row, ValueRef};

use crate::Outcome;

/// Made by the owner, on one shard. `$ROWS` is replaced.
pub const TABLES: &str = "
    CREATE SCHEMA bench;
    CREATE TABLE bench.account (LIKE shard.users INCLUDING ALL);
    CREATE TABLE bench.address (LIKE shard.user_identifiers INCLUDING ALL);
    CREATE TABLE bench.bare_session (LIKE shard.sessions INCLUDING ALL) WITH (fillfactor = 80);
    CREATE TABLE bench.owned_session (LIKE shard.sessions INCLUDING ALL) WITH (fillfactor = 80);
    CREATE TABLE bench.bare_outbox (LIKE shard.outbox INCLUDING ALL);
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
    INSERT INTO bench.owned_session SELECT * FROM bench.bare_session;
    ANALYZE bench.account, bench.address, bench.bare_session, bench.owned_session;";

/// Binds values in order, or returns an error from the enclosing function.
macro_rules! args {
    ($($value:expr),*) => {{
        let mut args = PgArguments::default();
        $( args.add($value)?; )*
        args
    }};
}

/// Where the sessions are.
pub const ROWS: &str =
    "SELECT bucket, session_id, user_id, seed_hash FROM bench.bare_session ORDER BY bucket";

macro_rules! rotate {
    ($table:literal) => {
        concat!(
            "UPDATE bench.",
            $table,
            " s SET generation = s.generation + 1, rotated_at = now(), replays = 0, refresh_kid = $5,
                last_seen_at = now(), ip = $6, user_agent = $7, expires_at = LEAST(s.absolute_expires_at, now() + $8),
                bound = s.bound OR coalesce(s.device_hash = $9, false)
             FROM bench.account u LEFT JOIN bench.address i
                ON i.bucket = $1 AND i.user_id = u.user_id AND i.is_primary AND i.state = 'active'
             WHERE s.bucket = $1 AND s.session_id = $2 AND s.generation = $3 AND s.seed_hash = $4
                AND s.revoked_at IS NULL AND s.expires_at > now()
                AND u.bucket = $1 AND u.user_id = s.user_id AND u.status = 'active'
             RETURNING s.session_id, s.user_id, s.tenant_id, s.client_id, s.amr, s.auth_time, s.version, s.expires_at,
                s.generation, s.refresh_kid, u.name, u.created_at, i.sealed, i.verified_at"
        )
    };
}

macro_rules! touch {
    ($table:literal) => {
        concat!(
            "UPDATE bench.",
            $table,
            " s SET version = s.version + 1, last_seen_at = now()
             WHERE s.bucket = $1 AND s.session_id = $2 AND s.revoked_at IS NULL RETURNING s.version"
        )
    };
}

macro_rules! note {
    ($table:literal) => {
        concat!(
            "INSERT INTO bench.",
            $table,
            " (bucket, outbox_id, tenant_id, topic, user_id, payload)
             VALUES ($1, gen_random_uuid(), 1, 'notice.session_ended', $2, '{\"reason\": \"logout\"}'::jsonb)
             RETURNING outbox_id"
        )
    };
}

// In the order of `Guard`.
const ROTATE: [Gated; 2] = [gated!(rotate!("bare_session")), gated!(rotate!("owned_session"))];
const TOUCH: [Gated; 2] = [gated!(touch!("bare_session")), gated!(touch!("owned_session"))];
const NOTE: [Gated; 2] = [gated!(note!("bare_outbox")), gated!(note!("owned_outbox"))];

/// What stands between a statement and somebody else's bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    Bare,
    /// What every table of a shard has: `meta.protect`.
    Protected,
}

impl Guard {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Bare, Self::Protected];
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
    generation: [i64; 2],
}

impl Item {
    /// From a row of [`ROWS`].
    pub fn read(row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            bucket: row.try_get(0)?,
            session: row.try_get(1)?,
            user: row.try_get(2)?,
            seed_hash: row.try_get(3)?,
            generation: [0; 2],
        })
    }
}

/// One transaction.
pub async fn carry_out(conn: &mut PgConnection, work: Work, guard: Guard, item: &mut Item) -> Outcome<()> {
    match work {
        Work::Rotation => {
            let generation = &mut item.generation[guard as usize];
            let args = args![
                item.bucket,
                item.session,
                *generation,
                item.seed_hash.as_slice(),
                2_i64,
                "192.0.2.7",
                "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                PgInterval { months: 0, days: 30, microseconds: 0 },
                item.seed_hash.as_slice()
            ];
            write(conn, &ROTATE[guard as usize], args).await?;
            *generation += 1;
            Ok(())
        }
        Work::TwoStatements => {
            let mut tx = conn.begin().await?;
            write(&mut tx, &TOUCH[guard as usize], args![item.bucket, item.session]).await?;
            write(&mut tx, &NOTE[guard as usize], args![item.bucket, item.user]).await?;
            Ok(tx.commit().await?)
        }
    }
}

/// The row must have been written: a statement that finds nothing would be measured as another one.
async fn write(conn: &mut PgConnection, statement: &Gated, args: PgArguments) -> Outcome<()> {
    let (ownership, rows) = statement.run(conn, args).await?;
    let found = rows.first().map(|row| row.try_get_raw(0)).transpose()?;
    if ownership != Ownership::Active || found.is_none_or(|value| value.is_null()) {
        return Err("no row was written".into());
    }
    Ok(())
}
