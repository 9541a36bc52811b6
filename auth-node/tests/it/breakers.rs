//! Parts that hang instead of dying: after a moment nobody waits for them, and they are found again by themselves.
use std::sync::Arc;

use reqwest::Method;

use crate::Suite;
use crate::faults::{redis_is_up, session_on};
use crate::world::{Session, World, eventually};

pub fn add(suite: &mut Suite) {
    suite.add("a_paused_shard_is_refused_at_once_and_found_again", shard_paused);
    suite.add("a_paused_redis_master_costs_the_sessions_of_others_nothing", master_paused);
}

const STATE: [&str; 3] = ["tessera_shard_breaker_state{", "shard=\"1\"", "role=\"primary\""];
const REFUSED: [&str; 3] = ["tessera_shard_breaker_refused_total{", "shard=\"1\"", "role=\"primary\""];
const CHECKOUTS: [&str; 3] = ["tessera_pool_wait_seconds_count{", "shard=\"1\"", "role=\"primary\""];

async fn shard_paused(world: Arc<World>) {
    let (hit, fine) = (session_on(&world, 1).await, session_on(&world, 2).await);
    let outages = |log: String| log.lines().filter(|line| line.contains("server is down")).count();
    let before = [1, 2].map(|node| outages(world.cluster.logs(&format!("node-{node}")).expect("a log")));
    world.cluster.pause("shard-1-primary").await.expect("paused");
    for (node, before) in [1, 2].into_iter().zip(before) {
        let url = world.node(node);
        let me = |token| world.call_at(&url, Method::GET, "/auth/v1/me", Some(token), None);
        eventually("the breaker opens", || async {
            me(&hit.access).await.expect_problem(503, "unavailable");
            me(&fine.access).await.expect(200);
            world.metric(node, &STATE).await == 2.0
        })
        .await;
        let (refused, checkouts) = (world.metric(node, &REFUSED).await, world.metric(node, &CHECKOUTS).await);
        for _ in 0..20 {
            let answer = world.refresh_at(&url, &hit.refresh, None).await.expect_problem(503, "unavailable");
            assert!((1..=5).contains(&answer.header("retry-after").parse().expect("seconds")));
            me(&fine.access).await.expect(200);
        }
        assert!(world.metric(node, &REFUSED).await >= refused + 20.0, "turned away by the breaker");
        let after = world.metric(node, &CHECKOUTS).await;
        assert!((after - checkouts).abs() < 0.5, "nobody asked the pool: {checkouts} {after}");
        eventually("the outage is logged", || async {
            outages(world.cluster.logs(&format!("node-{node}")).expect("a log")) > before
        })
        .await;
        let logged = outages(world.cluster.logs(&format!("node-{node}")).expect("a log")) - before;
        assert_eq!(logged, 1, "once, however often it was tried since");
    }
    world.cluster.resume("shard-1-primary").await.expect("resumed");
    for node in [1, 2] {
        eventually("the breaker closes", || async { world.metric(node, &STATE).await == 0.0 }).await;
        let url = world.node(node);
        world.call_at(&url, Method::GET, "/auth/v1/me", Some(&hit.access), None).await.expect(200);
    }
    world.refresh(&hit.refresh, None).await.expect(200);
}

/// Sessions of one Redis master, and of the others.
async fn two_kinds(world: &World) -> (String, Vec<Session>, Vec<Session>) {
    let (mut name, mut own, mut others) = (None, Vec::new(), Vec::new());
    while own.len() < 3 || others.len() < 3 {
        let session = world.new_session().await;
        let key = format!("s:{{{}}}", session.id);
        let master = world.cluster.redis_master_of(&key).await.expect("a master");
        let is_own = *name.get_or_insert_with(|| master.clone()) == master;
        if is_own { own.push(session) } else { others.push(session) }
    }
    (name.expect("there was one"), own, others)
}

/// Session checks at node 1, and how many of them Redis answered and the breaker turned away.
async fn check(world: &World, sessions: &[Session]) -> (f64, f64) {
    let count = |result: &'static str| async move {
        world.metric(1, &["tessera_cache_requests_total{", "op=\"get\"", result]).await
    };
    let (hits, refused) = (count("\"hit\"").await, count("\"refused\"").await);
    for session in sessions {
        let node = world.node(1);
        world.call_at(&node, Method::GET, "/auth/verify", Some(&session.access), None).await.expect(200);
    }
    (count("\"hit\"").await - hits, count("\"refused\"").await - refused)
}

async fn master_paused(world: Arc<World>) {
    let (name, own, others) = two_kinds(&world).await;
    let all_hit = |sessions: Vec<Session>| {
        let world = Arc::clone(&world);
        async move { check(&world, &sessions).await == (sessions.len() as f64, 0.0) }
    };
    eventually("Redis answers for all", || all_hit([own.clone(), others.clone()].concat())).await;
    // With its replica, so that nobody takes its place.
    let number: u16 = name.trim_start_matches("redis-").parse().expect("a number");
    let replica = format!("redis-{}", if number <= 3 { number + 3 } else { number - 3 });
    for part in [&replica, &name] {
        world.cluster.pause(part).await.expect("paused");
    }
    let server = format!("server=\"127.0.0.1:{}\"", world.cluster.port(&name).expect("a port"));
    eventually("its breaker opens", || async {
        check(&world, &own).await;
        world.metric(1, &["tessera_redis_breaker_state{", &server]).await == 2.0
    })
    .await;
    let loads = || world.metric(1, &["tessera_store_seconds_count{", "op=\"sessions.get\""]);
    for _ in 0..5 {
        // A single command may be late on a busy machine; a master that does not answer is late each time.
        eventually("Redis answers for the others", || all_hit(others.clone())).await;
        let before = loads().await;
        // At least: what another part of the node asks of that master meanwhile is refused, too.
        let (hits, refused) = check(&world, &own).await;
        assert!(
            hits == 0.0 && refused >= 3.0,
            "asked nothing ({hits}, {refused}), and answered all the same"
        );
        assert!(loads().await >= before + 3.0, "by PostgreSQL");
    }
    for part in [&replica, &name] {
        world.cluster.resume(part).await.expect("resumed");
    }
    eventually("it is asked again, by nobody's request", || redis_is_up(&world)).await;
    eventually("Redis answers for all again", || all_hit([own.clone(), others.clone()].concat())).await;
}
