//! Lost connections, cancelled callers, servers that stop: what is unknown is said to be unknown.
use std::sync::Arc;
use std::time::{Duration, Instant};

use auth_core::domain::RevokeReason;
use auth_core::ports::{Accounts, Freshness, Sessions, StoreError};
use sqlx::{Connection, PgConnection};

use crate::Trials;
use crate::env::{Account, Env, session_limits};

pub fn add(trials: &mut Trials) {
    trials.add("faults::a_cut_statement_that_commits_itself_is_unknown", cut_write);
    trials.add("faults::a_cut_transaction_is_tried_again", cut_transaction);
    trials.add("faults::a_slow_statement_is_told_apart", slow);
    trials.add("faults::a_cancelled_caller_leaves_no_busy_connection", cancelled);
    trials.add("faults::a_frozen_primary_is_given_up", frozen);
    trials.add("faults::a_killed_primary_is_unavailable_and_comes_back", killed);
}

/// Holds a session's row, so that whoever wants it waits.
async fn hold<'a>(admin: &'a mut PgConnection, a: &Account) -> sqlx::Transaction<'a, sqlx::Postgres> {
    let mut tx = admin.begin().await.unwrap();
    sqlx::query("SELECT FROM shard.sessions WHERE bucket = $1 AND session_id = $2 FOR UPDATE")
        .bind(i32::from(a.bucket()))
        .bind(a.session.as_uuid())
        .execute(&mut *tx)
        .await
        .unwrap();
    tx
}

/// Ends the back ends of the application that wait for a lock.
async fn cut_waiters(env: &Env) {
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE usename = 'tessera_app' AND wait_event_type = 'Lock'";
    for _ in 0..100 {
        if env.count(cut.to_owned()).await > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("nobody waits");
}

async fn cut_write(env: Arc<Env>) {
    let a = env.account().await;
    let mut admin = env.admin(1).await;
    let tx = hold(&mut admin, &a).await;
    let (token, limits) = (a.token(0), session_limits());
    let (outcome, ()) = tokio::join!(env.store.rotate(&token, &limits), cut_waiters(&env));
    assert!(matches!(outcome, Err(StoreError::Unknown(_))), "{outcome:?}");
    tx.rollback().await.unwrap();
    assert!(env.store.rotate(&a.token(0), &session_limits()).await.unwrap().is_some());
}

async fn cut_transaction(env: Arc<Env>) {
    let a = env.account().await;
    let mut admin = env.admin(1).await;
    let tx = hold(&mut admin, &a).await;
    let release = async {
        cut_waiters(&env).await;
        tx.rollback().await.unwrap();
    };
    let (outcome, ()) = tokio::join!(env.store.revoke(a.session, a.user.id, RevokeReason::Logout), release);
    assert_eq!(outcome.unwrap().unwrap().version, 2, "once, by the second try");
}

async fn slow(env: Arc<Env>) {
    let a = env.account().await;
    let mut admin = env.admin(1).await;
    let tx = hold(&mut admin, &a).await;
    let (token, limits) = (a.token(0), session_limits());
    let (write, transaction) = tokio::join!(
        env.store.rotate(&token, &limits),
        env.store.revoke(a.session, a.user.id, RevokeReason::Logout)
    );
    assert!(matches!(write, Err(StoreError::Unknown(_))), "{write:?}");
    assert!(matches!(transaction, Err(StoreError::Unavailable(_))), "{transaction:?}");
    tx.rollback().await.unwrap();
}

async fn cancelled(env: Arc<Env>) {
    let a = env.account().await;
    let mut admin = env.admin(1).await;
    let tx = hold(&mut admin, &a).await;
    for _ in 0..20 {
        let token = a.token(0);
        let limits = session_limits();
        let cut = tokio::time::timeout(Duration::from_millis(20), env.store.rotate(&token, &limits)).await;
        assert!(cut.is_err());
        let cut = env.store.revoke(a.session, a.user.id, RevokeReason::Logout);
        assert!(tokio::time::timeout(Duration::from_millis(20), cut).await.is_err());
        // More connections were dropped than the pool has: none of them may be in anybody's way.
        let started = Instant::now();
        assert!(Accounts::get(&env.store, a.user.id, Freshness::Primary).await.unwrap().is_some());
        assert!(started.elapsed() < Duration::from_millis(250), "{:?}", started.elapsed());
    }
    tx.rollback().await.unwrap();
}

async fn frozen(env: Arc<Env>) {
    let a = env.account().await;
    env.cluster.pause("shard-1-primary").await.unwrap();
    let started = Instant::now();
    let (read, write) =
        (Sessions::get(&env.store, a.session).await, env.store.rotate(&a.token(0), &session_limits()).await);
    let took = started.elapsed();
    env.cluster.resume("shard-1-primary").await.unwrap();
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    assert!(write.is_err(), "{write:?}");
    assert!(took < Duration::from_secs(6), "{took:?}");
    recovers(&env, &a).await;
}

async fn killed(env: Arc<Env>) {
    let a = env.account().await;
    env.cluster.kill("shard-1-primary").await.unwrap();
    for _ in 0..3 {
        let read = Sessions::get(&env.store, a.session).await;
        assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
        let write = env.store.rotate(&a.token(0), &session_limits()).await;
        assert!(write.is_err(), "{write:?}");
    }
    env.cluster.start("shard-1-primary").await.unwrap();
    recovers(&env, &a).await;
}

/// Until reads work again for a while: the other tests need the shard, and a health probe that was on its way during the
/// outage may still call the server down for a moment after the first read came through.
async fn recovers(env: &Env, a: &Account) {
    let mut in_a_row = 0;
    for _ in 0..300 {
        match Sessions::get(&env.store, a.session).await {
            Ok(found) => {
                assert!(found.is_some(), "an outage is no verdict");
                in_a_row += 1;
            }
            Err(StoreError::Unavailable(_)) => in_a_row = 0,
            Err(error) => panic!("{error}"),
        }
        if in_a_row == 40 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the shard did not come back");
}
