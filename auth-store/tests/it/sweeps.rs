//! Sweeping: only what is long past, only where the bucket is ours.
use std::sync::Arc;

use auth_core::ports::{Accounts, Logins};
use auth_core::ports::{Idempotency, Once};

use crate::Trials;
use crate::env::{Env, password_limits};

pub fn add(trials: &mut Trials) {
    trials.add("sweeps::the_past_goes_and_the_rest_stays", sweep);
}

async fn rows(env: &Env, bucket: shard_key::Bucket) -> [i64; 4] {
    let mut counts = [0; 4];
    for (count, table) in counts.iter_mut().zip(["idempotency", "login_attempts", "sessions", "outbox"]) {
        *count = env.count(format!("SELECT count(*) FROM shard.{table} WHERE bucket = {bucket}")).await;
    }
    counts
}

async fn sweep(env: Arc<Env>) {
    let (old, young, foreign) = (env.account().await, env.account().await, env.account().await);
    for a in [&old, &young, &foreign] {
        let key = Idempotency { key_hash: env.hash(), request_mac: [0; 32] };
        assert!(matches!(
            env.store.rename(a.user.id, a.session, None, Some(&key)).await.unwrap(),
            Once::Done(Some(_))
        ));
        env.store.reserve(&a.attempt(), Some(a.device), &password_limits()).await.unwrap();
        auth_core::ports::Sessions::revoke(
            &env.store,
            a.session,
            a.user.id,
            auth_core::domain::RevokeReason::Logout,
        )
        .await
        .unwrap()
        .unwrap();
        assert_eq!(rows(&env, a.bucket()).await, [1, 1, 1, 1]);
    }
    for a in [&old, &foreign] {
        for change in [
            "idempotency SET expires_at = now() - interval '1 second'",
            "login_attempts SET window_ends = now() - interval '25 hours'",
            "sessions SET absolute_expires_at = now() - interval '31 days'",
            "outbox SET created_at = now() - interval '31 days'",
        ] {
            env.exec(format!("UPDATE shard.{change} WHERE bucket = {}", a.bucket())).await;
        }
    }
    env.exec(format!(
        "UPDATE meta.bucket_owner SET state = 'M', moved_to = 2 WHERE bucket = {}",
        foreign.bucket()
    ))
    .await;
    let swept = env.store.scatter_sweep().await;
    assert!(swept.failed.is_empty() && swept.rows >= 4, "{swept:?}");
    assert_eq!(rows(&env, old.bucket()).await, [0, 0, 0, 0]);
    assert_eq!(rows(&env, young.bucket()).await, [1, 1, 1, 1]);
    assert_eq!(rows(&env, foreign.bucket()).await, [1, 1, 1, 1], "a move's leftovers are not ours");
    assert_eq!(env.store.scatter_sweep().await.rows, 0);
}
