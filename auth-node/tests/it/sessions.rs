//! Listing and ending sessions, logging out, forward auth.
use std::sync::Arc;

use reqwest::Method;
use serde_json::Value;

use crate::Suite;
use crate::world::{World, eventually};

pub fn add(suite: &mut Suite) {
    suite.add("sessions_are_listed_with_where_they_came_from", listed);
    suite.add("logout_ends_one_session_at_once_on_both_nodes", logout);
    suite.add("one_session_is_ended_from_another", ended_from_another);
    suite.add("nobody_ends_a_strangers_session", strangers);
    suite.add("ending_all_others_spares_the_caller", others);
    suite.add("the_oldest_of_too_many_sessions_goes", too_many);
    suite.add("forward_auth_names_the_caller", forward_auth);
}

async fn listed(world: Arc<World>) {
    let email = world.register().await;
    let first = world.login(&email).await;
    let second = world.login(&email).await;
    let answer = world.get("/auth/v1/sessions", &second.access).await.expect(200);
    let list = answer.body["sessions"].as_array().cloned().unwrap_or_default();
    let ids: Vec<_> = list.iter().map(|s| s["id"].as_str().unwrap_or_default()).collect();
    assert_eq!(ids, [second.id.as_str(), first.id.as_str()]);
    assert_eq!(list[0]["current"], true);
    assert_eq!(list[1]["current"], false);
    for session in &list {
        assert!(session["ip"].as_str().is_some_and(|ip| ip.starts_with("10.")));
        for time in ["created_at", "last_seen_at", "expires_at"] {
            assert!(session[time].as_str().is_some_and(|t| t.ends_with('Z')), "{session}");
        }
    }
}

async fn logout(world: Arc<World>) {
    let session = world.new_session().await;
    for node in [1, 2] {
        world
            .call_at(&world.node(node), Method::GET, "/auth/verify", Some(&session.access), None)
            .await
            .expect(200);
    }
    let out = || world.call(Method::POST, "/auth/v1/logout", Some(&session.access), None);
    out().await.expect(204);
    for node in [1, 2] {
        let answer =
            world.call_at(&world.node(node), Method::GET, "/auth/verify", Some(&session.access), None).await;
        answer.expect_problem(401, "invalid-token");
    }
    world.refresh(&session.refresh, None).await.expect_problem(401, "invalid-refresh-token");
    out().await.expect(204);
}

async fn ended_from_another(world: Arc<World>) {
    let email = world.register().await;
    let (keep, end) = (world.login(&email).await, world.login(&email).await);
    let path = format!("/auth/v1/sessions/{}", end.id);
    world.call(Method::DELETE, &path, Some(&keep.access), None).await.expect(204);
    world.get("/auth/verify", &end.access).await.expect_problem(401, "invalid-token");
    world.get("/auth/verify", &keep.access).await.expect(200);
    world.call(Method::DELETE, &path, Some(&keep.access), None).await.expect_problem(404, "not-found");
    // A dead session ends nobody.
    let back = format!("/auth/v1/sessions/{}", keep.id);
    world.call(Method::DELETE, &back, Some(&end.access), None).await.expect_problem(401, "invalid-token");
}

async fn strangers(world: Arc<World>) {
    let (alice, mallory) = (world.new_session().await, world.new_session().await);
    let path = format!("/auth/v1/sessions/{}", alice.id);
    world.call(Method::DELETE, &path, Some(&mallory.access), None).await.expect_problem(404, "not-found");
    world.call(Method::DELETE, "/auth/v1/sessions", Some(&mallory.access), None).await.expect(204);
    for odd in ["x", "00000000-0000-0000-0000-000000000000", "..%2f..", "%00"] {
        let path = format!("/auth/v1/sessions/{odd}");
        world.call(Method::DELETE, &path, Some(&mallory.access), None).await.expect_problem(404, "not-found");
    }
    world.get("/auth/verify", &alice.access).await.expect(200);
    world.refresh(&alice.refresh, None).await.expect(200);
}

async fn others(world: Arc<World>) {
    let email = world.register().await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(world.login(&email).await);
    }
    let keep = sessions.pop().expect("four");
    world.call(Method::DELETE, "/auth/v1/sessions", Some(&keep.access), None).await.expect(204);
    for session in &sessions {
        world.get("/auth/verify", &session.access).await.expect_problem(401, "invalid-token");
        world.refresh(&session.refresh, None).await.expect_problem(401, "invalid-refresh-token");
    }
    world.get("/auth/verify", &keep.access).await.expect(200);
}

async fn too_many(world: Arc<World>) {
    let email = world.register().await;
    let first = world.login(&email).await;
    for _ in 0..100 {
        world.login(&email).await;
    }
    world.refresh(&first.refresh, None).await.expect_problem(401, "invalid-refresh-token");
    let last = world.login(&email).await;
    let answer = world.get("/auth/v1/sessions", &last.access).await.expect(200);
    assert_eq!(answer.body["sessions"].as_array().map(Vec::len), Some(100));
}

async fn forward_auth(world: Arc<World>) {
    let session = world.new_session().await;
    let answer = world.get("/auth/verify", &session.access).await.expect(200);
    assert_eq!(answer.header("x-auth-session"), session.id);
    assert_eq!(
        answer.header("x-auth-subject"),
        crate::world::claims(&session.access)["sub"].as_str().unwrap_or_default()
    );
    assert_eq!(answer.body, Value::Null);
    world.call(Method::GET, "/auth/verify", None, None).await.expect_problem(401, "invalid-token");
    // The copy in Redis answers; the session stays checked whoever evicts it.
    let before = world.cluster.redis_flush_all().await;
    assert!(before.is_ok());
    eventually("the session is checked again", || async {
        world.get("/auth/verify", &session.access).await.status == 200
    })
    .await;
}
