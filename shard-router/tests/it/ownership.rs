//! The fence inside the shard: policies, trigger, gate, privileges.

use crate::world::{Servers, World, execute, shard};
use shard_router::{Gated, Hint, Ownership};
use sqlx::Arguments;
use sqlx::postgres::{PgArguments, PgConnection};

/// Bucket n of shard 1 in the n-th state; 5 is absent.
const STATES: &str = "
    UPDATE meta.bucket_owner SET state = 'F', epoch = 7 WHERE bucket = 1;
    UPDATE meta.bucket_owner SET state = 'I', epoch = 7 WHERE bucket = 2;
    UPDATE meta.bucket_owner SET state = 'M', epoch = 7, moved_to = 2 WHERE bucket = 3;
    DELETE FROM meta.bucket_owner WHERE bucket = 5;";

const EXPECTED: fn() -> [(i32, Ownership); 5] = || {
    [
        (0, Ownership::Active),
        (1, Ownership::Fenced),
        (2, Ownership::Elsewhere(None)),
        (3, Ownership::Elsewhere(Some(Hint { to: shard(2), epoch: 7 }))),
        (5, Ownership::Elsewhere(None)),
    ]
};

/// A table with one row (id 1) in each bucket that the tests use, written while all were ours.
async fn probe_table(world: &World) -> PgConnection {
    let mut owner = world.on_shard(1).await;
    execute(
        &mut owner,
        "CREATE TABLE shard.probe (bucket int, id int, v int NOT NULL, PRIMARY KEY (bucket, id));
         SELECT meta.protect('shard.probe');
         GRANT SELECT, INSERT, UPDATE, DELETE ON shard.probe TO tessera_app;
         INSERT INTO shard.probe SELECT b, 1, 10 FROM generate_series(0, 5) b;",
    )
    .await
    .unwrap();
    owner
}

const WRITES: [&str; 3] = [
    "INSERT INTO shard.probe VALUES ($1, 2, 0)",
    "UPDATE shard.probe SET v = 11 WHERE bucket = $1 AND id = 1",
    "DELETE FROM shard.probe WHERE bucket = $1 AND id = 1",
];

/// What a statement without a gate gets to hear; of one that went through, how many rows it changed.
async fn bare(conn: &mut PgConnection, statement: &'static str, bucket: i32) -> Result<u64, Ownership> {
    match sqlx::query(statement).bind(bucket).execute(conn).await {
        Ok(done) => Ok(done.rows_affected()),
        Err(error) => Err(Ownership::from_error(&error).unwrap_or_else(|| panic!("{error}"))),
    }
}

pub async fn policies_answer_each_state(servers: &Servers) {
    let world = World::new(servers, "policies").await;
    let mut owner = probe_table(&world).await;
    execute(&mut owner, STATES).await.unwrap();
    let mut app = world.as_app(1).await;
    for (bucket, expected) in EXPECTED() {
        let ours = expected == Ownership::Active;
        for statement in WRITES {
            let right = match statement {
                _ if ours => Ok(1),
                new if new.starts_with("INSERT") => Err(expected),
                _ => Ok(0),
            };
            assert_eq!(bare(&mut app, statement, bucket).await, right, "bucket {bucket}: {statement}");
        }
        // Nor is it locked.
        let lock = "SELECT v FROM shard.probe WHERE bucket = $1 AND id = 2 - $2::int FOR UPDATE";
        let query = sqlx::query(lock).bind(bucket).bind(i32::from(!ours));
        assert_eq!(query.fetch_all(&mut app).await.unwrap().len(), usize::from(ours), "bucket {bucket}");
    }
    unchanged(&mut app).await;
    let off = execute(&mut app, "SET row_security = off; UPDATE shard.probe SET v = 0").await.unwrap_err();
    assert_eq!(
        off.as_database_error().unwrap().code().unwrap(),
        "42501",
        "switched off is refused, not free"
    );
}

pub async fn trigger_answers_whom_no_policy_binds(servers: &Servers) {
    let world = World::new(servers, "trigger_states").await;
    let mut owner = probe_table(&world).await;
    execute(&mut owner, STATES).await.unwrap();
    for (bucket, expected) in EXPECTED() {
        for statement in WRITES {
            let right = if expected == Ownership::Active { Ok(1) } else { Err(expected) };
            assert_eq!(bare(&mut owner, statement, bucket).await, right, "bucket {bucket}: {statement}");
        }
    }
    unchanged(&mut world.as_app(1).await).await;
}

async fn unchanged(app: &mut PgConnection) {
    let left: Vec<(i32, i32, i32)> =
        sqlx::query_as("SELECT bucket, id, v FROM shard.probe WHERE bucket IN (0, 1, 2, 3, 5) ORDER BY 1, 2")
            .fetch_all(app)
            .await
            .unwrap();
    assert_eq!(left, [(0, 2, 0), (1, 1, 10), (2, 1, 10), (3, 1, 10), (5, 1, 10)], "refused means unchanged");
}

pub async fn bucket_of_a_row_never_changes(servers: &Servers) {
    let world = World::new(servers, "bucket_changes").await;
    let owner = probe_table(&world).await;
    for mut conn in [owner, world.as_app(1).await] {
        let change = "UPDATE shard.probe SET bucket = 4, id = 9 WHERE bucket = 0 AND id = 1";
        let error = sqlx::query(change).execute(&mut conn).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "SH400");
        assert_eq!(Ownership::from_error(&error), None, "a bug, not a redirect");
    }
}

pub async fn replication_passes_the_trigger(servers: &Servers) {
    let world = World::new(servers, "apply_role").await;
    let mut owner = probe_table(&world).await;
    execute(&mut owner, STATES).await.unwrap();
    execute(
        &mut owner,
        "SET session_replication_role = replica; INSERT INTO shard.probe VALUES (2, 9, 0), (3, 9, 0)",
    )
    .await
    .expect("an apply worker writes buckets that are not ours yet");
}

pub async fn gated_statements_tell_nothing_found_from_not_mine(servers: &Servers) {
    const UPDATE: Gated = shard_router::gated!(
        "UPDATE shard.probe p SET v = v + 1 WHERE p.bucket = $1 AND p.id = $2 RETURNING p.v"
    );
    const INSERT: Gated = shard_router::gated!(
        "INSERT INTO shard.probe AS p (bucket, id, v) VALUES ($1, $2 + 100, 5) ON CONFLICT DO NOTHING RETURNING p.v"
    );
    const TWO: Gated = shard_router::gated!(
        "i AS (UPDATE shard.probe p SET v = v + 1 WHERE p.bucket = $1 AND p.id = $2 RETURNING p.v)";
        "UPDATE shard.probe p SET v = 0 WHERE p.bucket = $1 AND p.id = $2 + 1000 RETURNING p.v";
        "(SELECT i.v FROM i) AS v"
    );
    const READ: Gated =
        shard_router::gated_read!("SELECT p.v FROM shard.probe p WHERE p.bucket = $1 AND p.id = $2");
    const LOCK: Gated = shard_router::gated_read!(
        "SELECT p.v FROM shard.probe p WHERE p.bucket = $1 AND p.id = $2 FOR UPDATE"
    );
    const DELETE: Gated =
        shard_router::gated!("DELETE FROM shard.probe p WHERE p.bucket = $1 AND p.id = $2 RETURNING p.v");
    let world = World::new(servers, "gated").await;
    let mut owner = probe_table(&world).await;
    execute(&mut owner, STATES).await.unwrap();
    let mut app = world.as_app(1).await;
    for (bucket, expected) in EXPECTED() {
        // id 7 exists nowhere: only under Active is that a verdict, and never an error.
        for (name, statement, id, found) in [
            ("read", READ, 1, Some(10)),
            ("update", UPDATE, 1, Some(11)),
            ("two, the last of nothing", TWO, 1, Some(12)),
            ("lock", LOCK, 1, Some(12)),
            ("insert", INSERT, 7, Some(5)),
            ("insert what is there", INSERT, 7, None),
            ("delete", DELETE, 1, Some(12)),
            ("update nothing", UPDATE, 7, None),
            ("read nothing", READ, 7, None),
        ] {
            let mut args = PgArguments::default();
            args.add(bucket).unwrap();
            args.add(id).unwrap();
            let (told, rows) = match statement.run(&mut app, args).await {
                Ok(answer) => answer,
                Err(error) => {
                    (Ownership::from_error(&error).unwrap_or_else(|| panic!("{error}")), Vec::new())
                }
            };
            assert_eq!(told, expected, "{name} in bucket {bucket}");
            let value = rows.first().and_then(|row| sqlx::Row::get::<Option<i32>, _>(row, "v"));
            match (told, name) {
                (Ownership::Active, _) => assert_eq!(value, found, "{name} in bucket {bucket}"),
                (_, "read") => {}
                _ => assert_eq!(value, None, "{name} in bucket {bucket}"),
            }
        }
    }
}

pub async fn application_role_cannot_take_ownership(servers: &Servers) {
    let world = World::new(servers, "app_role").await;
    let mut app = world.as_app(1).await;
    for forbidden in [
        "UPDATE meta.bucket_owner SET state = 'A'",
        "DELETE FROM meta.bucket_owner",
        "INSERT INTO meta.key_fingerprint VALUES ('routing', '0000000000000000')",
        "DELETE FROM meta.distrusted_key",
        "SET session_replication_role = replica",
        "ALTER TABLE shard.users DISABLE TRIGGER owner_check",
        "ALTER TABLE shard.users DISABLE ROW LEVEL SECURITY",
        "DROP POLICY owner_updates ON shard.users",
        "TRUNCATE shard.users",
    ] {
        let error = execute(&mut app, forbidden).await.expect_err(forbidden);
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{forbidden}");
    }
}
