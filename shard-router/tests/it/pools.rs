//! Connections: exclusive, bounded, never handed on while busy.

use crate::world::{Servers, World, execute, shard};
use shard_router::{PoolError, Router};
use std::time::{Duration, Instant};

async fn backend(conn: &mut shard_router::Conn) -> i32 {
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut **conn).await.unwrap()
}

pub async fn a_cancelled_request_does_not_give_back_a_busy_connection(servers: &Servers) {
    let world = World::new(servers, "cancelled").await;
    let mut config = world.config();
    config.pool_size = 1;
    let router = Router::start(config).await.unwrap();
    let mut conn = router.primary(shard(1)).await.unwrap();
    let first = backend(&mut conn).await;
    sqlx::query("SET statement_timeout = 0").execute(&mut *conn).await.unwrap();
    conn.release();

    let request = async {
        let mut conn = router.primary(shard(1)).await.unwrap();
        assert_eq!(backend(&mut conn).await, first, "an idle connection is used again");
        sqlx::query("SELECT pg_sleep(60)").execute(&mut *conn).await.unwrap();
        conn.release();
    };
    tokio::time::timeout(Duration::from_millis(300), request).await.expect_err("cancelled in the middle");

    // Whoever waits for the busy one waits in vain.
    let next = async {
        let mut conn = router.primary(shard(1)).await.expect("its place is free");
        (backend(&mut conn).await, conn)
    };
    let next = tokio::time::timeout(Duration::from_secs(20), next).await;
    let mut admin = world.on_shard(1).await;
    execute(&mut admin, &format!("SELECT pg_terminate_backend({first})")).await.unwrap();
    let (second, conn) = next.expect("the connection is not busy");
    assert_ne!(second, first);
    conn.release();
    assert_eq!(router.status().shards[0].primary.pool.size, 1);
}

pub async fn limits_of_a_connection_and_a_checkout(servers: &Servers) {
    let world = World::new(servers, "limits").await;
    let mut config = world.config();
    config.pool_size = 1;
    config.checkout_timeout_ms = 250;
    let router = Router::start(config).await.unwrap();
    let mut conn = router.primary(shard(1)).await.unwrap();
    for (setting, value) in
        [("statement_timeout", "1s"), ("idle_in_transaction_session_timeout", "2s"), ("lock_timeout", "0")]
    {
        let got: String = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(setting)
            .fetch_one(&mut *conn)
            .await
            .unwrap();
        assert_eq!(got, value, "{setting}");
    }
    let started = Instant::now();
    assert_eq!(router.primary(shard(1)).await.unwrap_err(), PoolError::Timeout);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(router.primary(shard(9)).await.unwrap_err(), PoolError::UnknownShard(shard(9)));
    drop(conn);
    router.primary(shard(1)).await.unwrap().release();
    router.shutdown();
    assert!(matches!(router.primary(shard(1)).await, Err(PoolError::Connect(_))));
}

pub async fn a_dead_shard_fails_fast_and_alone(servers: &Servers) {
    let world = World::new(servers, "dead_shard").await;
    let mut directory = world.on_directory().await;
    // A port that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    execute(
        &mut directory,
        &format!("UPDATE directory.shard SET port = {free}, replicas = '[]' WHERE shard_id = 2"),
    )
    .await
    .unwrap();
    let router = world.router().await;
    crate::world::eventually("shard 2 down", async || !router.status().shards[1].primary.up).await;
    // A trial that is just on its way changes nothing: who makes it is the prober.
    for _ in 0..20 {
        assert_eq!(router.primary(shard(2)).await.unwrap_err(), PoolError::Down);
        assert_eq!(router.reader(shard(2), 1, None).await.unwrap_err(), PoolError::Down);
    }
    router.primary(shard(1)).await.unwrap().release();
    router.check_schema().await.expect("a dead shard keeps no node from starting");
}

pub async fn an_open_transaction_is_not_given_back(servers: &Servers) {
    let world = World::new(servers, "open_tx").await;
    let mut config = world.config();
    config.pool_size = 1;
    let router = Router::start(config).await.unwrap();
    let mut conn = router.primary(shard(1)).await.unwrap();
    let first = backend(&mut conn).await;
    let tx = sqlx::Connection::begin(&mut *conn).await.unwrap();
    std::mem::forget(tx);
    conn.release();
    let mut conn = router.primary(shard(1)).await.unwrap();
    assert_ne!(backend(&mut conn).await, first);
}

/// Connections that broke while the server is well (a firewall forgot them): the breaker opens, what is idle goes, and
/// the trial closes it at once.
pub async fn lost_connections_open_the_breaker_and_a_trial_closes_it(servers: &Servers) {
    let world = World::new(servers, "lost").await;
    let router = world.router().await;
    crate::world::eventually("an idle connection went, and new ones come", async || {
        let take = async || loop {
            match router.primary(shard(1)).await {
                Ok(conn) => return conn,
                Err(error) => assert_eq!(error, PoolError::Down),
            }
            tokio::task::yield_now().await;
        };
        let (mut idle, lost) = (take().await, [take().await, take().await, take().await]);
        let old = backend(&mut idle).await;
        idle.release();
        // A probe in between says that all is well, and the count begins anew: hence "eventually".
        lost.into_iter().for_each(|conn| conn.lost("planted"));
        let mut conn = take().await;
        let replaced = backend(&mut conn).await != old;
        conn.release();
        replaced
    })
    .await;
}
