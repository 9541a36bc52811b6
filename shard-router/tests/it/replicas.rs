//! Reads from replicas, and what happens when one falls behind.

use crate::world::{Servers, World, eventually, execute, shard};
use shard_router::{Position, Role, plain_options};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

pub async fn a_lagging_replica_is_ejected_and_comes_back(servers: &Servers) {
    let world = World::new(servers, "replica_lag").await;
    let router = world.router().await;
    // Shard 2, so that a paused replay disturbs no other test.
    let role = async || {
        let conn = router.reader(shard(2), 42, None).await.unwrap();
        let role = conn.role();
        conn.release();
        role
    };
    eventually("the replica admitted", async || role().await == Role::Replica).await;

    let mut replica =
        PgConnection::connect_with(&plain_options(&world.replicas[1], &world.admin)).await.unwrap();
    execute(&mut replica, "SELECT pg_wal_replay_pause()").await.unwrap();
    eventually("the replica ejected", async || role().await == Role::Primary).await;
    let lag_ms = router.status().shards[1].replicas[0].lag_ms.unwrap();
    assert!(lag_ms > 1000, "{lag_ms}");

    execute(&mut replica, "SELECT pg_wal_replay_resume()").await.unwrap();
    eventually("the replica back", async || role().await == Role::Replica).await;
}

pub async fn a_reader_with_a_position_waits_for_it_or_gets_the_primary(servers: &Servers) {
    let world = World::new(servers, "replica_position").await;
    let router = world.router().await;
    let role = async |after| {
        let conn = router.reader(shard(1), 42, after).await.unwrap();
        let role = conn.role();
        conn.release();
        role
    };
    eventually("the replica admitted", async || role(None).await == Role::Replica).await;
    let mut primary =
        PgConnection::connect_with(&plain_options(&world.shards[0], &world.admin)).await.unwrap();
    let now = Position::now(&mut primary).await.unwrap().unwrap();
    // Until the replica has seen a heartbeat that tells the timeline, and has come so far.
    eventually("the replica serves it", async || role(Some(now)).await == Role::Replica).await;
    let later = Position { lsn: now.lsn + (1 << 40), ..now };
    assert_eq!(role(Some(later)).await, Role::Primary, "nobody has that yet");
    let other = Position { timeline: now.timeline + 1, ..now };
    assert_eq!(role(Some(other)).await, Role::Primary, "that is another log");
    let mut replica =
        PgConnection::connect_with(&plain_options(&world.replicas[0], &world.admin)).await.unwrap();
    assert_eq!(Position::now(&mut replica).await.unwrap(), None, "a replica has none of its own");
}
