//! The cache: never older than it says, never in the way.
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use auth_core::domain::LiveSession;
use auth_core::ports::{CacheAnswer, Clock, Revoked, SessionCache, Sessions};
use auth_store::{RedisConfig, RedisSessions};
use chrono::{DateTime, SubsecRound, Utc};

use crate::Trials;
use crate::env::{Env, SystemClock};

pub fn add(trials: &mut Trials) {
    trials.add("cache::compare_and_set", compare_and_set);
    trials.add("cache::entries_expire", expiry);
    trials.add("cache::a_flush_loses_nothing_but_speed", flushed);
    trials.add("cache::older_copies_are_distrusted_after_a_reconnect", distrust);
    trials.add("cache::serving_starts_without_redis", absent);
    trials.add("cache::stopped_servers_are_not_waited_for", stopped);
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
    for _ in 0..200 {
        cache.bury(&probe).await;
        if cache.get(session).await == CacheAnswer::Dead {
            return cache;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never connected");
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
    cache.shutdown().await;
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
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(cache.get(soon.id).await, CacheAnswer::Nothing);
    cache.shutdown().await;
}

async fn flushed(env: Arc<Env>) {
    let cache = connected(&env, Arc::new(SystemClock)).await;
    let one = session(&env).await;
    cache.put(&one).await;
    env.cluster.redis_flush_all().await.unwrap();
    assert_eq!(cache.get(one.id).await, CacheAnswer::Nothing);
    cache.put(&one).await;
    assert_eq!(cache.get(one.id).await, CacheAnswer::Live(one));
    cache.shutdown().await;
}

async fn distrust(env: Arc<Env>) {
    let clock = Arc::new(Shifted(AtomicI64::new(0)));
    let cache = connected(&env, clock).await;
    let one = session(&env).await;
    cache.put(&later(&one, -10_000)).await;
    assert_eq!(cache.get(one.id).await, CacheAnswer::Nothing, "it was checked before this node connected");
    cache.put(&one).await;
    assert!(matches!(cache.get(one.id).await, CacheAnswer::Live(_)));
    cache.shutdown().await;
    // Another node that connects later believes nothing of before.
    let ahead = connected(&env, Arc::new(Shifted(AtomicI64::new(60_000)))).await;
    assert_eq!(ahead.get(one.id).await, CacheAnswer::Nothing);
    ahead.shutdown().await;
}

async fn absent(env: Arc<Env>) {
    let nodes = vec!["127.0.0.1:1".to_owned()];
    let started = Instant::now();
    let cache = RedisSessions::start(&RedisConfig { nodes }, Arc::new(SystemClock)).unwrap();
    let one = session(&env).await;
    for _ in 0..50 {
        cache.put(&one).await;
        assert_eq!(cache.get(one.id).await, CacheAnswer::Nothing);
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(!cache.is_up());
    cache.shutdown().await;
}

async fn stopped(env: Arc<Env>) {
    let cache = connected(&env, Arc::new(SystemClock)).await;
    let sessions: Vec<LiveSession> = futures::future::join_all((0..8).map(|_| session(&env))).await;
    let parts: Vec<String> =
        (1..=env.cluster.redis_addrs().unwrap().len()).map(|n| format!("redis-{n}")).collect();
    for part in &parts {
        env.cluster.pause(part).await.unwrap();
    }
    let started = Instant::now();
    for one in sessions.iter().cycle().take(40) {
        assert_eq!(cache.get(one.id).await, CacheAnswer::Nothing);
    }
    let took = started.elapsed();
    for part in &parts {
        env.cluster.resume(part).await.unwrap();
    }
    assert!(took < Duration::from_millis(1_000), "five timeouts of 50 ms, then the breaker: {took:?}");
    used_again(&cache, &sessions[..1]).await;
    cache.shutdown().await;
}

/// Until copies are kept and found again. Those checked before the trouble stay nothing; new ones count.
async fn used_again(cache: &RedisSessions, sessions: &[LiveSession]) {
    for _ in 0..300 {
        let mut found = 0;
        for one in sessions {
            let fresh = LiveSession { checked_at: soon(), ..one.clone() };
            cache.put(&fresh).await;
            found += usize::from(cache.get(fresh.id).await == CacheAnswer::Live(fresh));
        }
        if found == sessions.len() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("Redis was not used again");
}

async fn killed(env: Arc<Env>) {
    let cache = connected(&env, Arc::new(SystemClock)).await;
    let sessions: Vec<LiveSession> = futures::future::join_all((0..24).map(|_| session(&env))).await;
    for one in &sessions {
        cache.put(one).await;
    }
    env.cluster.kill("redis-1").await.unwrap();
    let mut slowest = Duration::ZERO;
    for one in sessions.iter().cycle().take(200) {
        let started = Instant::now();
        cache.get(one.id).await;
        slowest = slowest.max(started.elapsed());
    }
    used_again(&cache, &sessions).await;
    // What was checked before is not believed, whichever server it stands on.
    for one in &sessions {
        let before =
            LiveSession { version: one.version + 1, checked_at: Utc::now().trunc_subsecs(6), ..one.clone() };
        cache.put(&before).await;
        assert_eq!(cache.get(one.id).await, CacheAnswer::Nothing);
    }
    env.cluster.start("redis-1").await.unwrap();
    cache.shutdown().await;
    assert!(slowest < Duration::from_millis(250), "one command took {slowest:?}");
}
