//! The fence inside the shard: trigger, gate, privileges.

use crate::world::{Servers, World, execute, shard};
use shard_router::{Hint, Ownership};
use sqlx::postgres::PgConnection;

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

pub async fn trigger_answers_each_state(servers: &Servers) {
    let world = World::new(servers, "trigger_states").await;
    let mut owner = probe_table(&world).await;
    execute(&mut owner, STATES).await.unwrap();
    let mut app = world.as_app(1).await;
    for (bucket, expected) in EXPECTED() {
        for statement in [
            "INSERT INTO shard.probe VALUES ($1, 2, 0)",
            "UPDATE shard.probe SET v = 11 WHERE bucket = $1 AND id = 1",
            "DELETE FROM shard.probe WHERE bucket = $1 AND id = 1",
        ] {
            let outcome = sqlx::query(statement).bind(bucket).execute(&mut app).await;
            let got = match outcome {
                Ok(_) => Ownership::Active,
                Err(error) => Ownership::from_error(&error).unwrap_or_else(|| panic!("{error}")),
            };
            assert_eq!(got, expected, "bucket {bucket}: {statement}");
        }
    }
    let left: Vec<(i32, i32, i32)> =
        sqlx::query_as("SELECT bucket, id, v FROM shard.probe WHERE bucket IN (0, 1, 2, 3, 5) ORDER BY 1, 2")
            .fetch_all(&mut app)
            .await
            .unwrap();
    assert_eq!(left, [(0, 2, 0), (1, 1, 10), (2, 1, 10), (3, 1, 10), (5, 1, 10)], "refused means unchanged");
}

pub async fn bucket_of_a_row_never_changes(servers: &Servers) {
    let world = World::new(servers, "bucket_changes").await;
    probe_table(&world).await;
    let error = sqlx::query("UPDATE shard.probe SET bucket = 4 WHERE bucket = 0 AND id = 1")
        .execute(&mut world.as_app(1).await)
        .await
        .unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "SH400");
    assert_eq!(Ownership::from_error(&error), None, "a bug, not a redirect");
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
    const UPDATE: &str = shard_router::gated!(
        "UPDATE shard.probe p SET v = v + 1 FROM o WHERE o.state = 'A' AND p.bucket = $1 AND p.id = $2
         RETURNING p.v";
        "w.v"
    );
    const INSERT: &str = shard_router::gated!(
        "INSERT INTO shard.probe AS p (bucket, id, v) SELECT $1, $2 + 100, 5 FROM o WHERE o.state = 'A'
         ON CONFLICT DO NOTHING RETURNING p.v";
        "w.v"
    );
    const READ: &str =
        shard_router::gated_read!("SELECT p.v FROM shard.probe p WHERE p.bucket = $1 AND p.id = $2"; "w.v");
    const DELETE: &str = shard_router::gated!(
        "DELETE FROM shard.probe p USING o WHERE o.state = 'A' AND p.bucket = $1 AND p.id = $2 RETURNING p.v";
        "w.v"
    );
    let world = World::new(servers, "gated").await;
    let mut owner = probe_table(&world).await;
    execute(&mut owner, STATES).await.unwrap();
    let mut app = world.as_app(1).await;
    for (bucket, expected) in EXPECTED() {
        // id 7 exists nowhere: only under Active is that a verdict, and never an error.
        for (name, statement, id, found) in [
            ("read", READ, 1, Some(10)),
            ("update", UPDATE, 1, Some(11)),
            ("insert", INSERT, 7, Some(5)),
            ("delete", DELETE, 1, Some(11)),
            ("update nothing", UPDATE, 7, None),
            ("read nothing", READ, 7, None),
        ] {
            let row = sqlx::query(statement).bind(bucket).bind(id).fetch_optional(&mut app).await.unwrap();
            let told = Ownership::from_row(row.as_ref()).unwrap();
            assert_eq!(told, expected, "{name} in bucket {bucket}");
            let value = row.and_then(|row| sqlx::Row::get::<Option<i32>, _>(&row, "v"));
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
        "TRUNCATE shard.users",
    ] {
        let error = execute(&mut app, forbidden).await.expect_err(forbidden);
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{forbidden}");
    }
}
