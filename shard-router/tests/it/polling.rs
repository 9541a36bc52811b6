//! The directory as nodes see it: followed, survived, and not believed blindly.

use crate::world::{Servers, World, eventually, execute, shard};
use chrono::{DateTime, Utc};
use shard_router::directory::KeyRow;
use shard_router::shard_key::Bucket;
use shard_router::{Address, Hint, Router};

fn bucket(number: u16) -> Bucket {
    Bucket::new(number).unwrap()
}

fn key(kid: &str) -> KeyRow {
    let time: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
    KeyRow {
        kid: kid.to_owned(),
        alg: "EdDSA".to_owned(),
        public: vec![7; 32],
        sealed_private: vec![9; 60],
        created_at: time,
        published_at: time,
        signs_from: time,
        signs_until: None,
        removed_at: None,
        distrusted_at: None,
    }
}

/// A directory that nobody can reach, and that comes back.
async fn set_directory_reachable(world: &World, reachable: bool) {
    let server = Address::new("127.0.0.1", world.directory.port, "postgres");
    let options = shard_router::plain_options(&server, &world.admin);
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect_with(&options).await.unwrap();
    let name = &world.directory.dbname;
    execute(&mut connection, &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {reachable}")).await.unwrap();
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    execute(&mut connection, &end).await.unwrap();
}

pub async fn map_follows_the_directory(servers: &Servers) {
    let world = World::new(servers, "map_follows").await;
    let router = world.router().await;
    assert_eq!(router.shards(), [shard(1), shard(2)]);
    assert_eq!((router.place(bucket(8191)).shard, router.place(bucket(8192)).shard), (shard(1), shard(2)));

    let mut directory = world.on_directory().await;
    execute(&mut directory, "UPDATE directory.bucket_map SET shard_id = 2, epoch = 2 WHERE bucket = 5")
        .await
        .unwrap();
    eventually("bucket 5 on shard 2", async || router.place(bucket(5)).shard == shard(2)).await;

    // A shard's word runs ahead of the directory, and the directory's old word does not undo it.
    assert!(router.hint(bucket(6), Hint { to: shard(2), epoch: 2 }));
    assert!(!router.hint(bucket(6), Hint { to: shard(1), epoch: 2 }));
    execute(&mut directory, "UPDATE directory.bucket_map SET epoch = 2, shard_id = 2 WHERE bucket = 7")
        .await
        .unwrap();
    eventually("bucket 7 on shard 2", async || router.place(bucket(7)).shard == shard(2)).await;
    assert_eq!(router.place(bucket(6)).shard, shard(2));
}

pub async fn boots_from_disk_while_the_directory_is_down(servers: &Servers) {
    let world = World::new(servers, "boot_disk").await;
    world.as_admin().insert_key(&key("one"), None).await.unwrap();
    drop(world.router().await);
    set_directory_reachable(&world, false).await;
    let router = world.router().await;
    assert!(!router.status().directory.up);
    assert_eq!(router.place(bucket(8192)).shard, shard(2));
    assert_eq!(router.snapshot().keys.content, [key("one")]);
    router.primary(shard(1)).await.unwrap().release();
    let (routing, lookup) = crate::world::keys();
    router.check_fingerprints(&routing.fingerprint(), &lookup.fingerprint()).await.unwrap();
    set_directory_reachable(&world, true).await;
    eventually("the directory seen again", async || router.status().directory.up).await;
}

pub async fn without_directory_and_copy_says_so(servers: &Servers) {
    let world = World::empty(servers, "boot_nothing").await;
    set_directory_reachable(&world, false).await;
    let error = Router::start(world.config()).await.unwrap_err().to_string();
    assert!(error.contains("not currently accepting connections"), "{error}");
    assert!(error.contains("the copy on disk: there is none"), "{error}");

    std::fs::write(world.state_dir().join("directory-topology.json"), "{}").unwrap();
    let error = Router::start(world.config()).await.unwrap_err().to_string();
    assert!(error.contains("is damaged"), "{error}");
}

pub async fn outage_changes_nothing_for_callers(servers: &Servers) {
    let world = World::new(servers, "outage").await;
    let router = world.router().await;
    set_directory_reachable(&world, false).await;
    eventually("the outage seen", async || !router.status().directory.up).await;
    for number in [0, 5000, 16383] {
        let placement = router.place(bucket(number));
        let mut conn = router.primary(placement.shard).await.unwrap();
        sqlx::query("SELECT 1").execute(&mut *conn).await.unwrap();
        conn.release();
    }
    let age = router.status().directory.age_ms;
    eventually("its age growing", async || router.status().directory.age_ms > age).await;
}

pub async fn bad_sections_are_quarantined(servers: &Servers) {
    let world = World::new(servers, "quarantine").await;
    world.as_admin().insert_key(&key("one"), None).await.unwrap();
    let router = world.router().await;
    let quarantined = async |expected: &'static [&'static str]| {
        eventually("quarantine", async || router.status().directory.quarantined == expected).await;
    };
    let mut directory = world.on_directory().await;
    let before = router.snapshot();

    execute(&mut directory, "DELETE FROM directory.bucket_map WHERE bucket = 9").await.unwrap();
    quarantined(&["topology"]).await;
    execute(&mut directory, "INSERT INTO directory.bucket_map VALUES (9, 1, 1)").await.unwrap();
    quarantined(&[]).await;

    execute(
        &mut directory,
        "ALTER TABLE directory.bucket_map DROP CONSTRAINT bucket_map_shard_id_fkey;
         UPDATE directory.bucket_map SET shard_id = 77, epoch = 9 WHERE bucket = 9",
    )
    .await
    .unwrap();
    quarantined(&["topology"]).await;
    assert_eq!(router.place(bucket(9)).shard, shard(1), "the last good map stands");
    assert!(Router::start(world.config()).await.is_ok(), "a restart finds the last good section on disk");

    execute(
        &mut directory,
        "UPDATE directory.shard SET replicas = '[{\"host\": 5}]' WHERE shard_id = 1;
         UPDATE directory.signing_key SET public = '\\x0102'",
    )
    .await
    .unwrap();
    quarantined(&["topology", "keys"]).await;
    assert_eq!(router.snapshot().keys.content, before.keys.content);
}

pub async fn never_goes_backwards(servers: &Servers) {
    let world = World::new(servers, "backwards").await;
    let router = world.router().await;
    let version = router.status().directory.topology_version;
    let mut directory = world.on_directory().await;
    // As a directory restored from a backup would: an old version with other content.
    execute(
        &mut directory,
        "BEGIN; UPDATE directory.bucket_map SET shard_id = 2, epoch = 3 WHERE bucket = 5;
         UPDATE directory.section_version SET v = 1 WHERE section = 'topology'; COMMIT",
    )
    .await
    .unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(router.place(bucket(5)).shard, shard(1));
    drop(router);
    let router = world.router().await;
    assert_eq!(router.status().directory.topology_version, version, "nor does a restart");
    assert_eq!(router.place(bucket(5)).shard, shard(1));
}

pub async fn topology_changes_move_pools(servers: &Servers) {
    let world = World::new(servers, "new_host").await;
    let router = world.router().await;
    let held = router.primary(shard(1)).await.unwrap();
    let mut directory = world.on_directory().await;
    execute(
        &mut directory,
        "UPDATE directory.shard SET host = 'localhost', replicas = '[]' WHERE shard_id = 1",
    )
    .await
    .unwrap();
    eventually("the new host", async || {
        let status = &router.status().shards[0];
        status.primary.address.starts_with("localhost:") && status.replicas.is_empty()
    })
    .await;
    held.release();
    let mut conn = router.primary(shard(1)).await.unwrap();
    sqlx::query("SELECT 1").execute(&mut *conn).await.unwrap();
    conn.release();
    router.resize(9);
    assert!(router.status().shards.iter().all(|shard| shard.primary.pool.max_size == 9));
}

pub async fn keys_are_written_once_and_distrust_reaches_shards(servers: &Servers) {
    let world = World::new(servers, "signing_keys").await;
    let mut config = world.config();
    config.distrusted_interval_ms = 200;
    let router = Router::start(config).await.unwrap();
    // With the nodes' own role: it is they who rotate.
    let directory = router.directory();
    let version = directory.list_keys().await.unwrap().version;
    assert!(directory.insert_key(&key("one"), Some(version)).await.unwrap());
    assert!(!directory.insert_key(&key("two"), Some(version)).await.unwrap(), "somebody was first");
    assert!(!directory.insert_key(&key("one"), None).await.unwrap(), "a kid is never reused");

    let until: DateTime<Utc> = "2026-02-01T00:00:00Z".parse().unwrap();
    assert!(directory.set_signs_until("one", until).await.unwrap());
    assert!(!directory.set_signs_until("none", until).await.unwrap());
    eventually("the key in the snapshot", async || {
        let snapshot = router.snapshot();
        snapshot.keys.content.first().is_some_and(|key| key.signs_until == Some(until))
    })
    .await;

    let outcome = directory.distrust_key("one", until).await.unwrap();
    assert!(outcome.known && outcome.failed.is_empty(), "{outcome:?}");
    eventually("distrust read from a shard", async || router.distrusted_kids().contains("one")).await;
    assert!(directory.remove_key("one", until).await.unwrap());
    let row = directory.list_keys().await.unwrap().content.remove(0);
    assert_eq!((row.distrusted_at, row.removed_at), (Some(until), Some(until)));
}
