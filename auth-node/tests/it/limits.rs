//! Limits as production has them, on a small cluster of its own: three nodes, of which the second may use little of its
//! shard and the third trusts no proxy. One trial, because its steps share the cluster and the last one ends its Redis.
use std::sync::Arc;
use std::time::Duration;

use devcluster::{Cluster, ClusterSpec};
use futures::future::{join, join_all};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection;

use crate::Suite;
use crate::coverage::ROUTES;
use crate::world::{Answer, PASSWORD, Session, World, eventually, session};

pub fn add(suite: &mut Suite) {
    suite.add("limits_hold_over_all_nodes_and_without_redis", limits);
}

async fn limits(world: Arc<World>) {
    let spec = ClusterSpec::default().shards(1).replicas(0).nodes(3).production_limits(true);
    let cluster = spec
        .auth_node(env!("CARGO_BIN_EXE_auth-node"))
        .node_config("passwords", "memory_kib", "8192")
        .node_config("passwords", "passes", "1")
        .node_config("passwords", "wait_ms", "20000")
        .node_config_of(2, "limits", "shard_concurrency", "4")
        .node_config_of(3, "server", "trusted_proxies", "[]")
        .start()
        .await
        .unwrap_or_else(|error| panic!("no cluster: {error}"));
    let limited = Limited { world, cluster };
    limited.exact_over_two_nodes().await;
    limited.exhausted_addresses().await;
    limited.spoofed_addresses().await;
    limited.forged_tokens().await;
    limited.one_session().await;
    limited.shedding().await;
    limited.without_redis().await;
    limited.cluster.stop().await.expect("the cluster stops");
}

struct Limited {
    world: Arc<World>,
    cluster: Cluster,
}

impl Limited {
    async fn send(
        &self,
        node: u16,
        from: &str,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Value,
    ) -> Answer {
        let url = format!("{}{path}", self.cluster.node_url(node).expect("a node"));
        let mut request = self.world.http.request(method.clone(), url).header("x-forwarded-for", from);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if !method.is_safe() {
            request = request.json(&body);
        }
        let answer = Answer::read(request.send().await.expect("an answer")).await;
        self.world.announced.check(&method, path, &answer);
        answer
    }

    async fn post(&self, node: u16, from: &str, path: &str, body: Value) -> Answer {
        self.send(node, from, Method::POST, path, None, body).await
    }

    /// A call that needs no token and costs nothing: 422 if it was granted.
    async fn open_call(&self, node: u16, from: &str) -> Answer {
        self.post(node, from, "/auth/v1/login", json!({})).await
    }

    async fn session(&self) -> Session {
        let (email, from) = (self.world.new_email(), self.world.new_address());
        let account = json!({"email": email, "password": PASSWORD});
        self.post(1, &from, "/auth/v1/register", account.clone()).await.expect(201);
        session(&email, &self.post(1, &from, "/auth/v1/login", account).await.expect(200))
    }

    async fn refresh(&self, node: u16, from: &str, token: &str) -> Answer {
        self.post(node, from, "/auth/v1/refresh", json!({"refresh_token": token})).await
    }

    /// Tries that a node decided by itself, because Redis did not answer in time.
    async fn decided_alone(&self) -> u64 {
        let mut alone = 0;
        for node in [1, 2] {
            let url = format!("{}/metrics", self.cluster.ops_url(node).expect("an address"));
            let text = self.world.http.get(url).send().await.expect("metrics").text().await.expect("text");
            let lines = text.lines().filter(|l| l.starts_with("tessera_limits_total{"));
            let alone_here = lines.filter(|l| l.contains("by=\"node\"") || l.contains("by=\"nobody\""));
            alone += alone_here.filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>();
        }
        alone
    }

    async fn exact_over_two_nodes(&self) {
        for round in 0.. {
            assert!(round < 20, "Redis never answered all of a round");
            let (from, before) = (self.world.new_address(), self.decided_alone().await);
            let mut answers = Vec::new();
            for _ in 0..13 {
                answers.extend(join_all((0..16).map(|n| self.open_call(1 + n % 2, &from))).await);
            }
            let granted = answers.iter().filter(|a| a.status == 422).count();
            let refused: Vec<_> = answers.iter().filter(|a| a.status == 429).collect();
            assert_eq!(granted + refused.len(), 208);
            for answer in &answers {
                assert_eq!(answer.header("ratelimit-policy").split(';').next(), Some("\"address\""));
            }
            if self.decided_alone().await > before {
                continue;
            }
            assert_eq!(granted, 100);
            for answer in refused {
                assert_eq!(answer.problem(), "rate-limited");
                assert_eq!(answer.header("ratelimit-policy"), "\"address\";q=100;w=900");
                let wait = answer.header("retry-after");
                assert!(wait.parse::<u64>().is_ok_and(|s| (1..=960).contains(&s)), "{wait}");
                assert_eq!(answer.header("ratelimit"), format!("\"address\";r=0;t={wait}"));
            }
            return;
        }
    }

    /// Uses up an address, through all nodes, whatever Redis does meanwhile.
    async fn exhaust(&self, from: &str) {
        let mut in_a_row = 0;
        while in_a_row < 3 {
            let refused = self.open_call(1, from).await.status == 429;
            in_a_row = if refused { in_a_row + 1 } else { 0 };
        }
    }

    /// What each route answers to who has no token and no tries left; and what goes on all the same.
    async fn exhausted_addresses(&self) {
        let owner = self.session().await;
        let from = "2001:db8:1:2::1";
        self.exhaust(from).await;
        for (method, path, usual) in ROUTES.iter().filter(|(_, path, _)| path.starts_with("/auth/")) {
            let method: Method = method.parse().expect("a method");
            let expected = match *path {
                // Counts what is forged; this says nothing. A gateway asks for its visitors.
                "/auth/v1/refresh" | "/auth/verify" => *usual,
                _ => 429,
            };
            let path = path.replace("{id}", &owner.id);
            let answer = self.send(1, "2001:db8:1:2:ffff::9", method.clone(), &path, None, json!({})).await;
            assert_eq!(answer.status.as_u16(), expected, "{method} {path}: {:?}", answer.body);
        }
        self.open_call(1, "2001:db8:1:3::1").await.expect(422);
        self.send(1, from, Method::GET, "/auth/v1/me", Some(&owner.access), json!({})).await.expect(200);
        self.refresh(1, from, &owner.refresh).await.expect(200);
    }

    /// Node 3 hears from 127.0.0.1, whoever the header names.
    async fn spoofed_addresses(&self) {
        let mut statuses = Vec::new();
        for n in 0..140 {
            statuses.push(self.open_call(3, &format!("198.51.100.{n}")).await.status.as_u16());
        }
        assert_eq!(statuses[0], 422);
        // 100, and what the node grants alone while Redis is slow.
        assert_eq!(statuses[139], 429, "a new address each time, and still one client");
        let told = self.open_call(1, "198.51.100.139").await.expect(422);
        assert!(told.header("ratelimit").starts_with("\"address\";r="), "{:?}", told.headers);
    }

    async fn forged_tokens(&self) {
        let (owner, from) = (self.session().await, self.world.new_address());
        let mut forged = owner.refresh.clone();
        let other = if forged.ends_with("AAA") { "BBB" } else { "AAA" };
        forged.replace_range(forged.len() - 4..forged.len() - 1, other);
        let mut refused = 0;
        let limited = loop {
            let answer = self.refresh(1, &from, &forged).await;
            if answer.status == 429 {
                break answer;
            }
            answer.expect_problem(401, "invalid-refresh-token");
            refused += 1;
            assert!(refused < 100, "for ever");
        };
        assert!(refused >= 10, "{refused}");
        assert_eq!(limited.header("ratelimit-policy"), "\"forged\";q=10;w=900");
        // The owner's neighbour guesses, and the owner does not notice.
        self.refresh(1, &from, &owner.refresh).await.expect(200);
        self.refresh(1, &self.world.new_address(), &forged).await.expect(401);
    }

    async fn one_session(&self) {
        let mut owner = self.session().await;
        let mut granted = 0;
        let limited = loop {
            let answer = self.refresh(1, "192.0.2.1", &owner.refresh).await;
            if answer.status == 429 {
                break answer;
            }
            owner.refresh = answer.expect(200).str("/refresh_token");
            granted += 1;
            assert!(granted < 1000, "for ever");
        };
        assert!(granted >= 60, "{granted}");
        assert_eq!(limited.header("ratelimit-policy"), "\"session\";q=60;w=60");
        assert!(!limited.header("retry-after").is_empty());
        // The token that was not looked at is still good.
        self.refresh(3, "192.0.2.1", &owner.refresh).await.expect(200);
    }

    /// Node 2 may have four attempts on their way: three of them refreshes, one of them registering.
    async fn shedding(&self) {
        let sessions = [self.session().await, self.session().await, self.session().await];
        let dsn = self.cluster.shard_primary_dsn(1).expect("a shard");
        let mut admin = sqlx::PgConnection::connect(&dsn).await.expect("a connection");
        let mut watcher = sqlx::PgConnection::connect(&dsn).await.expect("a connection");
        let mut tx = admin.begin().await.expect("a transaction");
        let lock = "LOCK TABLE shard.sessions IN ACCESS EXCLUSIVE MODE";
        sqlx::query(lock).execute(&mut *tx).await.expect("the lock");
        // They wait for a second each; on a busy machine that may be over before the fourth comes.
        let mut shed = None;
        for _ in 0..30 {
            let holding = join_all(sessions.iter().map(|s| self.refresh(2, "192.0.2.2", &s.refresh)));
            let fourth = async {
                for _ in 0..200 {
                    let waiting = "SELECT count(*) FROM pg_stat_activity
                        WHERE usename = 'tessera_app' AND wait_event_type = 'Lock'";
                    let waiting: i64 =
                        sqlx::query_scalar(waiting).fetch_one(&mut watcher).await.expect("a count");
                    if waiting >= 3 {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                let account = json!({"email": self.world.new_email(), "password": PASSWORD});
                self.post(2, &self.world.new_address(), "/auth/v1/register", account).await
            };
            let (held, fourth) = join(holding, fourth).await;
            for answer in held {
                assert_eq!(answer.status, 503, "an outage is no verdict: {:?}", answer.body);
            }
            if fourth.problem() == "overloaded" {
                shed = Some(fourth);
                break;
            }
        }
        let shed = shed.expect("registering is shed").expect_problem(503, "overloaded");
        assert!(shed.header("retry-after").parse::<u64>().is_ok_and(|s| (1..=5).contains(&s)));
        tx.rollback().await.expect("unlocked");
        for session in sessions {
            self.refresh(2, "192.0.2.2", &session.refresh).await.expect(200);
        }
    }

    /// 100 / 3 for each node, by its own memory; a refused credential stays a refused credential.
    async fn without_redis(&self) {
        let owner = self.session().await;
        for n in 1..=6 {
            self.cluster.kill(&format!("redis-{n}")).await.expect("killed");
        }
        for node in [1, 2] {
            let from = self.world.new_address();
            let mut answers = Vec::new();
            for _ in 0..60 {
                answers.push(self.open_call(node, &from).await);
            }
            let granted = answers.iter().filter(|a| a.status == 422).count();
            // One more each 27 s.
            assert!((33..=36).contains(&granted), "{granted} at node {node}");
            let last = answers.pop().expect("sixty").expect_problem(429, "rate-limited");
            assert_eq!(last.header("ratelimit-policy"), "\"address\";q=33;w=900");
            let me = self.send(node, &from, Method::GET, "/auth/v1/me", None, json!({})).await;
            me.expect_problem(401, "invalid-token");
        }
        let account = json!({"email": owner.email, "password": PASSWORD});
        self.post(1, &self.world.new_address(), "/auth/v1/login", account).await.expect(200);
        self.refresh(1, "192.0.2.3", &owner.refresh).await.expect(200);
        for n in 1..=6 {
            self.cluster.start(&format!("redis-{n}")).await.expect("started");
        }
        eventually("the counters are shared again", || async {
            let told = self.open_call(1, &self.world.new_address()).await;
            told.header("ratelimit-policy") == "\"address\";q=100;w=900"
        })
        .await;
    }
}
