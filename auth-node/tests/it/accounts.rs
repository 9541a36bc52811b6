//! Registering, me, deleting.
use std::sync::Arc;

use reqwest::Method;
use serde_json::json;

use crate::Suite;
use crate::world::{PASSWORD, World, claims};

pub fn add(suite: &mut Suite) {
    suite.add("register_answers_the_user", register_answers_the_user);
    suite.add("an_address_is_taken_once_whatever_its_spelling", taken_once);
    suite.add("of_many_parallel_registrations_one_wins", one_wins);
    suite.add("me_can_be_read_renamed_and_deleted", me);
    suite.add("a_deleted_users_address_is_held", held);
    suite.add("users_spread_over_all_shards", spread);
    suite.add("eventual_reads_are_answered_and_odd_ones_refused", eventual);
}

async fn register_answers_the_user(world: Arc<World>) {
    let email = world.new_email();
    let body = json!({"email": email.to_uppercase(), "password": PASSWORD, "name": " Ada "});
    let answer = world.post("/auth/v1/register", body).await.expect(201);
    assert_eq!(answer.str("/user/email"), email.to_uppercase());
    assert_eq!(answer.str("/user/name"), "Ada");
    assert_eq!(answer.body["user"]["email_verified"], false);
    assert!(answer.str("/user/created_at").ends_with('Z'));
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(!answer.header("x-request-id").is_empty());
    let id: Result<shard_key::UserId, _> = answer.str("/user/id").parse();
    assert!(id.is_ok());
}

async fn taken_once(world: Arc<World>) {
    let email = world.register().await;
    for spelling in [email.clone(), email.to_uppercase(), format!("  {email} ")] {
        let body = json!({"email": spelling, "password": PASSWORD});
        world.post("/auth/v1/register", body).await.expect_problem(409, "email-taken");
    }
}

async fn one_wins(world: Arc<World>) {
    let body = json!({"email": world.new_email(), "password": PASSWORD});
    let calls = (0..20).map(|_| world.post("/auth/v1/register", body.clone()));
    let answers = futures::future::join_all(calls).await;
    assert_eq!(answers.iter().filter(|a| a.status == 201).count(), 1);
    assert_eq!(answers.iter().filter(|a| a.status == 409).count(), 19);
}

async fn me(world: Arc<World>) {
    let session = world.new_session().await;
    let answer = world.get("/auth/v1/me", &session.access).await.expect(200);
    assert_eq!(answer.str("/email"), session.email);
    let patch = |body| world.call(Method::PATCH, "/auth/v1/me", Some(&session.access), Some(body));
    assert_eq!(patch(json!({"name": "Grace"})).await.expect(200).str("/name"), "Grace");
    assert_eq!(world.get("/auth/v1/me", &session.access).await.str("/name"), "Grace");
    assert!(patch(json!({"name": null})).await.expect(200).body["name"].is_null());
    patch(json!({"email": "x@example.com"})).await.expect_problem(422, "validation");
    let delete = |body| world.call(Method::DELETE, "/auth/v1/me", Some(&session.access), Some(body));
    delete(json!({"password": "not the password"})).await.expect_problem(401, "invalid-credentials");
    delete(json!({"password": PASSWORD})).await.expect(204);
    world.get("/auth/v1/me", &session.access).await.expect_problem(401, "invalid-token");
    world.refresh(&session.refresh, None).await.expect_problem(401, "invalid-refresh-token");
    let login = world.try_login(&session.email, PASSWORD, None, &world.new_address()).await;
    login.expect_problem(401, "invalid-credentials");
}

async fn held(world: Arc<World>) {
    let session = world.new_session().await;
    let gone = json!({"password": PASSWORD});
    world.call(Method::DELETE, "/auth/v1/me", Some(&session.access), Some(gone)).await.expect(204);
    let body = json!({"email": session.email, "password": PASSWORD});
    world.post("/auth/v1/register", body.clone()).await.expect_problem(409, "email-taken");
    let over = "UPDATE shard.identifiers SET held_until = now() - interval '1 s' WHERE user_id = $user";
    assert_eq!(world.sql_for(&session.access, over).await, 1);
    let again = world.post("/auth/v1/register", body).await.expect(201);
    assert_ne!(again.str("/user/id"), claims(&session.access)["sub"].as_str().unwrap_or_default());
    world.login(&session.email).await;
}

async fn spread(world: Arc<World>) {
    let mut buckets = Vec::new();
    for _ in 0..24 {
        let body = json!({"email": world.new_email(), "password": PASSWORD});
        let id: shard_key::UserId =
            world.post("/auth/v1/register", body).await.expect(201).str("/user/id").parse().expect("an id");
        buckets.push(i32::from(id.bucket().get()));
    }
    // By the owners' own word: 24 users of three shards leave one out once in 5,000 runs; the keys are new each time,
    // so two shards are what we ask for.
    let mut owners = 0;
    for shard in 1..=3 {
        let dsn = world.cluster.shard_primary_dsn(shard).expect("a shard");
        let mut db = <sqlx::PgConnection as sqlx::Connection>::connect(&dsn).await.expect("a connection");
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM shard.users WHERE bucket = ANY($1)")
            .bind(&buckets)
            .fetch_one(&mut db)
            .await
            .expect("a count");
        owners += i32::from(count > 0);
    }
    assert!(owners >= 2, "{owners}");
}

async fn eventual(world: Arc<World>) {
    let session = world.new_session().await;
    // A replica may not have the user yet; only the primary's "no" is one.
    for _ in 0..10 {
        let fresh = world.new_session().await;
        world.get("/auth/v1/me?consistency=eventual", &fresh.access).await.expect(200);
    }
    world.get("/auth/v1/sessions?consistency=eventual", &session.access).await.expect(200);
    world.get("/auth/v1/me?consistency=maybe", &session.access).await.expect_problem(422, "validation");
}
