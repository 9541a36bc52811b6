//! Parts that hang instead of dying: after a moment nobody waits for them, and they are found again by themselves.
use std::sync::Arc;

use reqwest::Method;

use crate::Suite;
use crate::faults::session_on;
use crate::world::{World, eventually};

pub fn add(suite: &mut Suite) {
    suite.add("a_paused_shard_is_refused_at_once_and_found_again", shard_paused);
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
