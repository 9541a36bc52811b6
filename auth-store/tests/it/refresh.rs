//! The refresh table, row by row, and under a hundred callers at once.
use std::sync::Arc;

use auth_core::domain::DeviceHash;
use auth_core::ports::{Judgement, Presented, Sessions, StoreError};
use futures::future::join_all;

use crate::Trials;
use crate::env::{Account, Env, POOL_SIZE, eventually, session_limits};

pub fn add(trials: &mut Trials) {
    trials.add("refresh::the_table", table);
    trials.add("refresh::dead_ends_write_nothing", dead_ends);
    trials.add("refresh::a_late_device_with_two_tabs", late_tabs);
    trials.add("refresh::a_hundred_callers_with_one_token", burst);
    trials.add("refresh::a_hundred_reuses_revoke_once", reuse_burst);
    trials.add("refresh::rotation_stays_heap_only", heap_only);
    trials.add("refresh::binding_and_expiry", binding);
}

/// As the service does: rotate, else replay, else judge.
async fn refresh(env: &Env, token: &Presented) -> String {
    let limits = session_limits();
    for _ in 0..10 {
        let attempt: Result<Option<String>, StoreError> = async {
            if let Some(new) = env.store.rotate(token, &limits).await? {
                return Ok(Some(format!("rotated {}", new.generation)));
            }
            if let Some(same) = env.store.replay(token, &limits).await? {
                return Ok(Some(format!("replayed {}", same.generation)));
            }
            Ok(match env.store.judge(token, &limits).await? {
                Judgement::Late(same) => Some(format!("late {}", same.generation)),
                Judgement::Storm => Some("storm".to_owned()),
                Judgement::Current => None,
                Judgement::Reused(revoked) => Some(format!("reused {}", revoked.version)),
                Judgement::Dead => Some("dead".to_owned()),
            })
        }
        .await;
        match attempt {
            Ok(Some(answer)) => return answer,
            Ok(None) => {}
            Err(error) if error.is_retryable() => {}
            Err(error) => panic!("{error}"),
        }
    }
    "gave up".to_owned()
}

async fn age(env: &Env, account: &Account, seconds: u32) {
    let id = account.session;
    env.exec(format!(
        "UPDATE shard.sessions SET rotated_at = rotated_at - interval '{seconds} s' WHERE session_id = '{id}'"
    ))
    .await;
}

async fn events(env: &Env, account: &Account, event: &str) -> i64 {
    let id = account.user.id;
    env.count(format!("SELECT count(*) FROM shard.audit WHERE user_id = '{id}' AND event = '{event}'")).await
}

async fn notices(env: &Env, account: &Account, topic: &str) -> i64 {
    let id = account.user.id;
    env.count(format!("SELECT count(*) FROM shard.outbox WHERE user_id = '{id}' AND topic = '{topic}'")).await
}

async fn table(env: Arc<Env>) {
    // Current: rotate, with everything that a token pair is made of.
    let a = env.account().await;
    let new = env.store.rotate(&a.token(0), &session_limits()).await.unwrap().unwrap();
    assert_eq!((new.generation, new.refresh_kid), (1, 2));
    assert_eq!((new.session.id, new.session.user_id, new.session.version), (a.session, a.user.id, 1));
    assert_eq!(new.user.email, a.email.as_written());
    assert_eq!(new.user.name.as_ref().map(|n| n.as_str()), Some("Ada Lovelace"));
    assert!((chrono::Utc::now() - new.session.checked_at).abs() < chrono::Duration::seconds(5));
    // gen−1 in the window, same binding: three times the same successor, made with the row's key; then a storm.
    let again = Presented { new_kid: 9, ..a.token(0) };
    for _ in 0..3 {
        let same = env.store.replay(&again, &session_limits()).await.unwrap().unwrap();
        assert_eq!((same.generation, same.refresh_kid), (1, 2));
    }
    assert_eq!(refresh(&env, &again).await, "storm");
    assert_eq!(refresh(&env, &a.token(1)).await, "rotated 2", "the family was kept");
    assert_eq!(events(&env, &a, "refresh_reuse").await, 0);
    // gen−1, later, bound and equal: late, once in eight generations.
    age(&env, &a, 31).await;
    assert_eq!(refresh(&env, &a.token(1)).await, "late 2");
    assert_eq!(
        (
            events(&env, &a, "refresh_late_replay").await,
            notices(&env, &a, "notice.refresh_late_replay").await
        ),
        (1, 1)
    );
    for generation in 2..10 {
        assert_eq!(refresh(&env, &a.token(generation)).await, format!("rotated {}", generation + 1));
    }
    age(&env, &a, 31).await;
    assert_eq!(refresh(&env, &a.token(9)).await, "late 10", "eight generations later");
    assert_eq!(refresh(&env, &a.token(10)).await, "rotated 11");
    age(&env, &a, 31).await;
    assert_eq!(refresh(&env, &a.token(10)).await, "reused 2", "too soon after the last");
    assert_eq!(
        (events(&env, &a, "refresh_reuse").await, notices(&env, &a, "notice.refresh_reuse").await),
        (1, 1)
    );
    assert_eq!(refresh(&env, &a.token(11)).await, "dead", "the family is gone");
    assert!(Sessions::get(&env.store, a.session).await.unwrap().is_none());
    // gen−1 in the window from another device, or from none.
    for device in [None, Some(DeviceHash([7; 32]))] {
        let b = env.account().await;
        assert_eq!(refresh(&env, &b.token(0)).await, "rotated 1");
        assert_eq!(refresh(&env, &Presented { device, ..b.token(0) }).await, "reused 2");
    }
    // gen−1, later, unbound.
    let c = env.account().await;
    env.exec(format!("UPDATE shard.sessions SET bound = false WHERE session_id = '{}'", c.session)).await;
    let unbound = |generation| Presented { device: None, ..c.token(generation) };
    assert_eq!(refresh(&env, &unbound(0)).await, "rotated 1");
    assert_eq!(refresh(&env, &unbound(0)).await, "replayed 1", "inside the window");
    age(&env, &c, 31).await;
    assert_eq!(refresh(&env, &unbound(0)).await, "reused 2");
    // Older.
    let d = env.account().await;
    assert_eq!(refresh(&env, &d.token(0)).await, "rotated 1");
    assert_eq!(refresh(&env, &d.token(1)).await, "rotated 2");
    assert_eq!(refresh(&env, &d.token(0)).await, "reused 2");
}

async fn dead_ends(env: Arc<Env>) {
    let a = env.account().await;
    let xmin = |env: Arc<Env>, id| async move {
        env.count(format!("SELECT xmin::text::bigint FROM shard.sessions WHERE session_id = '{id}'")).await
    };
    let before = xmin(env.clone(), a.session).await;
    assert_eq!(refresh(&env, &Presented { seed_hash: [9; 32], ..a.token(0) }).await, "dead");
    assert_eq!(refresh(&env, &a.token(1)).await, "dead", "from the future");
    assert_eq!(refresh(&env, &Presented { session: env.session_id(a.bucket()), ..a.token(0) }).await, "dead");
    assert_eq!(xmin(env.clone(), a.session).await, before, "nothing was written");
    env.exec(format!("UPDATE shard.users SET status = 'disabled' WHERE user_id = '{}'", a.user.id)).await;
    assert_eq!(refresh(&env, &a.token(0)).await, "dead");
    assert_eq!(refresh(&env, &a.token(-5)).await, "dead", "not even reuse");
    env.exec(format!("UPDATE shard.users SET status = 'active' WHERE user_id = '{}'", a.user.id)).await;
    env.exec(format!("UPDATE shard.sessions SET expires_at = now() WHERE session_id = '{}'", a.session))
        .await;
    assert_eq!(refresh(&env, &a.token(0)).await, "dead");
    // A damaged account is no refused token.
    let b = env.account().await;
    env.exec(format!("UPDATE shard.user_identifiers SET sealed = '\\x00' WHERE user_id = '{}'", b.user.id))
        .await;
    let outcome = env.store.rotate(&b.token(0), &session_limits()).await;
    assert!(matches!(outcome, Err(StoreError::Corrupt(_))), "{outcome:?}");
}

async fn late_tabs(env: Arc<Env>) {
    let a = env.account().await;
    assert_eq!(refresh(&env, &a.token(0)).await, "rotated 1");
    age(&env, &a, 3600).await;
    let token = a.token(0);
    let (one, other) = tokio::join!(refresh(&env, &token), refresh(&env, &token));
    let mut both = [one, other];
    both.sort();
    assert_eq!(both, ["late 1", "replayed 1"], "the second tab finds the window open");
    age(&env, &a, 31).await;
    assert_eq!(refresh(&env, &a.token(0)).await, "reused 2");
}

async fn burst(env: Arc<Env>) {
    for _ in 0..3 {
        let a = Arc::new(env.account().await);
        let calls = (0..100).map(|_| {
            let (env, a) = (env.clone(), a.clone());
            tokio::spawn(async move { refresh(&env, &a.token(0)).await })
        });
        let answers: Vec<String> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
        let count = |what: &str| answers.iter().filter(|a| *a == what).count();
        assert_eq!(count("rotated 1"), 1, "{answers:?}");
        assert_eq!(count("replayed 1"), 3, "{answers:?}");
        assert_eq!(count("storm") + count("gave up"), 96, "{answers:?}");
        assert!(count("gave up") < 50, "{answers:?}");
        assert_eq!(refresh(&env, &a.token(1)).await, "rotated 2", "one live chain");
    }
}

async fn reuse_burst(env: Arc<Env>) {
    let a = Arc::new(env.account().await);
    assert_eq!(refresh(&env, &a.token(0)).await, "rotated 1");
    assert_eq!(refresh(&env, &a.token(1)).await, "rotated 2");
    let calls = (0..16).map(|_| {
        let (env, a) = (env.clone(), a.clone());
        tokio::spawn(async move { refresh(&env, &a.token(0)).await })
    });
    let answers: Vec<String> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|a| *a == "reused 2").count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|a| *a == "dead").count(), 15, "{answers:?}");
    assert_eq!(events(&env, &a, "refresh_reuse").await, 1);
}

async fn heap_only(env: Arc<Env>) {
    let a = env.account().await;
    let cold = "SELECT coalesce(sum(n_tup_upd - n_tup_hot_upd), 0)::bigint FROM pg_stat_user_tables
        WHERE relid = 'shard.sessions'::regclass";
    all_is_reported(&env).await;
    let before = env.count(cold.to_owned()).await;
    for generation in 0..50 {
        assert_eq!(refresh(&env, &a.token(generation)).await, format!("rotated {}", generation + 1));
    }
    all_is_reported(&env).await;
    // Now and then a page is full and the new version goes to another one.
    let cold = env.count(cold.to_owned()).await - before;
    assert!(cold <= 10, "{cold} of 50 rotations were not heap-only");
}

/// Back ends report what they did now and then, and when they end: so they end. The prober's stays.
async fn all_is_reported(env: &Env) {
    env.router.resize(0);
    let left = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'tessera_app'";
    eventually("all but the prober's end", || async { env.count(left.to_owned()).await <= 1 }).await;
    env.router.resize(POOL_SIZE);
}

async fn binding(env: Arc<Env>) {
    let a = env.account().await;
    env.exec(format!("UPDATE shard.sessions SET bound = false WHERE session_id = '{}'", a.session)).await;
    let bound = || {
        env.count(format!("SELECT bound::int::bigint FROM shard.sessions WHERE session_id = '{}'", a.session))
    };
    refresh(&env, &Presented { device: Some(DeviceHash([5; 32])), ..a.token(0) }).await;
    assert_eq!(bound().await, 0, "another device binds nothing");
    refresh(&env, &a.token(1)).await;
    assert_eq!(bound().await, 1);
    // Idle expiry moves on, the absolute end does not.
    env.exec(format!(
        "UPDATE shard.sessions SET absolute_expires_at = now() + interval '1 day' WHERE session_id = '{}'",
        a.session
    ))
    .await;
    let new = env.store.rotate(&a.token(2), &session_limits()).await.unwrap().unwrap();
    assert!(new.session.expires_at <= chrono::Utc::now() + chrono::Duration::hours(25));
}
