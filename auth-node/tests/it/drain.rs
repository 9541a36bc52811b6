//! SIGTERM under load: readiness goes first, then the listener; nobody sees a reset or a 5xx.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::Suite;
use crate::world::{World, eventually};

pub fn add(suite: &mut Suite) {
    suite.add("a_node_that_is_told_to_stop_drains", drains);
}

async fn drains(world: Arc<World>) {
    let session = world.new_session().await;
    let leaving = Arc::new(AtomicBool::new(false));
    let answered: Arc<[AtomicU64; 8]> = Arc::default();
    let ready = format!("{}/health/ready", world.cluster.ops_url(2).expect("an address"));
    let clients = (0..answered.len()).map(|number| {
        let (world, leaving, access) = (Arc::clone(&world), Arc::clone(&leaving), session.access.clone());
        let answered = Arc::clone(&answered);
        tokio::spawn(async move {
            // As a load balancer does: while the node says that it is ready, it is sent requests.
            while !leaving.load(Ordering::Acquire) {
                let url = format!("{}/auth/verify", world.node(2));
                let response = world.http.get(url).bearer_auth(&access).send().await;
                assert_eq!(response.expect("no reset").status(), 200);
                answered[number].fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    eventually("every client is being answered", || async {
        answered.iter().all(|count| count.load(Ordering::Relaxed) > 0)
    })
    .await;
    let pid = world.cluster.node(2).expect("a node").pid.expect("a pid");
    let told =
        std::process::Command::new("kill").args(["-TERM", &pid.to_string()]).status().expect("kill runs");
    assert!(told.success());
    eventually("the node says that it is not ready", || async {
        world.http.get(&ready).send().await.is_ok_and(|r| r.status() == 503)
    })
    .await;
    leaving.store(true, Ordering::Release);
    for client in clients {
        client.await.expect("every request was answered");
    }
    eventually("it has drained", || async {
        world
            .cluster
            .logs("node-2")
            .is_ok_and(|log| log.lines().rev().take(20).any(|line| line.contains("\"drained\"")))
    })
    .await;
    // The line is written just before the process ends; it cannot start again until it has.
    eventually("it is gone and starts again", || async { world.cluster.start("node-2").await.is_ok() }).await;
}
