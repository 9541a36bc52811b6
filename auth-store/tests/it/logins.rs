//! Exact limits, the same work for everybody, and what opening a session does.
use std::sync::Arc;
use std::time::Duration;

use auth_core::domain::{DeviceHash, PasswordLimits};
use auth_core::ports::{Accounts, Login, Logins, Reserved, Sessions, StoreError};
use futures::future::join_all;
use shard_key::LookupHash;

use crate::Trials;
use crate::env::{Account, Env, attempt, password, password_limits, session_limits};

pub fn add(trials: &mut Trials) {
    trials.add("logins::two_hundred_guesses_at_once_evaluate_the_limit", burst);
    trials.add("logins::windows_grow_and_forgive", windows);
    trials.add("logins::unknown_devices_are_delayed_never_locked", delayed);
    trials.add("logins::candidates_follow_the_users_own_list", candidates);
    trials.add("logins::a_refund_gives_the_attempt_back", refund);
    trials.add("logins::proofs_have_the_same_limit", proofs);
    trials.add("logins::opening_clears_and_remembers", opening);
    trials.add("logins::the_oldest_sessions_go", too_many);
    trials.add("logins::a_rehash_is_no_new_password", rehash);
}

async fn go(env: &Env, a: &Account, device: Option<DeviceHash>) -> Option<bool> {
    match env.store.reserve(&a.attempt(), device, &password_limits()).await.unwrap() {
        Reserved::Limited(_) => None,
        Reserved::Go { delayed, .. } => Some(delayed),
    }
}

async fn burst(env: Arc<Env>) {
    for known in [true, false] {
        let a = env.account().await;
        let key = if known {
            a.attempt()
        } else {
            attempt(a.bucket(), LookupHash::from(env.hash()), "192.0.2.0/24")
        };
        let calls = (0..200).map(|_| {
            let (env, key) = (env.clone(), key.clone());
            tokio::spawn(async move {
                loop {
                    match env.store.reserve(&key, None, &password_limits()).await {
                        Ok(answer) => return answer,
                        // The pool is small on purpose; nothing was counted.
                        Err(StoreError::Unavailable(_)) => {
                            tokio::time::sleep(Duration::from_millis(20)).await
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        });
        let answers: Vec<Reserved> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
        let evaluated = answers.iter().filter(|a| matches!(a, Reserved::Go { .. })).count();
        assert_eq!(evaluated, 10);
        for answer in answers {
            let Reserved::Limited(wait) = answer else { continue };
            assert!(wait <= Duration::from_secs(900) && wait > Duration::from_secs(800), "{wait:?}");
        }
    }
}

async fn windows(env: Arc<Env>) {
    let a = env.account().await;
    let bucket = a.bucket();
    let end_window = |ago: &'static str| {
        env.exec(format!(
            "UPDATE shard.login_attempts SET window_ends = now() - interval '{ago}' WHERE bucket = {bucket}"
        ))
    };
    for minutes in [15, 30, 60, 120, 240, 240] {
        for _ in 0..10 {
            assert!(go(&env, &a, Some(a.device)).await.is_some());
        }
        let limited = env.store.reserve(&a.attempt(), Some(a.device), &password_limits()).await.unwrap();
        let Reserved::Limited(wait) = limited else { panic!("not limited") };
        assert!(wait <= Duration::from_secs(minutes * 60), "{minutes}: {wait:?}");
        assert!(wait > Duration::from_secs(minutes * 60 - 60), "{minutes}: {wait:?}");
        end_window("1 second").await;
    }
    // An unexhausted window adds nothing; a quiet day forgets.
    assert!(go(&env, &a, Some(a.device)).await.is_some());
    end_window("25 hours").await;
    assert!(go(&env, &a, Some(a.device)).await.is_some());
    let strikes = || {
        env.count(format!(
            "SELECT strikes::bigint FROM shard.login_attempts WHERE bucket = {bucket} AND scope <> ''"
        ))
    };
    assert_eq!(strikes().await, 0);
    // A success clears.
    env.open(&env.login(a.user.id, a.lookup, a.device)).await;
    assert_eq!(
        env.count(format!(
            "SELECT count(*) FROM shard.login_attempts WHERE bucket = {bucket} AND scope <> ''"
        ))
        .await,
        0
    );
}

async fn delayed(env: Arc<Env>) {
    let a = env.account().await;
    let limits = PasswordLimits { per_scope: 100, ..password_limits() };
    let reserve = |device| {
        let key = a.attempt();
        let (env, limits) = (&env, &limits);
        async move {
            match env.store.reserve(&key, device, limits).await.unwrap() {
                Reserved::Go { delayed, .. } => delayed,
                Reserved::Limited(_) => panic!("locked"),
            }
        }
    };
    for n in 1..=25 {
        assert_eq!(reserve(Some(DeviceHash([9; 32]))).await, n > 20, "attempt {n}");
    }
    assert!(!reserve(Some(a.device)).await, "the owner's device is not delayed");
    assert!(reserve(None).await);
}

async fn candidates(env: Arc<Env>) {
    let a = env.account().await;
    let find = |device| {
        let key = attempt(a.bucket(), a.lookup, "x");
        let env = &env;
        async move {
            match env.store.reserve(&key, device, &password_limits()).await.unwrap() {
                Reserved::Go { candidate, .. } => candidate,
                Reserved::Limited(_) => panic!("limited"),
            }
        }
    };
    let found = find(Some(a.device)).await.unwrap();
    assert_eq!((found.user.id, found.known_device), (a.user.id, true));
    assert_eq!((found.credential.version, found.credential.password.phc.as_str()), (1, "$test$first"));
    assert_eq!(found.user.email, a.email.as_written());
    assert!(!find(Some(DeviceHash([1; 32]))).await.unwrap().known_device);
    assert!(!find(None).await.unwrap().known_device);
    for (off, on) in [
        ("users SET status = 'disabled'", "users SET status = 'active'"),
        ("user_identifiers SET state = 'removed'", "user_identifiers SET state = 'active'"),
        ("identifiers SET state = 'held'", "identifiers SET state = 'active'"),
        ("identifiers SET state = 'reserved'", "identifiers SET state = 'active'"),
    ] {
        env.exec(format!("UPDATE shard.{off} WHERE bucket = {}", a.bucket())).await;
        assert!(find(None).await.is_none(), "{off}");
        env.exec(format!("UPDATE shard.{on} WHERE bucket = {}", a.bucket())).await;
    }
    assert!(find(None).await.is_some());
}

async fn refund(env: Arc<Env>) {
    let a = env.account().await;
    for _ in 0..10 {
        assert!(go(&env, &a, None).await.is_some());
    }
    assert!(go(&env, &a, None).await.is_none() && go(&env, &a, None).await.is_none());
    env.store.refund(&a.attempt(), None).await.unwrap();
    assert!(go(&env, &a, None).await.is_some(), "exactly one came back");
    assert!(go(&env, &a, None).await.is_none());
    let wide = || {
        env.count(format!(
            "SELECT failures::bigint FROM shard.login_attempts WHERE bucket = {} AND scope = ''",
            a.bucket()
        ))
    };
    assert_eq!(wide().await, 10);
    env.store.refund(&a.attempt(), Some(a.device)).await.unwrap();
    assert_eq!(wide().await, 10, "a known device was never counted there");
}

async fn proofs(env: Arc<Env>) {
    let a = env.account().await;
    let key = attempt(a.bucket(), LookupHash::from(env.hash()), "proof");
    for _ in 0..10 {
        assert!(env.store.reserve_proof(&key, &password_limits()).await.unwrap().is_none());
    }
    let wait = env.store.reserve_proof(&key, &password_limits()).await.unwrap().unwrap();
    assert!(wait > Duration::from_secs(800), "{wait:?}");
    env.store.clear_proof(&key).await.unwrap();
    assert!(env.store.reserve_proof(&key, &password_limits()).await.unwrap().is_none());
}

async fn opening(env: Arc<Env>) {
    let a = env.account().await;
    for _ in 0..3 {
        go(&env, &a, None).await;
    }
    let device = DeviceHash(env.hash());
    let opened = env.open(&Login { bound: false, ..env.login(a.user.id, a.lookup, device) }).await;
    assert_eq!((opened.session.user_id, opened.session.version), (a.user.id, 1));
    assert_eq!(opened.session.amr, ["pwd"]);
    assert!((opened.session.expires_at - chrono::Utc::now() - session_limits().idle).num_seconds().abs() < 5);
    let row = |scope: &str| {
        env.count(format!(
            "SELECT coalesce(max(failures), -1)::bigint FROM shard.login_attempts WHERE bucket = {} AND scope = '{scope}'",
            a.bucket()
        ))
    };
    assert_eq!(row("192.0.2.0/24").await, -1, "cleared");
    assert_eq!(row("").await, 2, "the success is no failure; the others stay");
    assert!(go(&env, &a, Some(device)).await.is_some());
    env.open(&env.login(a.user.id, a.lookup, device)).await;
    assert_eq!(row("").await, 2, "a known device leaves the identifier's row alone");
    let listed = env.store.list(a.user.id, 2, auth_core::ports::Freshness::Primary).await.unwrap();
    assert_eq!(listed.len(), 2, "at most the limit");
    assert!(listed[0].created_at >= listed[1].created_at, "the newest first");
    env.exec(format!("UPDATE shard.users SET status = 'disabled' WHERE bucket = {}", a.bucket())).await;
    let late = env.login(a.user.id, a.lookup, device);
    assert!(env.store.open(&late, &session_limits()).await.unwrap().is_none());
}

async fn too_many(env: Arc<Env>) {
    let a = env.account().await;
    let limits = auth_core::domain::SessionLimits { max_live: 3, ..session_limits() };
    let mut opened = vec![a.session];
    for n in 1..6 {
        let login = env.login(a.user.id, a.lookup, a.device);
        let outcome = env.store.open(&login, &limits).await.unwrap().unwrap();
        opened.push(login.session);
        let ended: Vec<_> = outcome.ended.iter().map(|r| r.session).collect();
        let expected: Vec<_> = if n < 3 { Vec::new() } else { vec![opened[n - 3]] };
        assert_eq!(ended, expected, "login {n}");
    }
    // Many at once are no way around it.
    let logins: Vec<Login> = (0..10).map(|_| env.login(a.user.id, a.lookup, a.device)).collect();
    join_all(logins.iter().map(|login| async { env.store.open(login, &limits).await.unwrap().unwrap() }))
        .await;
    let live = env.store.list(a.user.id, 100, auth_core::ports::Freshness::Primary).await.unwrap();
    assert_eq!(live.len(), 3);
}

async fn rehash(env: Arc<Env>) {
    let a = env.account().await;
    let stronger = Login { rehashed: Some(password("stronger")), ..env.login(a.user.id, a.lookup, a.device) };
    let parallel = env.login(a.user.id, a.lookup, a.device);
    env.open(&stronger).await;
    env.open(&parallel).await;
    let held = env.store.get_password(a.user.id, a.session).await.unwrap().unwrap();
    assert_eq!((held.version, held.password.phc.as_str()), (1, "$test$stronger"));
}
