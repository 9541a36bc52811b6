//! Traces, as a receiver that is not ours gets them: whole from the request to the statement, joined with log lines and
//! problems, and without a secret. And without a receiver: nobody notices.
use std::net::TcpListener;
use std::sync::{Arc, OnceLock};

use reqwest::Method;
use serde_json::{Value, json};
use shard_key::{Bucket, UserId};

use crate::Suite;
use crate::collector::{self, Collector, Span};
use crate::solo::Solo;
use crate::world::{Answer, World, eventually, session};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

pub fn add(suite: &mut Suite) {
    let missing = collector::missing;
    suite.add_unless("a_trace_leads_from_the_request_to_its_shard", missing(), whole_traces);
    suite.add_unless("no_secret_is_in_a_trace_a_log_or_a_metric", missing(), no_secrets);
    suite.add_unless("a_proxy_is_a_parent_and_a_stranger_is_a_link", missing(), callers);
    suite.add_unless("failures_are_seen_in_the_trace", missing(), failures);
    suite.add("a_stranger_cannot_have_a_request_traced", unsampled);
    suite.add("a_collector_that_refuses_costs_nothing_but_traces", refusing_collector);
    suite.add("a_collector_that_hangs_costs_nothing_but_traces", hanging_collector);
}

async fn traced(world: &World, collector: &Collector, more: &[(&str, &str)]) -> Solo {
    let mut settings = vec![
        ("TELEMETRY__OTLP_ENDPOINT", collector.endpoint.as_str()),
        ("TELEMETRY__TRACE_SAMPLE_RATIO", "1.0"),
        ("TELEMETRY__EXPORT_INTERVAL_MS", "100"),
    ];
    settings.extend(more);
    Solo::start(world, &settings).await
}

async fn post(world: &World, node: &Solo, path: &str, body: &Value) -> Answer {
    let request = node.request(world, Method::POST, path).json(body);
    Answer::read(request.send().await.expect("an answer")).await
}

/// The line that the log has of a request, by the id in its answer.
fn line(node: &Solo, answer: &Answer) -> Value {
    let id = answer.header("x-request-id");
    let lines = node.lines();
    let found = lines.iter().find(|l| l["message"] == "request" && l["span"]["request.id"] == id.as_str());
    found.cloned().unwrap_or_default()
}

/// The trace of a request, by the id in its log line.
async fn trace_of(node: &Solo, collector: &Collector, answer: &Answer) -> Vec<Span> {
    // Calm lines wait a moment in memory.
    eventually("the request's line is written", || async { !line(node, answer).is_null() }).await;
    let line = line(node, answer);
    let trace = line["span"]["trace_id"].as_str().expect("a trace id").to_owned();
    let spans = collector.trace(&trace).await;
    let root = named(&spans, |span| span.kind == "SPAN_KIND_SERVER");
    assert_eq!(line["span"]["span_id"], root.id.as_str(), "the line names its span");
    assert_eq!(root.attribute("http.response.status_code"), answer.status.as_str());
    assert_eq!(root.attribute("request.id"), answer.header("x-request-id"));
    spans
}

#[track_caller]
fn named(spans: &[Span], wanted: impl Fn(&Span) -> bool) -> Span {
    spans.iter().find(|span| wanted(span)).unwrap_or_else(|| panic!("no such span in {spans:#?}")).clone()
}

/// Root, service and statement hang together, and the statement says where it ran.
#[track_caller]
fn expect_path(spans: &[Span], [root, service, statement]: [&str; 3], place: (Bucket, u16)) {
    let root = named(spans, |s| s.name == root && s.kind == "SPAN_KIND_SERVER");
    assert_eq!(root.parent, "", "nobody called with a trace of his own");
    let service = named(spans, |s| s.name == service && s.parent == root.id);
    let statement = named(spans, |s| s.name == statement && s.parent == service.id);
    let (bucket, shard) = place;
    for (attribute, value) in [
        ("db.system.name", "postgresql".to_owned()),
        ("db.operation.name", statement.name.trim_start_matches("store.").to_owned()),
        ("tessera.bucket", bucket.get().to_string()),
        ("tessera.shard", shard.to_string()),
        ("tessera.role", "primary".to_owned()),
    ] {
        assert_eq!(statement.attribute(attribute), value, "{attribute} of {statement:?}");
    }
}

/// The shard that owns a bucket, by its own word.
async fn owner(world: &World, bucket: Bucket) -> u16 {
    for shard in 1..=3 {
        let dsn = world.cluster.shard_primary_dsn(shard).expect("a shard");
        let mut db = <sqlx::PgConnection as sqlx::Connection>::connect(&dsn).await.expect("a connection");
        let owns = sqlx::query("SELECT 1 FROM meta.bucket_owner WHERE state = 'A' AND bucket = $1")
            .bind(i32::from(bucket.get()));
        if owns.fetch_optional(&mut db).await.expect("the owner").is_some() {
            return shard;
        }
    }
    panic!("nobody owns bucket {}", bucket.get())
}

async fn whole_traces(world: Arc<World>) {
    let collector = Collector::start().await;
    let node = traced(&world, &collector, &[]).await;
    let account = json!({"email": world.new_email(), "password": "correct horse battery"});
    let registered = post(&world, &node, "/auth/v1/register", &account).await.expect(201);
    let login = post(&world, &node, "/auth/v1/login", &account).await.expect(200);
    let token = json!({"refresh_token": login.str("/refresh_token")});
    let refreshed = post(&world, &node, "/auth/v1/refresh", &token).await.expect(200);

    let user: UserId = registered.str("/user/id").parse().expect("a user id");
    let place = (user.bucket(), owner(&world, user.bucket()).await);
    let spans = trace_of(&node, &collector, &registered).await;
    expect_path(&spans, ["POST /auth/v1/register", "register", "store.accounts.insert"], place);
    named(&spans, |s| s.name == "register.hash_password");
    let spans = trace_of(&node, &collector, &login).await;
    expect_path(&spans, ["POST /auth/v1/login", "login", "store.logins.reserve"], place);
    expect_path(&spans, ["POST /auth/v1/login", "login", "store.logins.open"], place);
    let service = named(&spans, |s| s.name == "login");
    named(&spans, |s| s.name == "login.verify_password" && s.parent == service.id);
    let spans = trace_of(&node, &collector, &refreshed).await;
    expect_path(&spans, ["POST /auth/v1/refresh", "refresh", "store.sessions.rotate"], place);
    let root = named(&spans, |s| s.kind == "SPAN_KIND_SERVER");
    assert_eq!(root.attribute("http.route"), "/auth/v1/refresh");
    assert_eq!(root.attribute("http.request.method"), "POST");
    assert!(node.metrics(&world).await.contains("tessera_trace_spans_total{result=\"sent\"}"));
    // A new node asks a Redis master once it has answered.
    eventually("a session check asks Redis, and says so", || async {
        let check = node.request(&world, Method::GET, "/auth/verify");
        let check = check.bearer_auth(login.str("/access_token")).send().await.expect("an answer");
        let spans = trace_of(&node, &collector, &Answer::read(check).await).await;
        let service = named(&spans, |s| s.name == "authenticate");
        let redis = spans.iter().find(|s| s.attribute("db.system.name") == "redis");
        redis.is_some_and(|s| {
            s.parent == service.id && s.name == format!("redis.{}", s.attribute("db.operation.name"))
        })
    })
    .await;
}

/// Every kind of secret and personal value that docs/logging.md names, and a word that is in none of our texts.
async fn no_secrets(world: Arc<World>) {
    let collector = Collector::start().await;
    let mut node = traced(&world, &collector, &[]).await;
    let email = format!("canary-mailbox-{}", world.new_email());
    let account = json!({"email": email, "password": "canary battery staple", "name": "Canary Nightingale"});
    let post = |path: &'static str, body: &Value| {
        let request = node.request(&world, Method::POST, path).json(body);
        let request =
            request.header("user-agent", "canary-agent/1.0").header("x-forwarded-for", "203.0.113.77");
        let request =
            request.header("tracestate", "vendor=canarystate").header("cookie", "other=canarycookie");
        let request = request.header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
        let request = request.header("idempotency-key", "canary-once");
        async { Answer::read(request.send().await.expect("an answer")).await }
    };
    let registered = post("/auth/v1/register", &account).await.expect(201);
    let login = json!({"email": email, "password": "canary battery staple"});
    let login = post("/auth/v1/login", &login).await.expect(200);
    let mine = session(&email, &login);
    let wrong = json!({"email": email, "password": "canary wrong guess"});
    post("/auth/v1/login", &wrong).await.expect_problem(401, "invalid-credentials");
    let refreshed = post("/auth/v1/refresh", &json!({"refresh_token": mine.refresh})).await.expect(200);
    post("/auth/v1/refresh", &json!({"refresh_token": "canary.forged.token"})).await;
    let odd = node.request(&world, Method::GET, "/canary/path?token=canary-query");
    odd.bearer_auth(&mine.access).send().await.expect("an answer");
    let change = json!({"current": "canary battery staple", "new": "canary new password"});
    let change = node.request(&world, Method::POST, "/auth/v1/me/password").json(&change);
    let changed = Answer::read(change.bearer_auth(&mine.access).send().await.expect("an answer")).await;
    changed.clone().expect(204);

    let device = mine.device.clone().expect("a new device");
    let cookie = login.header("set-cookie");
    let cookie = cookie.split(['=', ';']).nth(1).unwrap_or(&device).to_owned();
    let signature = mine.access.rsplit('.').next().expect("a signature");
    let (again, newer) = (refreshed.str("/access_token"), refreshed.str("/refresh_token"));
    let secrets = ["canary", "Nightingale", "203.0.113.77", &mine.access, signature, &mine.refresh];
    let secrets = [&secrets[..], &[&again, &newer, &device, &cookie]].concat();
    trace_of(&node, &collector, &changed).await;
    let metrics = node.metrics(&world).await;
    assert!(node.stop().await.success());
    for (place, text) in [("traces", collector.text()), ("log", node.log()), ("metrics", metrics)] {
        assert!(text.len() > 1000, "there is something in the {place}");
        for secret in &secrets {
            assert!(!secret.is_empty() && !text.contains(secret), "{secret} is in the {place}");
        }
    }
    let user = registered.str("/user/id");
    assert!(!collector.text().contains(&user), "a trace names no user");
}

async fn callers(world: Arc<World>) {
    let collector = Collector::start().await;
    let ask = |node: &Solo| {
        // Not sampled, says the caller. It is not his to say.
        let request = node.request(&world, Method::GET, "/nowhere");
        let request = request.header("traceparent", format!("00-{TRACE}-{PARENT}-00"));
        async {
            Answer::read(request.send().await.expect("an answer")).await.expect_problem(404, "not-found")
        }
    };
    // The cluster's nodes trust this machine as a proxy.
    let behind = traced(&world, &collector, &[]).await;
    assert_eq!(ask(&behind).await.str("/trace_id"), TRACE);
    let spans = collector.trace(TRACE).await;
    let root = named(&spans, |s| s.kind == "SPAN_KIND_SERVER");
    assert_eq!((root.parent.as_str(), root.linked.as_str()), (PARENT, ""));

    let exposed = traced(&world, &collector, &[("SERVER__TRUSTED_PROXIES", "[]")]).await;
    let own = ask(&exposed).await.str("/trace_id");
    assert_ne!(own, TRACE);
    let spans = collector.trace(&own).await;
    let root = named(&spans, |s| s.kind == "SPAN_KIND_SERVER");
    assert_eq!((root.parent.as_str(), root.linked.as_str()), ("", TRACE));
}

/// A problem names its trace, and an answer of ours that failed is a failed span.
async fn failures(world: Arc<World>) {
    let collector = Collector::start().await;
    // One permit and no patience: of many logins at once some are turned away.
    let node = traced(&world, &collector, &[("PASSWORDS__PERMITS", "1"), ("PASSWORDS__WAIT_MS", "0")]).await;
    let busy = OnceLock::new();
    eventually("one permit is not enough", || async {
        let strangers: Vec<Value> = (0..8)
            .map(|_| json!({"email": world.new_email(), "password": "correct horse battery"}))
            .collect();
        let tries = strangers.iter().map(|stranger| post(&world, &node, "/auth/v1/login", stranger));
        let answers = futures::future::join_all(tries).await;
        answers.into_iter().find(|answer| answer.status.as_u16() == 503).is_some_and(|a| busy.set(a).is_ok())
    })
    .await;
    let busy = busy.into_inner().expect("it was found");
    let spans = trace_of(&node, &collector, &busy).await;
    let root = named(&spans, |s| s.kind == "SPAN_KIND_SERVER");
    assert_eq!(busy.str("/trace_id"), root.trace);
    assert_eq!(root.attribute("error.type"), "503");
    assert_eq!(root.status, "STATUS_CODE_ERROR");
}

async fn unsampled(world: Arc<World>) {
    let nowhere = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", nowhere.local_addr().expect("an address"));
    let settings =
        [("TELEMETRY__OTLP_ENDPOINT", endpoint.as_str()), ("TELEMETRY__TRACE_SAMPLE_RATIO", "0.0")];
    let node = Solo::start(&world, &settings).await;
    let request = node.request(&world, Method::GET, "/nowhere");
    let request = request.header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    let answer = Answer::read(request.send().await.expect("an answer")).await;
    assert!(answer.clone().expect_problem(404, "not-found").body.get("trace_id").is_none());
    eventually("the request's line is written", || async { !line(&node, &answer).is_null() }).await;
    assert!(!node.log().contains(TRACE));
    assert!(!node.metrics(&world).await.contains("tessera_trace_spans_total{"));
}

/// How many spans met that end.
async fn counted(world: &World, node: &Solo, result: &str) -> u64 {
    let series = format!("tessera_trace_spans_total{{result=\"{result}\"}} ");
    let metrics = node.metrics(world).await;
    let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
    value.map_or(0, |value| value.parse().expect("a count"))
}

/// Many requests, each traced, one span each.
async fn ask_often(world: &World, node: &Solo, times: usize) {
    for _ in 0..times {
        node.get(world, "/.well-known/jwks.json").await.expect(200);
    }
}

fn complaints(node: &Solo) -> usize {
    node.lines().iter().filter(|l| l["message"].as_str().is_some_and(|m| m.contains("collector"))).count()
}

async fn refusing_collector(world: Arc<World>) {
    // Bound and not listening: the port is ours, and every connection is refused.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let endpoint = format!("http://{}", socket.local_addr().expect("an address"));
    let mut node = lost_node(&world, &endpoint, "100").await;
    eventually("three batches and more have failed", || async {
        ask_often(&world, &node, 20).await;
        counted(&world, &node, "failed").await > 10 * BATCH
    })
    .await;
    eventually("the log says so", || async { complaints(&node) == 1 }).await;
    assert!(node.stop().await.success());
    assert!(complaints(&node) <= 2, "once, and perhaps once more at the end: {}", node.log());
    assert!(node.log().contains("\"drained\""));
}

const QUEUE: u64 = 64;
const BATCH: u64 = 16;

async fn lost_node(world: &World, endpoint: &str, timeout_ms: &str) -> Solo {
    let settings = [
        ("TELEMETRY__OTLP_ENDPOINT", endpoint),
        ("TELEMETRY__TRACE_SAMPLE_RATIO", "1.0"),
        ("TELEMETRY__EXPORT_INTERVAL_MS", "100"),
        ("TELEMETRY__EXPORT_TIMEOUT_MS", timeout_ms),
        ("TELEMETRY__QUEUE_SPANS", &QUEUE.to_string()),
        ("TELEMETRY__BATCH_SPANS", &BATCH.to_string()),
        ("TELEMETRY__FLUSH_MS", "200"),
    ];
    Solo::start(world, &settings).await
}

async fn hanging_collector(world: Arc<World>) {
    // Connections are made and never answered; the first batch hangs for longer than any request here may take.
    let hole = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", hole.local_addr().expect("an address"));
    let mut node = lost_node(&world, &endpoint, "60000").await;
    let requests = 200;
    ask_often(&world, &node, requests).await;
    let dropped = counted(&world, &node, "dropped").await;
    assert!(dropped >= requests as u64 - QUEUE - BATCH, "{dropped} of {requests}: the rest waits in memory");
    assert_eq!(counted(&world, &node, "sent").await, 0);
    assert!(node.stop().await.success(), "the flush ends though the collector holds on");
    assert!(node.log().contains("the last spans were not sent") && node.log().contains("\"drained\""));
    drop(hole);
}
