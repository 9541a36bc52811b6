//! What keeps a node from serving, and what a bootstrap may do twice.

use crate::world::{Servers, World, execute, keys, shard};
use shard_router::directory::{BootstrapError, Fingerprints, assign_buckets, register_shards};
use shard_router::migrate::{migrate_directory, migrate_shard, migrate_shards, schema_hash};
use shard_router::shard_key::{LookupKey, RoutingKey};

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
    assert_eq!(recorded, [(1, schema_hash()), (2, schema_hash())]);

    let mut second = world.on_shard(2).await;
    execute(&mut second, "UPDATE meta.applied_migration SET checksum = '\\x00' WHERE version = 2")
        .await
        .unwrap();
    let error = router.check_schema().await.unwrap_err().to_string();
    assert_eq!(error, "shard 2: its schema differs from this binary's at migration 2");
    let error = migrate_shards(&world.as_admin()).await.unwrap_err().to_string();
    assert!(error.starts_with("shard 2:") && error.contains("modified"), "{error}");
    migrate_shard(shard(1), &world.shards[0], &world.admin).await.expect("shard 1 is as it should be");

    execute(&mut second, "DELETE FROM meta.applied_migration WHERE version = 2").await.unwrap();
    let error = router.check_schema().await.unwrap_err().to_string();
    assert!(error.contains("at migration 2"), "{error}");
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
