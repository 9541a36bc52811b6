//! Passwords: limits, imported hashes, changing them, and what an unknown user looks like.
use std::sync::Arc;

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;

use crate::Suite;
use crate::world::{PASSWORD, World, session};

pub fn add(suite: &mut Suite) {
    suite.add("wrong_password_and_unknown_user_look_the_same", same_answer);
    suite.add("of_200_parallel_guesses_exactly_the_limit_is_evaluated", guesses);
    suite.add("a_success_clears_the_count_and_other_addresses_go_on", cleared);
    suite.add("an_imported_bcrypt_hash_logs_in_and_becomes_argon2id", bcrypt);
    suite.add("bcrypt_traps_are_closed", bcrypt_traps);
    suite.add("a_password_change_ends_all_other_sessions", change);
    suite.add("old_parameters_are_rehashed_on_login", rehash);
}

async fn same_answer(world: Arc<World>) {
    let email = world.register().await;
    let known = world.try_login(&email, "wrong password", None, &world.new_address()).await;
    let unknown = world.try_login(&world.new_email(), "wrong password", None, &world.new_address()).await;
    let known = known.expect_problem(401, "invalid-credentials");
    let unknown = unknown.expect_problem(401, "invalid-credentials");
    assert_eq!(known.body, unknown.body);
    let names =
        |a: &crate::world::Answer| a.headers.keys().map(|k| k.as_str().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&known), names(&unknown));
}

async fn guesses(world: Arc<World>) {
    for email in [world.register().await, world.new_email()] {
        let address = world.new_address();
        let calls = (0..200).map(|_| world.try_login(&email, "guess guess", None, &address));
        let answers = join_all(calls).await;
        let evaluated = answers.iter().filter(|a| a.status == 401).count();
        let unsure = answers.iter().filter(|a| a.status == 503).count();
        let limited: Vec<_> = answers.iter().filter(|a| a.status == 429).collect();
        assert_eq!(evaluated + unsure + limited.len(), 200);
        // A 503 after the count took one of the ten; nothing else may.
        assert!(evaluated <= 10 && evaluated + unsure >= 10, "{evaluated} evaluated, {unsure} unsure");
        assert!(limited.iter().all(|a| a.header("retry-after").parse::<u64>().is_ok_and(|s| s > 0)));
        // Right or wrong, the eleventh is not looked at.
        world.try_login(&email, PASSWORD, None, &address).await.expect_problem(429, "rate-limited");
    }
}

async fn cleared(world: Arc<World>) {
    let email = world.register().await;
    let address = world.new_address();
    for _ in 0..3 {
        for _ in 0..9 {
            world.try_login(&email, "wrong password", None, &address).await.expect(401);
        }
        world.try_login(&email, PASSWORD, None, &address).await.expect(200);
    }
    for _ in 0..10 {
        world.try_login(&email, "wrong password", None, &address).await.expect(401);
    }
    world.try_login(&email, PASSWORD, None, &address).await.expect(429);
    world.try_login(&email, PASSWORD, None, &world.new_address()).await.expect(200);
}

async fn plant(world: &World, access: &str, phc: &str) {
    let statement = format!(
        "UPDATE shard.credentials SET phc = '{phc}', pepper_id = NULL WHERE bucket = $bucket AND user_id = $user"
    );
    assert_eq!(world.sql_for(access, &statement).await, 1);
}

async fn has_argon2(world: &World, access: &str) -> bool {
    let statement = "UPDATE shard.credentials SET kind = kind WHERE bucket = $bucket AND user_id = $user AND phc LIKE '$argon2id$%m=8192,t=1,p=1%' AND pepper_id IS NOT NULL";
    world.sql_for(access, statement).await == 1
}

async fn bcrypt(world: Arc<World>) {
    let owner = world.new_session().await;
    let hash = bcrypt::hash("imported secret", 5).expect("a hash");
    plant(&world, &owner.access, &hash).await;
    world.try_login(&owner.email, PASSWORD, None, &world.new_address()).await.expect(401);
    world.try_login(&owner.email, "imported secret", None, &world.new_address()).await.expect(200);
    assert!(has_argon2(&world, &owner.access).await);
    world.try_login(&owner.email, "imported secret", None, &world.new_address()).await.expect(200);
}

async fn bcrypt_traps(world: Arc<World>) {
    let owner = world.new_session().await;
    let long = "x".repeat(72);
    plant(&world, &owner.access, &bcrypt::hash(&long, 5).expect("a hash")).await;
    let longer = format!("{long}y");
    world.try_login(&owner.email, &longer, None, &world.new_address()).await.expect(401);
    let nul = "xxxxxxxx\u{0}anything";
    plant(&world, &owner.access, &bcrypt::hash("xxxxxxxx", 5).expect("a hash")).await;
    world.try_login(&owner.email, nul, None, &world.new_address()).await.expect(401);
    world.try_login(&owner.email, "xxxxxxxx", None, &world.new_address()).await.expect(200);
}

async fn change(world: Arc<World>) {
    let email = world.register().await;
    let (keep, other) = (world.login(&email).await, world.login(&email).await);
    let path = "/auth/v1/me/password";
    let call = |current: &str, new: &str| {
        let body = json!({"current": current, "new": new});
        world.call(Method::POST, path, Some(&keep.access), Some(body))
    };
    call("not the password", "a new password").await.expect_problem(401, "invalid-credentials");
    call(PASSWORD, "short").await.expect_problem(422, "validation");
    call(PASSWORD, "a new password").await.expect(204);
    world.get("/auth/verify", &other.access).await.expect_problem(401, "invalid-token");
    world.refresh(&other.refresh, None).await.expect_problem(401, "invalid-refresh-token");
    world.get("/auth/verify", &keep.access).await.expect(200);
    world.refresh(&keep.refresh, None).await.expect(200);
    world.try_login(&email, PASSWORD, None, &world.new_address()).await.expect(401);
    let answer = world.try_login(&email, "a new password", None, &world.new_address()).await.expect(200);
    let fresh = session(&email, &answer);
    world.get("/auth/verify", &fresh.access).await.expect(200);
}

async fn rehash(world: Arc<World>) {
    let owner = world.new_session().await;
    // Argon2id of PASSWORD with m=64,t=3 and no pepper, made by argon2-cffi.
    plant(
        &world,
        &owner.access,
        "$argon2id$v=19$m=64,t=3,p=1$MDEyMzQ1Njc4OWFiY2RlZg$2VTcq13QrGSeyOdQB+dbwKTfz+IIGfVfm+kpNdU7pL8",
    )
    .await;
    assert!(!has_argon2(&world, &owner.access).await);
    let parallel = (0..4).map(|_| world.try_login(&owner.email, PASSWORD, None, "10.251.0.1"));
    for answer in join_all(parallel).await {
        answer.expect(200);
    }
    assert!(has_argon2(&world, &owner.access).await);
}
