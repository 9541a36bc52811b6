//! `Idempotency-Key` where a repeated call would do something twice.
use std::sync::Arc;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::Suite;
use crate::world::{Answer, PASSWORD, World, session};

pub fn add(suite: &mut Suite) {
    suite.add("a_repeated_registration_answers_the_same_user", register);
    suite.add("a_password_change_is_repeated_safely", password);
    suite.add("a_deletion_can_be_repeated_though_its_session_is_over", delete);
    suite.add("keys_are_bound_to_route_principal_and_request", bound);
}

async fn send(
    world: &World,
    method: Method,
    path: &str,
    token: Option<&str>,
    key: &str,
    body: Value,
) -> Answer {
    let mut request = world
        .http
        .request(method, format!("{}{path}", world.any_node()))
        .header("idempotency-key", key)
        .json(&body);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    Answer::read(request.send().await.expect("an answer")).await
}

async fn register(world: Arc<World>) {
    let body = json!({"email": world.new_email(), "password": PASSWORD, "name": "Ada"});
    let post = |body: Value| send(&world, Method::POST, "/auth/v1/register", None, "key-1", body);
    let answers = join_all((0..20).map(|_| post(body.clone()))).await;
    let made: Vec<_> = answers.iter().filter(|a| a.status == 201).collect();
    assert!(!made.is_empty());
    assert!(made.iter().all(|a| a.body == made[0].body), "one user, told to all");
    let running = answers.iter().filter(|a| a.status == 409 && a.problem() == "idempotency-running").count();
    assert_eq!(made.len() + running, 20);
    assert_eq!(post(body.clone()).await.expect(201).body, made[0].body);
    let mut other = body.clone();
    other["name"] = "Grace".into();
    post(other).await.expect_problem(422, "idempotency-mismatch");
    let mut other = body;
    other["password"] = "another password".into();
    post(other).await.expect_problem(422, "idempotency-mismatch");
    let odd = send(&world, Method::POST, "/auth/v1/register", None, "a b", json!({})).await;
    odd.expect_problem(422, "validation");
}

async fn password(world: Arc<World>) {
    let owner = world.new_session().await;
    let body = json!({"current": PASSWORD, "new": "a new password"});
    let post =
        || send(&world, Method::POST, "/auth/v1/me/password", Some(&owner.access), "key-1", body.clone());
    post().await.expect(204);
    // Without the key the old password would be wrong by now.
    post().await.expect(204);
    world
        .call(Method::POST, "/auth/v1/me/password", Some(&owner.access), Some(body.clone()))
        .await
        .expect_problem(401, "invalid-credentials");
    let answer =
        world.try_login(&owner.email, "a new password", None, &world.new_address()).await.expect(200);
    // A session that was opened after the change survives its repetition.
    let later = session(&owner.email, &answer);
    post().await.expect(204);
    world.get("/auth/verify", &later.access).await.expect(200);
}

async fn delete(world: Arc<World>) {
    let owner = world.new_session().await;
    let body = json!({"password": PASSWORD});
    let send = || send(&world, Method::DELETE, "/auth/v1/me", Some(&owner.access), "key-1", body.clone());
    send().await.expect(204);
    send().await.expect(204);
    world
        .call(Method::DELETE, "/auth/v1/me", Some(&owner.access), Some(body.clone()))
        .await
        .expect_problem(401, "invalid-token");
}

async fn bound(world: Arc<World>) {
    let (one, two) = (world.new_session().await, world.new_session().await);
    let patch = |token: String, name: &'static str| {
        let world = Arc::clone(&world);
        async move {
            send(&world, Method::PATCH, "/auth/v1/me", Some(&token), "shared-key", json!({"name": name}))
                .await
        }
    };
    assert_eq!(patch(one.access.clone(), "One").await.expect(200).str("/name"), "One");
    assert_eq!(patch(two.access.clone(), "Two").await.expect(200).str("/name"), "Two");
    patch(one.access.clone(), "Other").await.expect_problem(422, "idempotency-mismatch");
    assert_eq!(patch(one.access.clone(), "One").await.expect(200).str("/name"), "One");
    let body = json!({"current": PASSWORD, "new": "a new password"});
    let change =
        || send(&world, Method::POST, "/auth/v1/me/password", Some(&one.access), "shared-key", body.clone());
    change().await.expect(204);
    // A session that is over is told nothing, whatever it did before.
    world.call(Method::POST, "/auth/v1/logout", Some(&one.access), None).await.expect(204);
    patch(one.access.clone(), "One").await.expect_problem(401, "invalid-token");
    change().await.expect_problem(401, "invalid-token");
}
