//! Limits: exact over all nodes, always with a TTL, nothing when Redis is away; and who gets in at a busy shard.
use std::sync::Arc;
use std::time::Duration;

use auth_core::domain::{LimitRule, RevokeReason};
use auth_core::ports::{Accounts, Limits, Sessions, StoreError};
use auth_store::{RedisConfig, RedisLimits, RedisSessions};
use fred::interfaces::{ClientLike, KeysInterface};
use futures::future::join_all;
use sqlx::Connection;

use crate::Trials;
use crate::env::{Env, SystemClock};

pub fn add(trials: &mut Trials) {
    trials.add("limits::two_nodes_grant_exactly_the_limit", exact);
    trials.add("limits::a_window_passes_and_every_key_has_a_ttl", window);
    trials.add("limits::no_window_holds_more_than_the_limit", no_window);
    trials.add("limits::without_redis_nothing_is_said", away);
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
    for n in 0.. {
        // All masters answer.
        let probes = (0..16).map(|k| format!("probe {} {k}", env.number()));
        let probes: Vec<_> = probes.collect();
        let once = rule(1, Duration::from_secs(1));
        if join_all(probes.iter().map(|p| limits.take(&once, p))).await.iter().all(Option::is_some) {
            return (cache, limits);
        }
        assert!(n < 200, "never connected");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    unreachable!()
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
async fn shed(env: Arc<Env>) {
    let a = env.account().await;
    let store = env.store.clone().with_shard_concurrency(4);
    let mut admin = env.admin(1).await;
    let mut tx = admin.begin().await.unwrap();
    sqlx::query("LOCK TABLE shard.sessions IN ACCESS EXCLUSIVE MODE").execute(&mut *tx).await.unwrap();
    let checks: Vec<_> = (0..3)
        .map(|_| {
            let (store, session) = (store.clone(), a.session);
            tokio::spawn(async move { Sessions::get(&store, session).await })
        })
        .collect();
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE usename = 'tessera_app' AND wait_event_type = 'Lock'";
    for n in 0.. {
        if env.count(waiting.to_owned()).await >= 3 {
            break;
        }
        assert!(n < 100, "the checks never waited");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let registered = store.insert(&env.new_account(a.bucket()), None).await;
    assert!(matches!(registered, Err(StoreError::Overloaded(_))), "register");
    let checked = Sessions::get(&store, a.session).await;
    assert!(matches!(checked, Err(StoreError::Overloaded(_))), "a fourth check: {checked:?}");
    let revoking = {
        let (store, user, session) = (store.clone(), a.user.id, a.session);
        tokio::spawn(async move { store.revoke(session, user, RevokeReason::Logout).await })
    };
    for n in 0.. {
        if env.count(waiting.to_owned()).await >= 4 {
            break;
        }
        assert!(n < 100 && !revoking.is_finished(), "the revocation did not get in");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    tx.rollback().await.unwrap();
    for check in checks {
        assert!(!matches!(check.await.unwrap(), Err(StoreError::Overloaded(_))));
    }
    assert!(!matches!(revoking.await.unwrap(), Err(StoreError::Overloaded(_))));
    // All have left: the lowest class gets in again.
    assert!(store.insert(&env.new_account(a.bucket()), None).await.is_ok());
}
