//! Reads that a replica may answer.
use std::sync::Arc;

use auth_core::ports::{Accounts, Freshness, Sessions};

use crate::Trials;
use crate::env::{Env, eventually};

pub fn add(trials: &mut Trials) {
    trials.add("replicas::a_paused_replay_is_seen_only_where_allowed", stale);
    trials.add("replicas::without_replicas_the_primary_answers", gone);
}

async fn stale(env: Arc<Env>) {
    let a = env.account().await;
    // The replica has the account and is read from; then its replay stops, and what comes after is invisible there.
    env.replica_has_all().await;
    eventually("the replica is admitted", || async { env.router.status().shards[0].replicas[0].admitted })
        .await;
    let dsn = env.cluster.dsn("shard-1-replica-1").unwrap();
    let mut replica = <sqlx::PgConnection as sqlx::Connection>::connect(&dsn).await.unwrap();
    sqlx::query("SELECT pg_wal_replay_pause()").execute(&mut replica).await.unwrap();
    env.store.revoke(a.session, a.user.id, auth_core::domain::RevokeReason::Logout).await.unwrap().unwrap();
    let stale = env.store.list(a.user.id, 10, Freshness::ReplicaAllowed).await.unwrap();
    let fresh = env.store.list(a.user.id, 10, Freshness::Primary).await.unwrap();
    let b = env.account().await;
    let unseen = Accounts::get(&env.store, b.user.id, Freshness::ReplicaAllowed).await.unwrap();
    sqlx::query("SELECT pg_wal_replay_resume()").execute(&mut replica).await.unwrap();
    assert_eq!((stale.len(), fresh.len()), (1, 0), "the replica did answer, and only where it may");
    assert!(unseen.is_none());
}

async fn gone(env: Arc<Env>) {
    let a = env.account().await;
    env.cluster.kill("shard-1-replica-1").await.unwrap();
    for _ in 0..5 {
        assert_eq!(env.store.list(a.user.id, 10, Freshness::ReplicaAllowed).await.unwrap().len(), 1);
    }
    env.cluster.start("shard-1-replica-1").await.unwrap();
}
