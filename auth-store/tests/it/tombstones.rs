//! Tombstones of calls whose answer was lost: whoever asks again writes them.
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use auth_core::crypto::password::{HashConfig, PasswordHasher};
use auth_core::crypto::ring::SecretRing;
use auth_core::domain::{Address, LiveSession, Password, RevokeReason};
use auth_core::ports::{Accounts, CacheAnswer, Once, PasswordChange, Revoked, SessionCache, Sessions};
use auth_core::services::{Account, OnceKey, OnceKeys, PasswordProof, SessionService, TokenSubject};
use shard_key::SessionId;

use crate::Trials;
use crate::env::{self, Counter, Env, password, password_limits, session_limits};

pub fn add(trials: &mut Trials) {
    trials.add("tombstones::a_repeated_password_change_writes_them", password_change);
    trials.add("tombstones::a_repeated_deletion_writes_them", deletion);
    trials.add("tombstones::a_repeated_logout_writes_it", logout);
    trials.add("tombstones::only_what_ended_of_late_and_of_this_user", of_late);
}

/// A cache that remembers what was buried.
#[derive(Default)]
struct Graves(Mutex<Vec<Revoked>>);

#[async_trait]
impl SessionCache for Graves {
    async fn get(&self, _: SessionId) -> CacheAnswer {
        CacheAnswer::Nothing
    }
    async fn put(&self, _: &LiveSession) {}
    async fn bury(&self, revoked: &[Revoked]) {
        self.0.lock().unwrap().extend_from_slice(revoked);
    }
}

const ONCE: [u8; 32] = [7; 32];

fn account(env: &Env, graves: &Arc<Graves>) -> Account {
    let store = Arc::new(env.store.clone());
    let peppers = SecretRing::parse("1 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\n").unwrap();
    let hash = HashConfig { memory_kib: 64, passes: 1, lanes: 1, permits: 1, wait_ms: 1_000, peppers };
    let hasher = Arc::new(PasswordHasher::new(hash).unwrap());
    let proof = PasswordProof {
        logins: store.clone(),
        accounts: store.clone(),
        hasher: Arc::clone(&hasher),
        limits: password_limits(),
    };
    Account {
        accounts: store.clone(),
        sessions: store,
        cache: graves.clone(),
        proof: Arc::new(proof),
        hasher,
        once: Arc::new(OnceKeys::new(ONCE)),
        hold: chrono::Duration::days(30),
        random: Arc::new(Counter::default()),
    }
}

fn caller(a: &env::Account) -> TokenSubject {
    TokenSubject { user_id: a.user.id, session_id: a.session }
}

fn words(text: &str) -> Password {
    Password::parse(text).unwrap()
}

fn from() -> Address {
    Address::new("192.0.2.7".parse().unwrap())
}

/// Another session of the same user.
async fn second(env: &Env, a: &env::Account) -> SessionId {
    let login = env.login(a.user.id, a.lookup, a.device);
    env.open(&login).await;
    login.session
}

async fn password_change(env: Arc<Env>) {
    let a = env.account().await;
    let other = second(&env, &a).await;
    let (current, new, key) = (words("the current one"), words("the new one"), OnceKey::parse("k").unwrap());
    let secrets = [current.as_bytes(), new.as_bytes()];
    let principal = a.user.id.as_uuid();
    let once = OnceKeys::new(ONCE).bind(&key, "me.password", principal.as_bytes(), &[], &secrets);
    // The first call: it was committed, and the node heard no answer, so nothing was buried.
    let change = PasswordChange {
        user_id: a.user.id,
        session: a.session,
        expected_version: 1,
        password: password("new"),
    };
    let changed = env.store.change_password(&change, Some(&once)).await.unwrap();
    assert!(matches!(changed, Once::Done(Some(ended)) if ended == [Revoked { session: other, version: 2 }]));
    let graves = Arc::new(Graves::default());
    let service = account(&env, &graves);
    service.change_password(caller(&a), (&current, &new), from(), Some(&key)).await.unwrap();
    assert_eq!(*graves.0.lock().unwrap(), [Revoked { session: other, version: 2 }]);
}

async fn deletion(env: Arc<Env>) {
    let a = env.account().await;
    let other = second(&env, &a).await;
    let (current, key) = (words("the current one"), OnceKey::parse("k").unwrap());
    let principal = a.user.id.as_uuid();
    let once = OnceKeys::new(ONCE).bind(&key, "me.delete", principal.as_bytes(), &[], &[current.as_bytes()]);
    let hold = chrono::Duration::days(30);
    let deleted = env.store.delete(a.user.id, a.session, 1, hold, Some(&once)).await.unwrap();
    assert!(matches!(deleted, Once::Done(Some(_))));
    let graves = Arc::new(Graves::default());
    account(&env, &graves).delete(caller(&a), &current, from(), Some(&key)).await.unwrap();
    let mut buried: Vec<SessionId> = graves.0.lock().unwrap().iter().map(|r| r.session).collect();
    buried.sort_by_key(|id| id.as_uuid());
    let mut all = [a.session, other];
    all.sort_by_key(|id| id.as_uuid());
    assert_eq!(buried, all);
}

async fn logout(env: Arc<Env>) {
    let a = env.account().await;
    let ended = env.store.revoke(a.session, a.user.id, RevokeReason::Logout).await.unwrap().unwrap();
    let graves = Arc::new(Graves::default());
    let (sessions, cache) = (Arc::new(env.store.clone()), graves.clone());
    SessionService { sessions, cache, limits: session_limits() }.logout(caller(&a)).await.unwrap();
    assert_eq!(*graves.0.lock().unwrap(), [ended]);
}

async fn of_late(env: Arc<Env>) {
    let a = env.account().await;
    let neighbour = env.account_in(a.bucket()).await;
    for one in [&a, &neighbour] {
        env.store.revoke(one.session, one.user.id, RevokeReason::Logout).await.unwrap().unwrap();
    }
    assert_eq!(env.store.list_ended(a.user.id).await.unwrap(), [Revoked { session: a.session, version: 2 }]);
    let earlier = "UPDATE shard.outbox SET created_at = now() - interval '4 minutes' WHERE bucket =";
    env.exec(format!("{earlier} {}", a.bucket())).await;
    assert_eq!(env.store.list_ended(a.user.id).await.unwrap(), []);
}
