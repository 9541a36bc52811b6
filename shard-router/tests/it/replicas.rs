//! Reads from replicas, and what happens when one falls behind.

use crate::world::{Servers, World, eventually, execute, shard};
use shard_router::{Role, plain_options};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

pub async fn a_lagging_replica_is_ejected_and_comes_back(servers: &Servers) {
    let world = World::new(servers, "replica_lag").await;
    let router = world.router().await;
    // Shard 2, so that a paused replay disturbs no other test.
    let role = async || {
        let conn = router.reader(shard(2), 42).await.unwrap();
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
