//! The cache: never older than it says, never in the way.
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use auth_core::domain::LiveSession;
use auth_core::ports::{CacheAnswer, Clock, Revoked, SessionCache, Sessions};
use auth_store::{RedisConfig, RedisSessions};
use chrono::{DateTime, SubsecRound, Utc};

use crate::Trials;
use crate::env::{Env, SystemClock, eventually};

pub fn add(trials: &mut Trials) {
    trials.add("cache::compare_and_set", compare_and_set);
    trials.add("cache::entries_expire", expiry);
    trials.add("cache::a_flush_loses_nothing_but_speed", flushed);
    trials.add("cache::older_copies_are_distrusted_after_a_reconnect", distrust);
    trials.add("cache::serving_starts_without_redis", absent);
    trials.add("cache::stopped_servers_are_not_waited_for", stopped);
    trials.add("cache::a_paused_master_costs_the_others_nothing", one_paused);
    trials.add("cache::a_killed_master_is_replaced", killed);
}

/// A clock that a test sets; the real one plus so many milliseconds.
struct Shifted(AtomicI64);

impl Clock for Shifted {
    fn now(&self) -> DateTime<Utc> {
        Utc::now() + chrono::Duration::milliseconds(self.0.load(Ordering::Relaxed))
    }
}

async fn connected(env: &Env, clock: Arc<dyn Clock>) -> RedisSessions {
    let nodes = env.cluster.redis_addrs().unwrap();
    let cache = RedisSessions::start(&RedisConfig { nodes }, clock).unwrap();
    let session = env.session_id(env.bucket());
    let probe = [Revoked { session, version: 1 }];
    eventually("it is connected", || async {
        cache.bury(&probe).await;
        cache.is_up() && cache.get(session).await == CacheAnswer::Dead
    })
    .await;
    cache
}

/// A session as if it had been checked after all that the cache distrusts.
async fn session(env: &Env) -> LiveSession {
    let a = env.account().await;
    let session = Sessions::get(&env.store, a.session).await.unwrap().unwrap();
    later(&session, 10_000)
}

fn later(session: &LiveSession, ms: i64) -> LiveSession {
    LiveSession { checked_at: session.checked_at + chrono::Duration::milliseconds(ms), ..session.clone() }
}

/// After all that a cache distrusts now, in the microseconds of a database's clock.
fn soon() -> DateTime<Utc> {
    (Utc::now() + chrono::Duration::seconds(10)).trunc_subsecs(6)
}

async fn compare_and_set(env: Arc<Env>) {
    let cache = connected(&env, Arc::new(SystemClock)).await;
    let one = session(&env).await;
    assert_eq!(cache.get(one.id).await, CacheAnswer::Nothing);
    cache.put(&one).await;
    assert_eq!(cache.get(one.id).await, CacheAnswer::Live(one.clone()));
    cache.put(&later(&one, -1)).await;
    assert_eq!(cache.get(one.id).await, CacheAnswer::Live(one.clone()), "an older look at the same version");
    let newer = later(&one, 1);
    cache.put(&newer).await;
    assert_eq!(cache.get(one.id).await, CacheAnswer::Live(newer.clone()));
    let next = LiveSession { version: one.version + 1, ..later(&one, -500) };
    cache.put(&next).await;
    assert_eq!(cache.get(one.id).await, CacheAnswer::Live(next.clone()), "a higher version wins at any time");
    cache.put(&newer).await;
    assert_eq!(cache.get(one.id).await, CacheAnswer::Live(next.clone()), "a lower one never");
    // Revoked: the reader that loaded before it comes too late.
    let version = next.version + 1;
    cache.bury(&[Revoked { session: one.id, version }]).await;
    assert_eq!(cache.get(one.id).await, CacheAnswer::Dead);
    cache.put(&later(&next, 5_000)).await;
    cache.put(&LiveSession { version, ..later(&next, 5_000) }).await;
    assert_eq!(cache.get(one.id).await, CacheAnswer::Dead);
    cache.bury(&[Revoked { session: one.id, version: 1 }]).await;
    assert_eq!(cache.get(one.id).await, CacheAnswer::Dead);
    // All of a user's at once, over all slots.
    let many: Vec<Revoked> =
        (0..100).map(|_| Revoked { session: env.session_id(one.id.bucket()), version: 2 }).collect();
    cache.bury(&many).await;
    for revoked in many {
        assert_eq!(cache.get(revoked.session).await, CacheAnswer::Dead);
    }
    cache.shutdown();
}

async fn expiry(env: Arc<Env>) {
    let cache = connected(&env, Arc::new(SystemClock)).await;
    let soon =
        LiveSession { expires_at: Utc::now() + chrono::Duration::milliseconds(400), ..session(&env).await };
    cache.put(&soon).await;
    assert!(matches!(cache.get(soon.id).await, CacheAnswer::Live(_)));
    let over = LiveSession { expires_at: Utc::now(), ..session(&env).await };
    cache.put(&over).await;
    assert_eq!(cache.get(over.id).await, CacheAnswer::Nothing);
    eventually("it is forgotten", || async { cache.get(soon.id).await == CacheAnswer::Nothing }).await;
    cache.shutdown();
}

async fn flushed(env: Arc<Env>) {
    let cache = connected(&env, Arc::new(SystemClock)).await;
    let one = session(&env).await;
    cache.put(&one).await;
    env.cluster.redis_flush_all().await.unwrap();
    assert_eq!(cache.get(one.id).await, CacheAnswer::Nothing);
    cache.put(&one).await;
    assert_eq!(cache.get(one.id).await, CacheAnswer::Live(one));
    cache.shutdown();
}

async fn distrust(env: Arc<Env>) {
    let clock = Arc::new(Shifted(AtomicI64::new(0)));
    let cache = connected(&env, clock).await;
    let one = session(&env).await;
    cache.put(&later(&one, -10_000)).await;
    assert_eq!(cache.get(one.id).await, CacheAnswer::Nothing, "it was checked before this node connected");
    cache.put(&one).await;
    assert!(matches!(cache.get(one.id).await, CacheAnswer::Live(_)));
    cache.shutdown();
    // Another node that connects later believes nothing of before.
    let ahead = connected(&env, Arc::new(Shifted(AtomicI64::new(60_000)))).await;
    assert_eq!(ahead.get(one.id).await, CacheAnswer::Nothing);
    ahead.shutdown();
}

async fn absent(env: Arc<Env>) {
    let nodes = vec!["127.0.0.1:1".to_owned()];
    let cache = RedisSessions::start(&RedisConfig { nodes }, Arc::new(SystemClock)).unwrap();
    let one = session(&env).await;
    for _ in 0..50 {
        cache.put(&one).await;
        assert_eq!(cache.get(one.id).await, CacheAnswer::Nothing);
    }
    assert_eq!(cache.masters_down(), None, "it knows of no master");
    cache.shutdown();
}

async fn stopped(env: Arc<Env>) {
    let cache = connected(&env, Arc::new(SystemClock)).await;
    let sessions: Vec<LiveSession> = futures::future::join_all((0..8).map(|_| session(&env))).await;
    let parts: Vec<String> =
        (1..=env.cluster.redis_addrs().unwrap().len()).map(|n| format!("redis-{n}")).collect();
    for part in &parts {
        env.cluster.pause(part).await.unwrap();
    }
    // Enough for every master to be asked.
    let strangers: Vec<_> = (0..60).map(|_| env.session_id(sessions[0].id.bucket())).collect();
    eventually("all breakers open", || async {
        for id in sessions.iter().map(|one| &one.id).chain(&strangers) {
            assert_eq!(cache.get(*id).await, CacheAnswer::Nothing);
        }
        cache.masters_down().is_some_and(|down| down.len() == 3)
    })
    .await;
    for part in &parts {
        env.cluster.resume(part).await.unwrap();
    }
    used_again(&cache, &sessions).await;
    cache.shutdown();
}

/// Until copies are kept and found again. Those checked before the trouble stay nothing; new ones count.
async fn used_again(cache: &RedisSessions, sessions: &[LiveSession]) {
    eventually("Redis is used again", || async {
        let mut found = 0;
        for one in sessions {
            let fresh = LiveSession { checked_at: soon(), ..one.clone() };
            cache.put(&fresh).await;
            found += usize::from(cache.get(fresh.id).await == CacheAnswer::Live(fresh));
        }
        found == sessions.len()
    })
    .await;
}

/// The name of a session's master.
async fn master(env: &Env, one: &LiveSession) -> String {
    env.cluster.redis_master_of(&format!("s:{{{}}}", one.id)).await.unwrap()
}

/// Some sessions of one master, and some of the others, all with copies that are believed.
async fn two_kinds(env: &Env, cache: &RedisSessions) -> (String, Vec<LiveSession>, Vec<LiveSession>) {
    let first = session(env).await;
    let name = master(env, &first).await;
    let (mut own, mut others) = (vec![first], Vec::new());
    while own.len() < 8 || others.len() < 8 {
        let one = session(env).await;
        if master(env, &one).await == name { own.push(one) } else { others.push(one) }
    }
    used_again(cache, &[&own[..], &others[..]].concat()).await;
    (name, own, others)
}

/// Until all of them are found at once; one command may be late by accident.
async fn all_found(cache: &RedisSessions, sessions: &[LiveSession]) {
    eventually("all are found", || async {
        let found = futures::future::join_all(sessions.iter().map(|one| cache.get(one.id))).await;
        found.iter().all(|answer| matches!(answer, CacheAnswer::Live(_)))
    })
    .await;
}

async fn one_paused(env: Arc<Env>) {
    let cache = connected(&env, Arc::new(SystemClock)).await;
    let (name, own, others) = two_kinds(&env, &cache).await;
    // With its replica: nobody takes its place.
    let number: u16 = name.trim_start_matches("redis-").parse().unwrap();
    let replica = format!("redis-{}", if number <= 3 { number + 3 } else { number - 3 });
    for part in [&replica, &name] {
        env.cluster.pause(part).await.unwrap();
    }
    let server = format!("127.0.0.1:{}", env.cluster.port(&name).unwrap());
    eventually("its breaker opens", || async {
        assert_eq!(cache.get(own[0].id).await, CacheAnswer::Nothing);
        cache.masters_down() == Some(vec![server.clone()])
    })
    .await;
    for _ in 0..5 {
        all_found(&cache, &others).await;
        for one in &own {
            assert_eq!(cache.get(one.id).await, CacheAnswer::Nothing);
        }
        assert_eq!(cache.masters_down(), Some(vec![server.clone()]), "alone");
    }
    for part in [&replica, &name] {
        env.cluster.resume(part).await.unwrap();
    }
    eventually("it is asked again", || async { cache.is_up() }).await;
    all_found(&cache, &others).await;
    used_again(&cache, &own).await;
    cache.shutdown();
}

async fn killed(env: Arc<Env>) {
    let cache = connected(&env, Arc::new(SystemClock)).await;
    let (name, own, others) = two_kinds(&env, &cache).await;
    let at_the_end = Utc::now().trunc_subsecs(6);
    env.cluster.kill(&name).await.unwrap();
    eventually("its loss is seen", || async {
        assert_eq!(cache.get(own[0].id).await, CacheAnswer::Nothing);
        cache.masters_down().is_some_and(|down| !down.is_empty())
    })
    .await;
    all_found(&cache, &others).await;
    used_again(&cache, &own).await;
    // Of its slots, what was checked before is not believed, although another server has it; of the others all is.
    all_found(&cache, &others).await;
    for one in &own {
        let before = LiveSession { version: one.version + 1, checked_at: at_the_end, ..one.clone() };
        cache.put(&before).await;
        assert_eq!(cache.get(one.id).await, CacheAnswer::Nothing);
    }
    env.cluster.start(&name).await.unwrap();
    cache.shutdown();
}
