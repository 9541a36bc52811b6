//! What keeps a node from serving, and what a bootstrap may do twice.

use crate::world::{Servers, World, eventually, execute, keys, shard};
use shard_router::directory::{BootstrapError, Fingerprints, assign_buckets, register_shards};
use shard_router::migrate::{Rollout, Schema, Stage, migrate_directory, migrate_new_shard, migrate_shards};
use shard_router::shard_key::{LookupKey, RoutingKey};
use shard_router::{PoolError, Router};
use std::sync::Arc;

pub async fn fingerprints_name_the_key(servers: &Servers) {
    let world = World::new(servers, "fingerprints").await;
    let router = world.router().await;
    let (routing, lookup) = keys();
    let (routing, lookup) = (routing.fingerprint(), lookup.fingerprint());
    router.check_fingerprints(&routing, &lookup).await.unwrap();

    let error = router.check_fingerprints(&LookupKey::new([2; 32]).fingerprint(), &lookup).await.unwrap_err();
    assert!(error.to_string().starts_with("directory: the routing key has fingerprint"), "{error}");
    let other = LookupKey::new([3; 32]).fingerprint();
    let error = router.check_fingerprints(&routing, &other).await.unwrap_err();
    assert!(error.to_string().starts_with("directory: the lookup key has fingerprint"), "{error}");

    let wrong = "UPDATE meta.key_fingerprint SET fingerprint = '0123456789abcdef' WHERE name = 'lookup'";
    execute(&mut world.on_shard(2).await, wrong).await.unwrap();
    let error = router.check_fingerprints(&routing, &lookup).await.unwrap_err();
    assert!(error.to_string().starts_with("shard 2: the lookup key has fingerprint"), "{error}");
}

pub async fn altered_migrations_are_refused(servers: &Servers) {
    let world = World::new(servers, "altered").await;
    let router = world.router().await;
    router.check_schema().await.unwrap();
    let recorded: Vec<(i16, String)> =
        sqlx::query_as("SELECT shard_id, schema_hash FROM directory.schema_state ORDER BY 1")
            .fetch_all(&mut world.on_directory().await)
            .await
            .unwrap();
    let hash = Schema::of_shards().hash();
    assert_eq!(recorded, [(1, hash.clone()), (2, hash)]);

    let mut second = world.on_shard(2).await;
    execute(&mut second, "UPDATE meta.applied_migration SET checksum = '\\x00' WHERE version = 2")
        .await
        .unwrap();
    let error = router.check_schema().await.unwrap_err().to_string();
    assert_eq!(error, "shard 2: its history differs from this binary's at migration 2");
    let error = migrate_shards(&world.as_admin()).await.unwrap_err().to_string();
    assert!(error == "shard 2: its history differs from this binary's at migration 2", "{error}");
    migrate_new_shard(&world.as_admin(), shard(1), &world.shards[0])
        .await
        .expect("shard 1 is as it should be");

    execute(&mut second, "DELETE FROM meta.applied_migration WHERE version = 2").await.unwrap();
    let error = router.check_schema().await.unwrap_err().to_string();
    assert!(error.contains("at migration 2"), "a gap is another history: {error}");
    execute(&mut second, "DELETE FROM meta.applied_migration WHERE version > 1").await.unwrap();
    let error = router.check_schema().await.unwrap_err().to_string();
    let latest = Schema::of_shards().latest();
    let wanted = format!(
        "shard 2: its schema is at migration 1, and this binary serves 2 to {latest}: run `auth-node migrate`"
    );
    assert_eq!(error, wanted);
}

/// A release that adds, and later takes away, beside the one before it, which knows nothing of either.
pub async fn a_release_and_the_one_before_it_share_a_shard(servers: &Servers) {
    let world = World::new(servers, "releases").await;
    let directory = world.as_admin();
    let next = Schema::of_shards().latest() + 1;
    let newer = Schema::of_shards()
        .with(next, "wide", "ALTER TABLE shard.users ADD COLUMN wide text")
        .with(next + 1, "contract_name", "ALTER TABLE shard.users DROP COLUMN name")
        .needing(next);
    let expand = Rollout { schema: newer.clone(), ..Rollout::default() };
    let contract = Rollout { stage: Stage::Contract, ..expand.clone() };
    let old = world.router().await;
    let start = async || {
        let mut config = world.config();
        config.schema = Arc::new(newer.clone());
        Router::start(config).await.unwrap()
    };
    let error = start().await.check_schema().await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("shard 1: its schema is at migration {}", next - 1)), "{error}");
    let serves = async |router: &Router, id| match router.primary(shard(id)).await {
        Ok(conn) => {
            conn.release();
            true
        }
        Err(error) => {
            assert!(matches!(error, PoolError::Schema(_)), "{error}");
            false
        }
    };

    expand.run(&directory).await.unwrap();
    let new = start().await;
    for router in [&old, &new, &world.router().await] {
        router.check_schema().await.unwrap();
        assert!(serves(router, 1).await && serves(router, 2).await);
    }

    // Too early: a node of the release before sheds each shard as it is contracted.
    Rollout { canary_only: true, ..contract.clone() }.run(&directory).await.unwrap();
    eventually("shard 1 shed", async || !serves(&old, 1).await).await;
    assert!(old.reader(shard(1), 7, None).await.is_err(), "replicas as well");
    assert!(serves(&old, 2).await && !old.serves_nothing());
    let why = old.status().shards[0].schema_misfit.clone().unwrap();
    assert!(why.contains(&format!("contracted by migration {}", next + 1)), "{why}");
    contract.run(&directory).await.unwrap();
    eventually("nothing left to serve", async || old.serves_nothing()).await;
    for old in [&old, &world.router().await] {
        let error = old.check_schema().await.unwrap_err().to_string();
        assert!(error.starts_with("shard 1: its schema was contracted by migration"), "{error}");
    }
    new.check_schema().await.unwrap();
    assert!(serves(&new, 1).await && serves(&new, 2).await);
    migrate_shards(&directory).await.expect_err("the older binary has nothing to say about it");
}

pub async fn bootstrap_may_be_repeated(servers: &Servers) {
    let world = World::new(servers, "repeated").await;
    let directory = world.as_admin();
    let (routing, lookup) = keys();
    let fingerprints = Fingerprints::of(&routing, &lookup);
    // A move has happened, and an ownership row was lost: neither may be undone or invented.
    execute(
        &mut world.on_directory().await,
        "UPDATE directory.bucket_map SET shard_id = 2, epoch = 2 WHERE bucket IN (5, 6)",
    )
    .await
    .unwrap();
    let (mut first, mut second) = (world.on_shard(1).await, world.on_shard(2).await);
    execute(
        &mut first,
        "UPDATE meta.bucket_owner SET state = 'M', moved_to = 2, epoch = 2 WHERE bucket IN (5, 6)",
    )
    .await
    .unwrap();
    execute(
        &mut second,
        "UPDATE meta.bucket_owner SET state = 'A', epoch = 2 WHERE bucket = 5;
         DELETE FROM meta.bucket_owner WHERE bucket IN (6, 9000)",
    )
    .await
    .unwrap();

    migrate_directory(&world.directory, &world.admin).await.unwrap();
    register_shards(&directory, &world.new_shards()).await.unwrap();
    migrate_shards(&directory).await.unwrap();
    assign_buckets(&directory, &fingerprints).await.unwrap();

    let state =
        "SELECT bucket, state::text FROM meta.bucket_owner WHERE bucket IN (4, 5, 6, 9000) ORDER BY 1";
    let rows = async |connection| -> Vec<(i32, String)> {
        sqlx::query_as(state).fetch_all(connection).await.unwrap()
    };
    let expect = |letters: &str| -> Vec<(i32, String)> {
        [4, 5, 6, 9000].into_iter().zip(letters.chars().map(String::from)).collect()
    };
    assert_eq!(rows(&mut first).await, expect("AMMI"));
    assert_eq!(rows(&mut second).await, expect("IAIA"), "6 has moved since: it stays I until reconciled");
    let counts = "SELECT count(*) FROM meta.bucket_owner";
    assert_eq!(sqlx::query_scalar::<_, i64>(counts).fetch_one(&mut first).await.unwrap(), 16384);

    let other = Fingerprints::of(&RoutingKey::new([9; 32]), &lookup);
    let error = assign_buckets(&directory, &other).await.unwrap_err();
    assert!(matches!(&error, BootstrapError::Key { place, .. } if place == "directory"), "{error}");
}
