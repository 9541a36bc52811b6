//! Accounts: uniqueness, holds, sealed columns, idempotency keys, and what ends which sessions.
use std::sync::Arc;

use auth_core::domain::DisplayName;
use auth_core::ports::{
    Accounts, Freshness, Idempotency, Logins, NewAccount, Once, PasswordChange, Sessions, StoreError,
};
use chrono::Duration;
use futures::future::join_all;

use crate::Trials;
use crate::env::{Account, Env, password, session_limits};

pub fn add(trials: &mut Trials) {
    trials.add("accounts::one_of_many_gets_the_address", uniqueness);
    trials.add("accounts::personal_values_are_sealed_in_place", sealed);
    trials.add("accounts::rename", rename);
    trials.add("accounts::change_password_ends_the_others", change_password);
    trials.add("accounts::delete_holds_the_address", delete);
    trials.add("accounts::idempotency_keys", idempotency);
    trials.add("accounts::idempotency_under_concurrency", concurrent_keys);
}

fn key(env: &Env) -> Idempotency {
    Idempotency { key_hash: env.hash(), request_mac: [1; 32] }
}

async fn second_session(env: &Env, a: &Account) -> shard_key::SessionId {
    let login = env.login(a.user.id, a.lookup, a.device);
    env.open(&login).await;
    login.session
}

async fn live(env: &Env, session: shard_key::SessionId) -> bool {
    Sessions::get(&env.store, session).await.unwrap().is_some()
}

async fn uniqueness(env: Arc<Env>) {
    let (bucket, lookup) = (env.bucket(), env.hash().into());
    let calls = (0..12).map(|_| {
        let env = env.clone();
        tokio::spawn(async move {
            let new = NewAccount { lookup_hash: lookup, ..env.new_account(bucket) };
            env.store.insert(&new, None).await.unwrap()
        })
    });
    let made: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(made.iter().filter(|m| matches!(m, Once::Done(Some(_)))).count(), 1);
    assert_eq!(made.iter().filter(|m| matches!(m, Once::Done(None))).count(), 11);
    assert_eq!(env.count(format!("SELECT count(*) FROM shard.users WHERE bucket = {bucket}")).await, 1);
    assert_eq!(env.count(format!("SELECT count(*) FROM shard.audit WHERE bucket = {bucket}")).await, 1);
}

async fn sealed(env: Arc<Env>) {
    let (a, b) = (env.account().await, env.account().await);
    for column in [
        "users WHERE position('Ada'::bytea IN name)",
        "user_identifiers WHERE position('xample'::bytea IN sealed)",
    ] {
        assert_eq!(env.count(format!("SELECT count(*) FROM shard.{column} > 0")).await, 0, "{column}");
    }
    let found = Accounts::get(&env.store, a.user.id, Freshness::Primary).await.unwrap().unwrap();
    assert_eq!((found.email.as_str(), found.email_verified), (a.email.as_written(), false));
    assert_eq!(found.created_at, a.user.created_at);
    // A sealed value in another row does not open there, and that is an error, not a missing user.
    let name = format!("(SELECT name FROM shard.users WHERE user_id = '{}')", b.user.id);
    env.exec(format!("UPDATE shard.users SET name = {name} WHERE user_id = '{}'", a.user.id)).await;
    let outcome = Accounts::get(&env.store, a.user.id, Freshness::Primary).await;
    assert!(matches!(outcome, Err(StoreError::Corrupt(_))), "{outcome:?}");
}

async fn rename(env: Arc<Env>) {
    let (a, b) = (env.account().await, env.account().await);
    let name = DisplayName::parse("Grace Hopper").unwrap();
    let Once::Done(Some(user)) = env.store.rename(a.user.id, a.session, Some(&name), None).await.unwrap()
    else {
        panic!("not renamed")
    };
    assert_eq!(user.name.as_ref(), Some(&name));
    assert_eq!(user.email, a.email.as_written());
    let Once::Done(Some(user)) = env.store.rename(a.user.id, a.session, None, None).await.unwrap() else {
        panic!("not renamed")
    };
    assert!(user.name.is_none());
    let foreign = env.store.rename(a.user.id, b.session, Some(&name), None).await.unwrap();
    assert!(matches!(foreign, Once::Done(None)), "somebody else's session");
    env.store.revoke(a.session, a.user.id, auth_core::domain::RevokeReason::Logout).await.unwrap().unwrap();
    assert!(matches!(
        env.store.rename(a.user.id, a.session, Some(&name), None).await.unwrap(),
        Once::Done(None)
    ));
}

async fn change_password(env: Arc<Env>) {
    let a = env.account().await;
    let (other, third) = (second_session(&env, &a).await, second_session(&env, &a).await);
    let held = env.store.get_password(a.user.id, a.session).await.unwrap().unwrap();
    assert_eq!(
        (held.version, held.password.phc.as_str(), held.password.pepper_id),
        (1, "$test$first", Some(1))
    );
    let change = PasswordChange {
        user_id: a.user.id,
        session: a.session,
        expected_version: 1,
        password: password("second"),
    };
    let Once::Done(Some(ended)) = env.store.change_password(&change, None).await.unwrap() else {
        panic!("refused")
    };
    let mut ids: Vec<_> = ended.iter().map(|r| (r.session, r.version)).collect();
    ids.sort();
    let mut expected = vec![(other, 2), (third, 2)];
    expected.sort();
    assert_eq!(ids, expected);
    assert!(live(&env, a.session).await && !live(&env, other).await);
    assert!(
        matches!(env.store.change_password(&change, None).await.unwrap(), Once::Done(None)),
        "old version"
    );
    // A login that verified the old password comes too late.
    let late = env.login(a.user.id, a.lookup, a.device);
    assert!(env.store.open(&late, &session_limits()).await.unwrap().is_none());
    assert!(env.store.get_password(a.user.id, other).await.unwrap().is_none(), "a dead session");
}

async fn delete(env: Arc<Env>) {
    let a = env.account().await;
    let other = second_session(&env, &a).await;
    let hold = Duration::days(30);
    let gone = |version| env.store.delete(a.user.id, a.session, version, hold, None);
    assert!(matches!(gone(2).await.unwrap(), Once::Done(None)), "wrong version");
    let Once::Done(Some(ended)) = gone(1).await.unwrap() else { panic!("refused") };
    assert_eq!(ended.len(), 2);
    assert!(!live(&env, a.session).await && !live(&env, other).await);
    assert!(Accounts::get(&env.store, a.user.id, Freshness::Primary).await.unwrap().is_none());
    for table in ["credentials", "devices"] {
        let left = format!("SELECT count(*) FROM shard.{table} WHERE bucket = {}", a.bucket());
        assert_eq!(env.count(left).await, 0, "{table}");
    }
    let again = || async {
        let new = NewAccount { lookup_hash: a.lookup, ..env.new_account(a.bucket()) };
        env.store.insert(&new, None).await.unwrap()
    };
    assert!(matches!(again().await, Once::Done(None)), "held");
    env.exec(format!("UPDATE shard.identifiers SET held_until = now() WHERE bucket = {}", a.bucket())).await;
    assert!(matches!(again().await, Once::Done(Some(_))), "the hold is over");
    assert!(matches!(again().await, Once::Done(None)), "taken again");
}

async fn idempotency(env: Arc<Env>) {
    let bucket = env.bucket();
    let (new, key) = (env.new_account(bucket), key(&env));
    assert!(env.store.find_once(bucket, &key).await.unwrap().is_none());
    let Once::Done(Some(user)) = env.store.insert(&new, Some(&key)).await.unwrap() else { panic!("refused") };
    let id = user.id.as_uuid();
    assert_eq!(env.store.find_once(bucket, &key).await.unwrap(), Some(Once::Replayed(Some(id))));
    let again = env.store.insert(&env.new_account(bucket), Some(&key)).await.unwrap();
    assert!(matches!(again, Once::Replayed(Some(same)) if same == id));
    let other = Idempotency { request_mac: [2; 32], ..key };
    assert!(matches!(env.store.insert(&new, Some(&other)).await.unwrap(), Once::Mismatch));
    assert_eq!(env.store.find_once(bucket, &other).await.unwrap(), Some(Once::Mismatch));
    // A refusal keeps no row: the key is free for when the address is.
    let fresh = Idempotency { key_hash: env.hash(), ..key };
    let taken = NewAccount { lookup_hash: new.lookup_hash, ..env.new_account(bucket) };
    assert!(matches!(env.store.insert(&taken, Some(&fresh)).await.unwrap(), Once::Done(None)));
    assert!(env.store.find_once(bucket, &fresh).await.unwrap().is_none());
    // Expired: as if never used.
    env.exec(format!("UPDATE shard.idempotency SET expires_at = now() WHERE bucket = {bucket}")).await;
    assert!(env.store.find_once(bucket, &key).await.unwrap().is_none());
    assert!(matches!(
        env.store.insert(&env.new_account(bucket), Some(&key)).await.unwrap(),
        Once::Done(Some(_))
    ));
    let kept =
        format!("SELECT count(*) FROM shard.idempotency WHERE bucket = {bucket} AND expires_at > now()");
    assert_eq!(env.count(kept).await, 1);
}

async fn concurrent_keys(env: Arc<Env>) {
    for _ in 0..5 {
        let (bucket, key) = (env.bucket(), key(&env));
        let calls = (0..10).map(|_| {
            let env = env.clone();
            tokio::spawn(async move { env.store.insert(&env.new_account(bucket), Some(&key)).await.unwrap() })
        });
        let answers: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers.iter().filter(|a| matches!(a, Once::Done(Some(_)))).count(), 1);
        assert!(answers.iter().all(|a| !matches!(a, Once::Done(None) | Once::Mismatch)));
        assert_eq!(env.count(format!("SELECT count(*) FROM shard.users WHERE bucket = {bucket}")).await, 1);
    }
    // While a transaction holds the key.
    let (a, key) = (env.account().await, key(&env));
    let mut admin = env.admin(1).await;
    let mut tx = sqlx::Connection::begin(&mut admin).await.unwrap();
    let head = i64::from_be_bytes(key.key_hash[..8].try_into().unwrap());
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(head).execute(&mut *tx).await.unwrap();
    let running = env.store.rename(a.user.id, a.session, None, Some(&key)).await.unwrap();
    assert!(matches!(running, Once::Running));
    tx.rollback().await.unwrap();
    assert!(matches!(
        env.store.rename(a.user.id, a.session, None, Some(&key)).await.unwrap(),
        Once::Done(Some(_))
    ));
}
