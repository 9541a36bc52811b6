//! Limits: exact over all nodes, always with a TTL, nothing when Redis is away; and who gets in at a busy shard.
use std::sync::Arc;
use std::time::Duration;

use auth_core::domain::{LimitRule, RevokeReason};
use auth_core::ports::{Accounts, Freshness, Limits, Sessions, StoreError};
use auth_store::{RedisConfig, RedisLimits, RedisSessions, StoreLimits};
use fred::interfaces::{ClientLike, KeysInterface};
use futures::future::join_all;
use sqlx::Connection;

use crate::Trials;
use crate::env::{Env, SystemClock, eventually};

pub fn add(trials: &mut Trials) {
    trials.add("limits::two_nodes_grant_exactly_the_limit", exact);
    trials.add("limits::a_window_passes_and_every_key_has_a_ttl", window);
    trials.add("limits::no_window_holds_more_than_the_limit", no_window);
    trials.add("limits::without_redis_nothing_is_said", away);
    trials.add("limits::session_loads_take_turns_and_leave_the_shard_to_others", loads_take_turns);
    trials.add("limits::a_busy_shard_sheds_from_the_bottom", shed);
}

fn rule(limit: u32, window: Duration) -> LimitRule {
    LimitRule { name: "test", limit, window }
}

fn connect(nodes: Vec<String>) -> RedisSessions {
    RedisSessions::start(&RedisConfig { nodes }, Arc::new(SystemClock)).unwrap()
}

/// Connections of their own, as another node has them.
async fn node(env: &Env) -> (RedisSessions, RedisLimits) {
    let cache = connect(env.cluster.redis_addrs().unwrap());
    let limits = cache.limits();
    eventually("all masters answer", || async { cache.is_up() }).await;
    (cache, limits)
}

async fn exact(env: Arc<Env>) {
    let ((first, one), (second, two)) = (node(&env).await, node(&env).await);
    let hundred = rule(100, Duration::from_secs(900));
    for _ in 0..5 {
        let subject = format!("192.0.2.{}", env.number());
        // In bursts that a healthy Redis answers in time; a try that it did not answer may have been counted.
        let (mut granted, mut unsaid) = (0, 0);
        for _ in 0..10 {
            let both = [&one, &two].into_iter().cycle().take(30);
            for standing in join_all(both.map(|limits| limits.take(&hundred, &subject))).await {
                match standing {
                    Some(standing) => granted += u32::from(standing.granted),
                    None => unsaid += 1,
                }
            }
        }
        assert!(granted <= 100 && granted + unsaid >= 100, "{granted} granted, {unsaid} unsaid");
        let refused = one.take(&hundred, &subject).await.unwrap();
        assert!(!refused.granted && refused.left == 0);
        assert!(refused.more_in > Duration::from_secs(800) && refused.more_in <= Duration::from_secs(960));
        assert!(two.take(&hundred, &format!("{subject}0")).await.unwrap().granted, "another subject");
    }
    first.shutdown();
    second.shutdown();
}

async fn raw(env: &Env) -> fred::clients::Client {
    let hosts = env.cluster.redis_addrs().unwrap();
    let hosts = hosts.iter().map(|host| {
        let (host, port) = host.split_once(':').unwrap();
        fred::types::config::Server::new(host, port.parse().unwrap())
    });
    let server = fred::types::config::ServerConfig::Clustered {
        hosts: hosts.collect(),
        policy: fred::types::config::ClusterDiscoveryPolicy::default(),
    };
    let config = fred::types::config::Config { server, ..Default::default() };
    let client = fred::types::Builder::from_config(config).build().unwrap();
    client.init().await.unwrap();
    client
}

async fn window(env: Arc<Env>) {
    let (cache, limits) = node(&env).await;
    let raw = raw(&env).await;
    let three = rule(3, Duration::from_millis(1500));
    let subject = format!("2001:db8::{:x}", env.number());
    let key = format!("l:{{test:{subject}}}");
    for left in [2, 1, 0] {
        let standing = limits.take(&three, &subject).await.unwrap();
        assert_eq!((standing.granted, standing.left), (true, left));
        let ttl: i64 = raw.pttl(&key).await.unwrap();
        assert!((1..=1600).contains(&ttl), "{ttl}");
    }
    let before: Option<String> = raw.get(&key).await.unwrap();
    let refused = limits.take(&three, &subject).await.unwrap();
    assert!(!refused.granted && refused.more_in <= Duration::from_millis(1600));
    assert_eq!(raw.get::<Option<String>, _>(&key).await.unwrap(), before, "a refusal writes nothing");
    tokio::time::sleep(refused.more_in).await;
    assert!(limits.take(&three, &subject).await.unwrap().granted, "after as long as was said");
    // What cannot be read is as good as nothing, and is replaced.
    raw.set::<(), _, _>(&key, "rubbish", None, None, false).await.unwrap();
    assert_eq!(limits.take(&three, &subject).await.unwrap().left, 2);
    assert!(raw.pttl::<i64, _>(&key).await.unwrap() > 0);
    cache.shutdown();
    raw.quit().await.unwrap();
}

/// Tries without pause for some windows, noting Redis's own time of each grant.
async fn no_window(env: Arc<Env>) {
    let (cache, limits) = node(&env).await;
    let few = rule(5, Duration::from_millis(300));
    let subject = format!("192.0.2.{}", env.number());
    let mut granted = Vec::new();
    let started = std::time::Instant::now();
    while granted.len() < 25 {
        let asked = started.elapsed();
        if limits.take(&few, &subject).await.is_some_and(|standing| standing.granted) {
            granted.push((asked, started.elapsed()));
        }
    }
    // The grant lies somewhere between asking and being told: six of them always span a whole window.
    for six in granted.windows(6) {
        assert!(six[5].1 - six[0].0 >= few.window, "{six:?}");
    }
    cache.shutdown();
}

async fn away(_: Arc<Env>) {
    let cache = connect(vec!["127.0.0.1:1".to_owned()]);
    let limits = cache.limits();
    for _ in 0..20 {
        assert_eq!(limits.take(&rule(1, Duration::from_secs(1)), "192.0.2.1").await, None);
    }
    cache.shutdown();
}

/// A locked table holds everybody who needs it, up to the statement's second.
/// Until so many back ends of the application wait for a lock on shard 1.
async fn waiting_for_a_lock(env: &Env, many: i64) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE usename = 'tessera_app' AND wait_event_type = 'Lock'";
    eventually("they wait for the lock", || async { env.count(waiting.to_owned()).await >= many }).await;
}

/// Session checks without a copy hang, as many as may; nobody else is kept from the shard.
async fn loads_take_turns(env: Arc<Env>) {
    let a = env.account().await;
    let limits =
        StoreLimits { session_loads: 2, session_load_wait: Duration::ZERO, ..StoreLimits::default() };
    let store = env.store.clone().with_limits(limits);
    let mut admin = env.admin(1).await;
    let mut tx = admin.begin().await.unwrap();
    sqlx::query("LOCK TABLE shard.sessions IN ACCESS EXCLUSIVE MODE").execute(&mut *tx).await.unwrap();
    let loads = [(); 2].map(|()| {
        let (store, session) = (store.clone(), a.session);
        tokio::spawn(async move { Sessions::get(&store, session).await })
    });
    waiting_for_a_lock(&env, 2).await;
    let third = Sessions::get(&store, a.session).await;
    assert!(matches!(third, Err(StoreError::Overloaded(_))), "{third:?}");
    assert!(Accounts::get(&store, a.user.id, Freshness::Primary).await.unwrap().is_some());
    tx.rollback().await.unwrap();
    for load in loads {
        assert!(!matches!(load.await.unwrap(), Err(StoreError::Overloaded(_))));
    }
    assert!(Sessions::get(&store, a.session).await.unwrap().is_some());
}

async fn shed(env: Arc<Env>) {
    let a = env.account().await;
    let store = env.store.clone().with_limits(StoreLimits { shard_concurrency: 4, ..StoreLimits::default() });
    let mut admin = env.admin(1).await;
    let mut tx = admin.begin().await.unwrap();
    sqlx::query("LOCK TABLE shard.sessions IN ACCESS EXCLUSIVE MODE").execute(&mut *tx).await.unwrap();
    let checks: Vec<_> = (0..3)
        .map(|_| {
            let (store, session) = (store.clone(), a.session);
            tokio::spawn(async move { Sessions::get(&store, session).await })
        })
        .collect();
    waiting_for_a_lock(&env, 3).await;
    let registered = store.insert(&env.new_account(a.bucket()), None).await;
    assert!(matches!(registered, Err(StoreError::Overloaded(_))), "register");
    let checked = Sessions::get(&store, a.session).await;
    assert!(matches!(checked, Err(StoreError::Overloaded(_))), "a fourth check: {checked:?}");
    let revoking = {
        let (store, user, session) = (store.clone(), a.user.id, a.session);
        tokio::spawn(async move { store.revoke(session, user, RevokeReason::Logout).await })
    };
    waiting_for_a_lock(&env, 4).await;
    assert!(!revoking.is_finished());
    tx.rollback().await.unwrap();
    for check in checks {
        assert!(!matches!(check.await.unwrap(), Err(StoreError::Overloaded(_))));
    }
    assert!(!matches!(revoking.await.unwrap(), Err(StoreError::Overloaded(_))));
    // All have left: the lowest class gets in again.
    assert!(store.insert(&env.new_account(a.bucket()), None).await.is_ok());
}
