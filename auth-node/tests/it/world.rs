//! The cluster and a small HTTP client that knows our calls.
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::announced::Announced;
use devcluster::{Cluster, ClusterSpec};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

pub const PASSWORD: &str = "correct horse battery";

pub struct World {
    pub cluster: Cluster,
    pub http: reqwest::Client,
    /// What OpenAPI says that a call may answer.
    pub announced: Announced,
    next_user: AtomicU64,
    next_node: AtomicU32,
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub async fn read(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.expect("a whole body");
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Self { status, headers, body }
    }

    pub fn str(&self, pointer: &str) -> String {
        self.body
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("no {pointer} in {:?}", self.body))
            .to_owned()
    }

    pub fn header(&self, name: &str) -> String {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
    }

    /// The name of the problem; empty if the answer is none.
    pub fn problem(&self) -> &str {
        let kind = self.body.get("type").and_then(Value::as_str).unwrap_or_default();
        kind.rsplit('/').next().unwrap_or_default()
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{:?}", self.body);
        self
    }

    #[track_caller]
    pub fn expect_problem(self, status: u16, name: &str) -> Self {
        assert_eq!((self.status.as_u16(), self.problem()), (status, name), "{:?}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        self
    }
}

/// A logged-in device.
#[derive(Debug, Clone)]
pub struct Session {
    pub email: String,
    pub id: String,
    pub access: String,
    pub refresh: String,
    pub device: Option<String>,
}

impl World {
    pub async fn start() -> Self {
        let spec = ClusterSpec::default()
            .shards(3)
            .replicas(1)
            .nodes(2)
            .auth_node(env!("CARGO_BIN_EXE_auth-node"))
            // Every test makes its own users; what they share is the address.
            .node_config("server", "allowed_origins", "[\"https://app.example\"]")
            .node_config("passwords", "memory_kib", "8192")
            .node_config("passwords", "passes", "1")
            .node_config("passwords", "wait_ms", "20000")
            // Bursts of hundreds on two cores: who waits longer for a connection is not what these tests are about.
            .node_config("postgres", "checkout_timeout_ms", "5000")
            .node_config("postgres", "connect_timeout_ms", "5000")
            .node_config("server", "drain_grace_ms", "4000");
        let cluster = spec.start().await.unwrap_or_else(|error| panic!("no cluster: {error}"));
        let http =
            reqwest::Client::builder().timeout(Duration::from_secs(30)).no_proxy().build().expect("a client");
        let announced = Announced::read();
        Self { cluster, http, announced, next_user: AtomicU64::new(1), next_node: AtomicU32::new(0) }
    }

    pub async fn stop(self, failed: bool) {
        if failed {
            for name in ["node-1", "node-2"] {
                let log = self.cluster.logs(name).unwrap_or_default();
                let lines: Vec<_> =
                    log.lines().filter(|l| l.contains("\"ERROR\"") || !l.starts_with('{')).collect();
                eprintln!("--- {name}, the last of {} errors", lines.len());
                lines.iter().rev().take(10).rev().for_each(|line| eprintln!("{line}"));
            }
        }
        self.cluster.stop().await.expect("the cluster stops");
    }

    pub fn node(&self, number: u16) -> String {
        self.cluster.node_url(number).expect("a node")
    }

    /// The nodes in turn: no test may care which one answers.
    pub fn any_node(&self) -> String {
        let turn = self.next_node.fetch_add(1, Ordering::Relaxed);
        self.node(if turn.is_multiple_of(2) { 1 } else { 2 })
    }

    pub fn new_email(&self) -> String {
        format!("user-{}@example.com", self.next_user.fetch_add(1, Ordering::Relaxed))
    }

    /// An address that no other test fails passwords from.
    pub fn new_address(&self) -> String {
        let n = self.next_user.fetch_add(1, Ordering::Relaxed);
        format!("10.{}.{}.9", n / 250 % 250, n % 250)
    }

    pub async fn call(&self, method: Method, path: &str, token: Option<&str>, body: Option<Value>) -> Answer {
        self.call_at(&self.any_node(), method, path, token, body).await
    }

    pub async fn call_at(
        &self,
        node: &str,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Answer {
        let mut request = self.http.request(method.clone(), format!("{node}{path}"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = Answer::read(request.send().await.expect("an answer")).await;
        self.announced.check(&method, path, &answer);
        answer
    }

    /// The sum of a node's series whose lines hold all of these words, the name first.
    pub async fn metric(&self, node: u16, words: &[&str]) -> f64 {
        let url = format!("{}/metrics", self.cluster.ops_url(node).expect("an address"));
        let text = self.http.get(url).send().await.expect("metrics").text().await.expect("text");
        let lines = text
            .lines()
            .filter(|line| line.starts_with(words[0]) && words.iter().all(|word| line.contains(word)));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.call(Method::GET, path, Some(token), None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, None, Some(body)).await
    }

    pub async fn register(&self) -> String {
        let email = self.new_email();
        self.post("/auth/v1/register", json!({"email": email, "password": PASSWORD})).await.expect(201);
        email
    }

    pub async fn try_login(
        &self,
        email: &str,
        password: &str,
        device: Option<&str>,
        address: &str,
    ) -> Answer {
        let mut request = self.http.post(format!("{}/auth/v1/login", self.any_node()));
        request =
            request.header("x-forwarded-for", address).json(&json!({"email": email, "password": password}));
        if let Some(device) = device {
            request = request.header("tessera-device", device);
        }
        let answer = Answer::read(request.send().await.expect("an answer")).await;
        self.announced.check(&Method::POST, "/auth/v1/login", &answer);
        answer
    }

    pub async fn login(&self, email: &str) -> Session {
        let answer = self.try_login(email, PASSWORD, None, &self.new_address()).await.expect(200);
        session(email, &answer)
    }

    pub async fn new_session(&self) -> Session {
        let email = self.register().await;
        self.login(&email).await
    }

    pub async fn refresh(&self, token: &str, device: Option<&str>) -> Answer {
        self.refresh_at(&self.any_node(), token, device).await
    }

    pub async fn refresh_at(&self, node: &str, token: &str, device: Option<&str>) -> Answer {
        let mut request =
            self.http.post(format!("{node}/auth/v1/refresh")).json(&json!({"refresh_token": token}));
        if let Some(device) = device {
            request = request.header("tessera-device", device);
        }
        let answer = Answer::read(request.send().await.expect("an answer")).await;
        self.announced.check(&Method::POST, "/auth/v1/refresh", &answer);
        answer
    }

    /// An SQL command on the shard that owns the user of this access token; returns the rows it changed.
    pub async fn sql_for(&self, access: &str, statement: &str) -> u64 {
        let claims = claims(access);
        let user: shard_key::UserId = claims["sub"].as_str().and_then(|s| s.parse().ok()).expect("a subject");
        let statement = statement
            .replace("$user", &format!("'{user}'::uuid"))
            .replace("$session", &format!("'{}'::uuid", claims["sid"].as_str().expect("a session")))
            .replace("$bucket", &user.bucket().get().to_string());
        let mut changed = 0;
        for shard in 1..=3 {
            let dsn = self.cluster.shard_primary_dsn(shard).expect("a shard");
            let mut db = <sqlx::PgConnection as sqlx::Connection>::connect(&dsn).await.expect("a connection");
            let owner = "SELECT 1 FROM meta.bucket_owner WHERE state = 'A' AND bucket = ";
            let owns = sqlx::query(sqlx::AssertSqlSafe(format!("{owner}{}", user.bucket().get())));
            if owns.fetch_optional(&mut db).await.expect("the owner").is_some() {
                let done = sqlx::query(sqlx::AssertSqlSafe(statement.clone()))
                    .execute(&mut db)
                    .await
                    .expect("the statement");
                changed += done.rows_affected();
            }
        }
        changed
    }
}

pub fn session(email: &str, answer: &Answer) -> Session {
    Session {
        email: email.to_owned(),
        id: answer.str("/session/id"),
        access: answer.str("/access_token"),
        refresh: answer.str("/refresh_token"),
        device: Some(answer.header("tessera-device")).filter(|d| !d.is_empty()),
    }
}

/// The claims of a token, unverified.
pub fn claims(token: &str) -> Value {
    use base64::Engine;
    let payload = token.split('.').nth(1).expect("a payload");
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    serde_json::from_slice(&bytes).expect("claims")
}

/// Asks until the answer is yes; the bound is only there so that a broken test ends.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let end = Instant::now() + Duration::from_secs(60);
    while !ask().await {
        assert!(Instant::now() < end, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
