//! Parts die. Nobody is logged out, nothing revoked comes back, and an outage is never a verdict.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::Suite;
use crate::world::{Answer, PASSWORD, Session, World, claims, eventually};

pub fn add(suite: &mut Suite) {
    suite.add("flushing_all_of_redis_logs_nobody_out", flushed);
    suite.add("with_redis_stopped_everything_goes_on", redis_stopped);
    suite.add("a_redis_master_killed_under_load_costs_no_session", master_killed);
    suite.add("a_dead_shard_is_503_for_its_users_and_nothing_for_others", shard_dead);
    suite.add("without_the_directory_all_goes_on_and_a_node_starts_from_its_copy", directory_dead);
    suite.add("a_killed_node_loses_nothing_that_was_answered", node_killed);
    suite.add("a_lagging_replica_is_left_out_of_reads", replica_lags);
    suite.add("keys_rotate_retire_and_are_distrusted", keys);
}

/// Sessions that refresh and check themselves without a pause, at both nodes, and keep what they were told.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: Vec<JoinHandle<(Session, BTreeMap<u16, u64>)>>,
}

impl Load {
    async fn start(world: &Arc<World>, sessions: usize) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut clients = Vec::new();
        for _ in 0..sessions {
            let session = world.new_session().await;
            let (world, stop, done) = (Arc::clone(world), Arc::clone(&stop), Arc::clone(&done));
            clients.push(tokio::spawn(client(world, session, stop, done)));
        }
        Self { stop, done, clients }
    }

    /// Returns when so many more calls were answered 200.
    async fn progress(&self, calls: u64) {
        let goal = self.done.load(Ordering::Relaxed) + calls;
        eventually("the load goes on", || async { self.done.load(Ordering::Relaxed) >= goal }).await;
    }

    /// Ends the load. Every client must have been told 200 or 503 only, and still be logged in.
    async fn finish(self, world: &World) -> BTreeMap<u16, u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = BTreeMap::new();
        for client in self.clients {
            let (session, statuses) = client.await.expect("a client");
            for (status, count) in statuses {
                *all.entry(status).or_default() += count;
            }
            let unsure = || async {
                world.refresh(&session.refresh, None).await.status == StatusCode::SERVICE_UNAVAILABLE
            };
            eventually("the shard answers", || async { !unsure().await }).await;
            let answer = world.refresh(&session.refresh, None).await;
            assert!(
                matches!(answer.status.as_u16(), 200 | 429),
                "a client was logged out: {:?}",
                answer.body
            );
        }
        assert!(all.keys().all(|status| matches!(status, 200 | 503)), "{all:?}");
        all
    }
}

async fn client(
    world: Arc<World>,
    mut session: Session,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
) -> (Session, BTreeMap<u16, u64>) {
    let mut statuses = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let refreshed = world.refresh(&session.refresh, None).await;
        if refreshed.status == StatusCode::OK {
            session.refresh = refreshed.str("/refresh_token");
            session.access = refreshed.str("/access_token");
        }
        let checked = world.get("/auth/verify", &session.access).await;
        for answer in [&refreshed, &checked] {
            *statuses.entry(answer.status.as_u16()).or_default() += 1;
            done.fetch_add(u64::from(answer.status == StatusCode::OK), Ordering::Relaxed);
        }
    }
    (session, statuses)
}

async fn verify(world: &World, token: &str) -> Answer {
    world.get("/auth/verify", token).await
}

async fn flushed(world: Arc<World>) {
    let dead = world.new_session().await;
    verify(&world, &dead.access).await.expect(200);
    world.call(Method::POST, "/auth/v1/logout", Some(&dead.access), None).await.expect(204);
    let load = Load::start(&world, 8).await;
    for _ in 0..5 {
        world.cluster.redis_flush_all().await.expect("flushed");
        verify(&world, &dead.access).await.expect_problem(401, "invalid-token");
        load.progress(100).await;
    }
    let statuses = load.finish(&world).await;
    assert_eq!(statuses.get(&503), None, "{statuses:?}");
}

async fn redis_stopped(world: Arc<World>) {
    let (dead, alive) = (world.new_session().await, world.new_session().await);
    world.call(Method::POST, "/auth/v1/logout", Some(&dead.access), None).await.expect(204);
    let load = Load::start(&world, 4).await;
    let parts: Vec<_> = (1..=6).map(|n| format!("redis-{n}")).collect();
    for part in &parts {
        world.cluster.kill(part).await.expect("killed");
    }
    load.progress(100).await;
    verify(&world, &alive.access).await.expect(200);
    verify(&world, &dead.access).await.expect_problem(401, "invalid-token");
    let email = world.register().await;
    let fresh = world.login(&email).await;
    world.call(Method::POST, "/auth/v1/logout", Some(&fresh.access), None).await.expect(204);
    verify(&world, &fresh.access).await.expect_problem(401, "invalid-token");
    for part in &parts {
        world.cluster.start(part).await.expect("started");
    }
    load.progress(100).await;
    for revoked in [&dead, &fresh] {
        verify(&world, &revoked.access).await.expect_problem(401, "invalid-token");
        world.refresh(&revoked.refresh, None).await.expect_problem(401, "invalid-refresh-token");
    }
    load.finish(&world).await;
    eventually("the nodes use Redis again", || redis_is_up(&world)).await;
}

pub async fn redis_is_up(world: &World) -> bool {
    for node in [1, 2] {
        let url = format!("{}/health/dependencies", world.cluster.ops_url(node).expect("an address"));
        let health: serde_json::Value =
            world.http.get(url).send().await.expect("an answer").json().await.expect("JSON");
        if health["redis"]["up"] != true {
            return false;
        }
    }
    true
}

async fn master_killed(world: Arc<World>) {
    let dead = world.new_session().await;
    verify(&world, &dead.access).await.expect(200);
    let load = Load::start(&world, 8).await;
    load.progress(50).await;
    world.call(Method::POST, "/auth/v1/logout", Some(&dead.access), None).await.expect(204);
    world.cluster.kill("redis-1").await.expect("killed");
    for _ in 0..10 {
        load.progress(40).await;
        verify(&world, &dead.access).await.expect_problem(401, "invalid-token");
    }
    world.cluster.start("redis-1").await.expect("started");
    load.progress(100).await;
    verify(&world, &dead.access).await.expect_problem(401, "invalid-token");
    let statuses = load.finish(&world).await;
    assert_eq!(statuses.get(&503), None, "PostgreSQL carries it alone: {statuses:?}");
}

/// One session on each shard.
pub async fn session_on(world: &World, shard: u16) -> Session {
    let dsn = world.cluster.shard_primary_dsn(shard).expect("a shard");
    let mut db = <sqlx::PgConnection as sqlx::Connection>::connect(&dsn).await.expect("a connection");
    loop {
        let session = world.new_session().await;
        let user: shard_key::UserId =
            claims(&session.access)["sub"].as_str().and_then(|s| s.parse().ok()).expect("an id");
        let owns = sqlx::query("SELECT 1 FROM meta.bucket_owner WHERE state = 'A' AND bucket = $1")
            .bind(i32::from(user.bucket().get()));
        if owns.fetch_optional(&mut db).await.expect("the owner").is_some() {
            return session;
        }
    }
}

async fn shard_dead(world: Arc<World>) {
    let (hit, fine) = (session_on(&world, 1).await, session_on(&world, 2).await);
    world.cluster.kill("shard-1-primary").await.expect("killed");
    eventually("the outage shows", || async { world.refresh(&hit.refresh, None).await.status == 503 }).await;
    for _ in 0..20 {
        world.refresh(&hit.refresh, None).await.expect_problem(503, "unavailable");
        let login = world.try_login(&hit.email, PASSWORD, None, &world.new_address()).await;
        assert!(!login.header("retry-after").is_empty());
        login.expect_problem(503, "unavailable");
        // What was granted goes on, from the copy, until its own bound.
        assert!(matches!(verify(&world, &hit.access).await.status.as_u16(), 200 | 503));
        let out = world.call(Method::POST, "/auth/v1/logout", Some(&hit.access), None).await;
        out.expect_problem(503, "unavailable");
        world.get("/auth/v1/me", &fine.access).await.expect(200);
    }
    for node in [1, 2] {
        let url = format!("{}/health/ready", world.cluster.ops_url(node).expect("an address"));
        assert_eq!(
            world.http.get(url).send().await.expect("an answer").status(),
            200,
            "readiness is not tied to one shard"
        );
    }
    let next = world.refresh(&fine.refresh, None).await.expect(200);
    world.refresh(&next.str("/refresh_token"), None).await.expect(200);
    world.cluster.start("shard-1-primary").await.expect("started");
    eventually("the shard is back", || async { world.refresh(&hit.refresh, None).await.status == 200 }).await;
    // Each node has its own view of the shard's health. A session check would not show it: the first node leaves a copy
    // in Redis, and the other is content with that.
    eventually("at every node", || async {
        let checks = futures::future::join_all([1, 2].map(|node| {
            let url = format!("{}/auth/v1/me", world.node(node));
            world.http.get(url).bearer_auth(&hit.access).send()
        }));
        let statuses = checks.await.into_iter().map(|answer| answer.expect("an answer").status().as_u16());
        let statuses: Vec<u16> = statuses.collect();
        assert!(!statuses.contains(&401), "an outage is no verdict");
        statuses == [200, 200]
    })
    .await;
}

async fn directory_dead(world: Arc<World>) {
    let before = world.new_session().await;
    world.cluster.kill("directory").await.expect("killed");
    let during = world.new_session().await;
    world.refresh(&before.refresh, None).await.expect(200);
    world.refresh(&during.refresh, None).await.expect(200);
    world.cluster.kill("node-2").await.expect("killed");
    world.cluster.start("node-2").await.expect("a node starts from its last good copy");
    let two = world.node(2);
    world.call_at(&two, Method::GET, "/auth/verify", Some(&before.access), None).await.expect(200);
    let email = world.new_email();
    let body = json!({"email": email, "password": PASSWORD});
    world.call_at(&two, Method::POST, "/auth/v1/register", None, Some(body.clone())).await.expect(201);
    world.call_at(&two, Method::POST, "/auth/v1/login", None, Some(body)).await.expect(200);
    world.cluster.start("directory").await.expect("started");
}

/// SIGKILL at any line: what was answered is true at the other node, what was not can be asked again.
async fn node_killed(world: Arc<World>) {
    let one = world.node(1);
    for _ in 0..3 {
        let mut sessions = Vec::new();
        for _ in 0..4 {
            sessions.push(world.new_session().await);
        }
        let two = world.node(2);
        let answered = Arc::new(AtomicU64::new(0));
        let calls = sessions.into_iter().map(|mut session| {
            let (world, two, answered) = (Arc::clone(&world), two.clone(), Arc::clone(&answered));
            tokio::spawn(async move {
                loop {
                    let call = world
                        .http
                        .post(format!("{two}/auth/v1/refresh"))
                        .json(&json!({"refresh_token": session.refresh}));
                    match call.send().await {
                        Ok(response) if response.status() == 200 => {
                            // Half a body is no answer: the node died while it was writing.
                            let Ok(body) = response.json::<serde_json::Value>().await else { return session };
                            session.refresh = body["refresh_token"].as_str().expect("a token").to_owned();
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(response) => panic!("{}", response.status()),
                        Err(_) => return session,
                    }
                }
            })
        });
        let running: Vec<_> = calls.collect();
        eventually("the clients refresh", || async { answered.load(Ordering::Relaxed) >= 40 }).await;
        world.cluster.kill("node-2").await.expect("killed");
        for client in running {
            let session = client.await.expect("a client");
            world.refresh_at(&one, &session.refresh, None).await.expect(200);
        }
        world.cluster.start("node-2").await.expect("started");
    }
}

async fn replica_lags(world: Arc<World>) {
    let session = session_on(&world, 1).await;
    let dsn = world.cluster.dsn("shard-1-replica-1").expect("a replica");
    let mut replica = <sqlx::PgConnection as sqlx::Connection>::connect(&dsn).await.expect("a connection");
    sqlx::query("SELECT pg_wal_replay_pause()").execute(&mut replica).await.expect("paused");
    let rename = |name: &'static str| {
        world.call(Method::PATCH, "/auth/v1/me", Some(&session.access), Some(json!({"name": name})))
    };
    rename("Later").await.expect(200);
    // Ejected, the primary answers; the replica alone would never know the name.
    eventually("the lagging replica is left out", || async {
        let answers = [
            world.get("/auth/v1/me?consistency=eventual", &session.access).await,
            world.get("/auth/v1/me?consistency=eventual", &session.access).await,
        ];
        answers.iter().all(|a| a.status == 200 && a.body["name"] == "Later")
    })
    .await;
    sqlx::query("SELECT pg_wal_replay_resume()").execute(&mut replica).await.expect("resumed");
    eventually("the replica is used again", || async {
        let mut used = true;
        for node in [1, 2] {
            let url = format!("{}/health/dependencies", world.cluster.ops_url(node).expect("an address"));
            let health: serde_json::Value =
                world.http.get(url).send().await.expect("an answer").json().await.expect("JSON");
            used &= health.pointer("/postgresql/shards/0/replicas/0/admitted") == Some(&true.into());
        }
        used
    })
    .await;
}

fn keys_command(world: &World, arguments: &[&str]) -> (bool, String) {
    let config = world.cluster.home().node_config("node-1");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_auth-node"))
        .arg("--config")
        .arg(config)
        .arg("keys")
        .args(arguments)
        .output()
        .expect("auth-node runs");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

async fn keys(world: Arc<World>) {
    let session = world.new_session().await;
    let issuer = world.node(1);
    let verifier = token_verifier::Verifier::builder(&issuer, &issuer).start().await.expect("a verifier");
    verifier.verify_or_fetch(&session.access).await.expect("valid");
    let kid = jsonwebtoken::decode_header(&session.access).expect("a header").kid.expect("a kid");
    let (ok, list) = keys_command(&world, &["list"]);
    assert!(ok && list.lines().any(|l| l.contains(&kid) && l.contains("signing")), "{list}");

    let (ok, told) = keys_command(&world, &["rotate"]);
    assert!(ok, "{told}");
    let coming = told.split(' ').next().unwrap_or_default().to_owned();
    eventually("both nodes publish the coming key", || async {
        let mut shown = true;
        for node in [1, 2] {
            let jwks =
                world.call_at(&world.node(node), Method::GET, "/.well-known/jwks.json", None, None).await;
            shown &= jwks.body.to_string().contains(&coming);
        }
        shown
    })
    .await;
    // It keeps its lead: the old one goes on signing, and may not retire.
    let still = world.new_session().await;
    assert_eq!(
        jsonwebtoken::decode_header(&still.access).expect("a header").kid.as_deref(),
        Some(kid.as_str())
    );
    let (ok, told) = keys_command(&world, &["retire", &kid]);
    assert!(!ok && told.contains("rotate first"), "{told}");
    let (ok, told) = keys_command(&world, &["distrust", "nonsense"]);
    assert!(!ok && told.contains("no key"), "{told}");

    let (ok, told) = keys_command(&world, &["distrust", &kid]);
    assert!(ok, "{told}");
    for node in [1, 2] {
        let node = world.node(node);
        eventually("tokens of the distrusted key are refused", || async {
            world.call_at(&node, Method::GET, "/auth/verify", Some(&session.access), None).await.status == 401
        })
        .await;
        eventually("another key signs", || async {
            let answer = world.refresh_at(&node, &session.refresh, None).await;
            answer.status == 200
                && jsonwebtoken::decode_header(answer.str("/access_token")).expect("a header").kid.as_deref()
                    != Some(kid.as_str())
        })
        .await;
    }
    // The session lives: only the token died, and a verifier learns the new key by itself.
    let fresh = world.new_session().await;
    eventually("the verifier knows the new key", || async {
        verifier.verify_or_fetch(&fresh.access).await.is_ok()
    })
    .await;
}
