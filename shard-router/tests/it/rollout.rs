//! Migrations over many shards: order, stops, resumption, and what they exclude.

use crate::world::{Servers, TIMEOUT, World, execute, shard};
use shard_router::directory::{NewShard, register_shards};
use shard_router::migrate::{MigrateError, Retry, Rolled, Rollout, Schema, Stage, migrate_directory};
use shard_router::moves::{BucketRange, MoveError, Mover, MoverConfig};
use shard_router::shard_key::Bucket;
use shard_router::{Address, plain_options};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use std::sync::Arc;
use std::time::Duration;

/// `name`, and seven more shards beside the two: more databases on the same two servers.
async fn nine_shards(servers: &Servers, name: &str) -> (World, Vec<NewShard>) {
    let world = World::empty(servers, name).await;
    migrate_directory(&world.directory, &world.admin).await.unwrap();
    let mut shards = world.new_shards().to_vec();
    for id in 3..=9 {
        let server = &world.shards[usize::try_from(id % 2).unwrap()];
        let primary = Address::new(server.host.clone(), server.port, format!("{name}_{id}"));
        let mut connection = on(&world, &world.shards[usize::try_from(id % 2).unwrap()]).await;
        execute(&mut connection, &format!("CREATE DATABASE {}", primary.dbname)).await.unwrap();
        shards.push(NewShard { shard_id: shard(id), primary, replicas: Vec::new(), weight: 2 });
    }
    shards[0].weight = 2;
    shards[1].weight = 2;
    shards[6].weight = 1;
    register_shards(&world.as_admin(), &shards).await.unwrap();
    Rollout::default().run(&world.as_admin()).await.unwrap();
    (world, shards)
}

async fn on(world: &World, address: &Address) -> PgConnection {
    PgConnection::connect_with(&plain_options(address, &world.admin)).await.unwrap()
}

/// One migration further than what is embedded.
fn wider(sql: &str) -> Rollout {
    let schema = Schema::of_shards();
    let next = schema.latest() + 1;
    Rollout { schema: schema.with(next, "wider", sql), retry: quick(), ..Rollout::default() }
}

fn quick() -> Retry {
    Retry { attempts: 2, pause: Duration::from_millis(10) }
}

/// Shard and wave of what a run has changed.
fn order(rolled: &Rolled) -> Vec<(i16, usize)> {
    rolled.shards.iter().filter_map(|done| Some((done.shard_id.get(), done.wave?))).collect()
}

async fn recorded(world: &World) -> Vec<(i16, i64, bool, Option<String>)> {
    sqlx::query_as(
        "SELECT shard_id, version, finished_at IS NOT NULL, error FROM directory.schema_state ORDER BY 1",
    )
    .fetch_all(&mut world.on_directory().await)
    .await
    .unwrap()
}

async fn open_rollouts(world: &World) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM directory.rollout WHERE finished_at IS NULL")
        .fetch_one(&mut world.on_directory().await)
        .await
        .unwrap()
}

pub async fn a_canary_goes_first_and_a_failure_stops_the_waves(servers: &Servers) {
    let (world, shards) = nine_shards(servers, "waves").await;
    let directory = world.as_admin();
    let next = Schema::of_shards().latest() + 1;
    // Shard 4 is in the second quarter, and has something in the way.
    let mut fourth = on(&world, &shards[3].primary).await;
    execute(&mut fourth, "CREATE TABLE meta.wider (id int)").await.unwrap();

    let rollout = wider("CREATE TABLE meta.wider (id int PRIMARY KEY)");
    let first = Rollout { canary_only: true, ..rollout.clone() }.run(&directory).await.unwrap();
    assert_eq!(order(&first), [(7, 0)], "the lightest");
    assert_eq!(first.waiting, [1, 2, 3, 4, 5, 6, 8, 9].map(shard));
    assert_eq!(open_rollouts(&world).await, 1);

    let error = rollout.run(&directory).await.unwrap_err().to_string();
    assert!(error.starts_with("shard 4:") && error.contains("already exists"), "{error}");
    let state = recorded(&world).await;
    let reached: Vec<i16> =
        state.iter().filter(|(_, version, ..)| *version == next).map(|(id, ..)| *id).collect();
    assert_eq!(reached, [1, 2, 3, 5, 6, 7], "the canary, the first quarter, and those beside shard 4");
    let told = |id: i16| state.iter().find(|(known, ..)| *known == id).unwrap();
    assert_eq!((told(4).1, told(4).2), (next - 1, false));
    assert!(told(4).3.as_ref().unwrap().contains("already exists"), "{:?}", told(4));
    assert_eq!((told(8).1, told(9).1), (next - 1, next - 1), "never begun");
    assert_eq!(open_rollouts(&world).await, 1);

    // An older binary does not end what a newer one began.
    let error = Rollout::default().run(&directory).await.unwrap_err();
    assert!(matches!(&error, MigrateError::Refused(why) if why.contains("has not ended")), "{error}");

    execute(&mut fourth, "DROP TABLE meta.wider").await.unwrap();
    let rest = rollout.run(&directory).await.unwrap();
    let mut waves = order(&rest);
    assert_eq!(waves[0], (4, 2), "the wave that was interrupted comes before the next one: {waves:?}");
    waves.sort_unstable();
    assert_eq!(waves, [(4, 2), (8, 3), (9, 3)]);
    assert_eq!(open_rollouts(&world).await, 0);
    assert!(recorded(&world).await.iter().all(|row| (row.1, row.2, &row.3) == (next, true, &None)));
    assert!(order(&rollout.run(&directory).await.unwrap()).is_empty(), "nothing is pending");
}

pub async fn moves_and_rollouts_exclude_each_other(servers: &Servers) {
    let world = World::new(servers, "excluded").await;
    let directory = world.as_admin();
    let mover = Mover::new(directory.clone(), MoverConfig::default(), Arc::new(()));
    let range = |from, to| BucketRange::new(Bucket::new(from).unwrap(), Bucket::new(to).unwrap()).unwrap();
    let planned = mover.plan(range(10, 12), shard(1), shard(2)).await.unwrap();
    Rollout::default().run(&directory).await.expect("nothing is pending, so nothing is refused");

    let rollout = wider("CREATE TABLE meta.wider (id int)");
    let error = rollout.run(&directory).await.unwrap_err();
    assert!(matches!(&error, MigrateError::Refused(why) if why.contains("has not ended")), "{error}");
    let untouched = "SELECT to_regclass('meta.wider') IS NULL";
    for id in [1, 2] {
        assert!(
            sqlx::query_scalar::<_, bool>(untouched).fetch_one(&mut world.on_shard(id).await).await.unwrap()
        );
    }

    mover.abort(planned.id).await.unwrap();
    Rollout { canary_only: true, ..rollout.clone() }.run(&directory).await.unwrap();
    let error = mover.plan(range(10, 12), shard(1), shard(2)).await.unwrap_err();
    assert!(matches!(&error, MoveError::NotReady(why) if why.contains("rollout")), "{error}");
    rollout.run(&directory).await.unwrap();
    mover.plan(range(10, 12), shard(1), shard(2)).await.unwrap();
}

/// Both may begin in the same moment: each holds its transaction open until the other one waits.
pub async fn a_move_and_a_rollout_that_begin_at_once_are_put_in_order(servers: &Servers) {
    let world = World::new(servers, "at_once").await;
    let plan = "INSERT INTO directory.move (lo, hi, src, dst) VALUES (1, 2, 1, 2)";
    let roll = "INSERT INTO directory.rollout (target, canary) VALUES (9, 1)";
    for (first, second) in [(plan, roll), (roll, plan)] {
        let (mut ahead, mut behind) = (world.on_directory().await, world.on_directory().await);
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut behind).await.unwrap();
        execute(&mut ahead, &format!("BEGIN; {first}")).await.unwrap();
        let late = tokio::spawn(async move { execute(&mut behind, second).await });
        crate::world::eventually("the second one waits", async || waits(&world, pid).await).await;
        execute(&mut ahead, "COMMIT").await.unwrap();
        let error = late.await.unwrap().unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "SH409", "{error}");
        execute(&mut ahead, "DELETE FROM directory.move; DELETE FROM directory.rollout").await.unwrap();
    }
}

async fn waits(world: &World, pid: i32) -> bool {
    let waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1";
    let state: Option<bool> =
        sqlx::query_scalar(waits).bind(pid).fetch_one(&mut world.on_directory().await).await.unwrap();
    state == Some(true)
}

pub async fn a_lock_in_the_way_is_not_waited_for_long(servers: &Servers) {
    let world = World::new(servers, "lock_wait").await;
    let directory = world.as_admin();
    let rollout = wider("ALTER TABLE meta.heartbeat ADD COLUMN extra int");
    let mut reader = world.on_shard(1).await;
    execute(&mut reader, "BEGIN; LOCK TABLE meta.heartbeat IN ACCESS SHARE MODE").await.unwrap();
    let error = rollout.run(&directory).await.unwrap_err().to_string();
    assert!(error.starts_with("shard 1:") && error.contains("lock timeout"), "{error}");
    // A patient one gets through once the lock is gone.
    let patient = Rollout { retry: Retry { attempts: 50, ..quick() }, ..rollout };
    let rolling = tokio::spawn(async move { patient.run(&directory).await });
    let waiting = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND query LIKE '%ADD COLUMN extra%')";
    crate::world::eventually("the migration waits for the lock", async || {
        sqlx::query_scalar::<_, bool>(waiting).fetch_one(&mut world.on_shard(1).await).await.unwrap()
    })
    .await;
    execute(&mut reader, "ROLLBACK").await.unwrap();
    let rolled = tokio::time::timeout(TIMEOUT * 3, rolling).await.unwrap().unwrap().unwrap();
    assert_eq!(order(&rolled), [(1, 0), (2, 1)]);
}

pub async fn an_index_is_built_beside_the_traffic(servers: &Servers) {
    let world = World::new(servers, "concurrent").await;
    let mut first = world.on_shard(1).await;
    // What a build that died has left behind: an index of that name, not valid, over something else.
    execute(
        &mut first,
        "CREATE INDEX sessions_by_user ON shard.sessions (ip);
         UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'shard.sessions_by_user'::regclass",
    )
    .await
    .unwrap();
    let sql = "-- no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS sessions_by_user ON shard.sessions (user_id)";
    wider(sql).run(&world.as_admin()).await.unwrap();
    let valid = "SELECT indisvalid AND pg_get_indexdef(indexrelid) LIKE '%(user_id)%' FROM pg_index
        WHERE indexrelid = 'shard.sessions_by_user'::regclass";
    assert!(sqlx::query_scalar::<_, bool>(valid).fetch_one(&mut first).await.unwrap());
}

pub async fn a_contraction_waits_to_be_asked_for(servers: &Servers) {
    let world = World::new(servers, "contraction").await;
    let directory = world.as_admin();
    let next = Schema::of_shards().latest() + 1;
    let schema = Schema::of_shards()
        .with(next, "wider", "CREATE TABLE meta.wider (id int)")
        .with(next + 1, "contract_wider", "DROP TABLE meta.wider")
        .with(next + 2, "later", "CREATE TABLE meta.later (id int)");
    let rollout = Rollout { schema, ..Rollout::default() };
    let versions = |rolled: &Rolled| rolled.shards.iter().map(|done| done.version).collect::<Vec<_>>();
    assert_eq!(versions(&rollout.run(&directory).await.unwrap()), [next, next]);
    assert!(order(&rollout.run(&directory).await.unwrap()).is_empty());

    let contract = Rollout { stage: Stage::Contract, ..rollout.clone() };
    let unfinished = Rollout { backfills: vec![crate::backfill::FILL], ..contract.clone() };
    let error = unfinished.run(&directory).await.unwrap_err();
    assert!(matches!(&error, MigrateError::Refused(why) if why.contains("backfill")), "{error}");
    assert_eq!(versions(&contract.run(&directory).await.unwrap()), [next + 2, next + 2]);
    let stages: Vec<String> = sqlx::query_scalar("SELECT stage FROM directory.schema_state")
        .fetch_all(&mut world.on_directory().await)
        .await
        .unwrap();
    assert_eq!(stages, ["expand", "expand"], "of the last migration");
}
