//! Hosts, origins and headers: what stands between a stranger's browser and the API.
use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use crate::Suite;
use crate::world::{Answer, World};

const LISTED: &str = "https://app.example";
const FOREIGN: &str = "https://evil.example";

pub fn add(suite: &mut Suite) {
    suite.add("only_listed_origins_are_told_anything", sharing);
    suite.add("preflights_are_answered_for_listed_origins_alone", preflights);
    suite.add("a_foreign_host_is_misdirected", hosts);
    suite.add("every_answer_has_its_security_headers", headers);
    suite.add("the_api_describes_itself_from_the_binary", documents);
    suite.add("https_turns_on_strict_transport_security", strict_transport);
}

async fn send(world: &World, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = world.http.request(method, format!("{}{path}", world.node(1)));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::read(request.send().await.expect("an answer")).await
}

async fn sharing(world: Arc<World>) {
    let session = world.new_session().await;
    let bearer = format!("Bearer {}", session.access);
    for (origin, shared) in
        [(LISTED, true), (FOREIGN, false), ("null", false), ("https://APP.example", false)]
    {
        for (method, path, body) in
            [(Method::GET, "/auth/v1/me", ""), (Method::PATCH, "/auth/v1/me", "{\"name\":null}")]
        {
            let request = world.http.request(method.clone(), format!("{}{path}", world.node(1)));
            let request = request.header("origin", origin).header("authorization", &bearer);
            let request = request.header("content-type", "application/json").body(body);
            let answer = Answer::read(request.send().await.expect("an answer")).await;
            assert_eq!(
                answer.header("access-control-allow-origin"),
                if shared { origin } else { "" },
                "{method} {origin}"
            );
            assert_eq!(answer.header("access-control-allow-credentials"), if shared { "true" } else { "" });
            assert_eq!(answer.header("vary"), "Origin");
            let read = method == Method::GET;
            assert_eq!(answer.status.as_u16(), if shared || read { 200 } else { 403 }, "{method} {origin}");
        }
    }
    // A refusal is shared as well, or a page could not tell an outage from a bad token.
    let refused = send(&world, Method::GET, "/auth/v1/me", &[("origin", LISTED)])
        .await
        .expect_problem(401, "invalid-token");
    assert_eq!(refused.header("access-control-allow-origin"), LISTED);
    assert_eq!(send(&world, Method::GET, "/health", &[]).await.header("vary"), "Origin");
}

async fn preflights(world: Arc<World>) {
    let ask = |origin| {
        [
            ("origin", origin),
            ("access-control-request-method", "PATCH"),
            ("access-control-request-headers", "authorization"),
        ]
    };
    let good = send(&world, Method::OPTIONS, "/auth/v1/me", &ask(LISTED)).await.expect(204);
    assert_eq!(good.header("access-control-allow-origin"), LISTED);
    assert!(good.header("access-control-allow-methods").contains("PATCH"));
    for name in ["authorization", "content-type", "idempotency-key", "tessera-device"] {
        assert!(good.header("access-control-allow-headers").contains(name), "{name}");
    }
    assert_eq!(good.header("vary"), "Origin");
    for origin in [FOREIGN, "null"] {
        let bad =
            send(&world, Method::OPTIONS, "/auth/v1/me", &ask(origin)).await.expect_problem(403, "forbidden");
        assert!(
            bad.headers.keys().all(|name| !name.as_str().starts_with("access-control-")),
            "{:?}",
            bad.headers
        );
    }
    send(&world, Method::OPTIONS, "/auth/v1/me", &[]).await.expect_problem(405, "method-not-allowed");
}

async fn hosts(world: Arc<World>) {
    let own = world.node(1).trim_start_matches("http://").to_owned();
    let port = own.rsplit(':').next().expect("a port").to_owned();
    for host in
        [own.clone(), format!("localhost:{port}"), format!("LOCALHOST:{port}"), format!("[::1]:{port}")]
    {
        send(&world, Method::GET, "/openapi.json", &[("host", &host)]).await.expect(200);
    }
    for host in [
        "evil.example",
        "127.0.0.1",
        &format!("evil.example:{port}"),
        &format!("{own}.evil.example"),
        "",
        "a b",
    ] {
        for (method, path) in [
            (Method::GET, "/auth/verify"),
            (Method::POST, "/auth/v1/login"),
            (Method::GET, "/docs"),
            (Method::GET, "/nowhere"),
        ] {
            send(&world, method, path, &[("host", host)]).await.expect_problem(421, "misdirected");
        }
        // Health checks ask by address.
        send(&world, Method::GET, "/health", &[("host", host)]).await.expect(200);
    }
    for (request, status) in [
        ("GET /docs HTTP/1.1\r\n\r\n".to_owned(), "400"),
        (format!("GET /docs HTTP/1.1\r\nHost: {own}\r\nHost: {own}\r\n\r\n"), "400"),
        (format!("GET http://evil.example/docs HTTP/1.1\r\nHost: {own}\r\n\r\n"), "421"),
        (format!("GET http://{own}/docs HTTP/1.1\r\nHost: evil.example\r\n\r\n"), "421"),
        (format!("GET http://{own}/docs HTTP/1.1\r\nHost: {own}\r\n\r\n"), "200"),
    ] {
        let answer = raw(&own, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
}

/// The first bytes of the answer to bytes that no client library would send.
async fn raw(address: &str, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut head = [0; 64];
    let read = stream.read_exact(&mut head).await;
    read.map(|_| String::from_utf8_lossy(&head).into_owned()).expect("an answer")
}

async fn headers(world: Arc<World>) {
    for (path, headers) in [
        ("/health", &[][..]),
        ("/auth/v1/me", &[]),
        ("/nowhere", &[]),
        ("/.well-known/jwks.json", &[]),
        ("/openapi.json", &[]),
        ("/docs", &[]),
        ("/problems/forbidden", &[]),
        ("/docs", &[("host", "evil.example")]),
    ] {
        let answer = send(&world, Method::GET, path, headers).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin", "{path}");
        let policy = answer.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{path}: {policy}");
        assert!(answer.headers.get("strict-transport-security").is_none(), "plain http promises no https");
    }
}

async fn documents(world: Arc<World>) {
    let served = world.call(Method::GET, "/openapi.json", None, None).await.expect(200);
    let kept: Value = serde_json::from_str(include_str!("../../../docs/openapi.json")).expect("JSON");
    assert!(served.body == kept, "the served document is the snapshot");
    for (path, kind) in
        [("/docs", "text/html"), ("/docs/docs.css", "text/css"), ("/docs/docs.js", "text/javascript")]
    {
        let response = world.http.get(format!("{}{path}", world.node(2))).send().await.expect("an answer");
        assert!(response.headers()["content-type"].to_str().is_ok_and(|v| v.starts_with(kind)), "{path}");
        let text = response.text().await.expect("text");
        assert!(
            !text.contains("//cdn") && !text.contains("src=\"http") && !text.contains("@import"),
            "{path} loads from elsewhere"
        );
    }
    // The type of a problem is an address, and it says what the problem is.
    let kind = world.get("/nowhere", "x").await.expect(404).str("/type");
    let page = world.http.get(kind).send().await.expect("an answer").text().await.expect("text");
    assert!(page.contains("<h1>not-found</h1>"), "{page}");
    world.call(Method::GET, "/problems/no-such", None, None).await.expect_problem(404, "not-found");
    world.call(Method::GET, "/docs/no-such", None, None).await.expect_problem(404, "not-found");
}

/// A node whose public address is https, on ports of its own: a node alone cannot know that, its configuration can.
async fn strict_transport(world: Arc<World>) {
    let listen =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_auth-node"));
    command.arg("--config").arg(world.cluster.home().node_config("node-1")).arg("serve").kill_on_drop(true);
    command
        .env("TESSERA_SERVER__LISTEN", listen.to_string())
        .env("TESSERA_SERVER__OPS_LISTEN", "127.0.0.1:0");
    command
        .env("TESSERA_SERVER__PUBLIC_URL", "https://auth.example")
        .env("TESSERA_SERVER__ALLOWED_HOSTS", "[]");
    let folder = tempfile::tempdir().expect("a folder");
    command.env("TESSERA_SERVER__STATE_DIR", folder.path()).stdout(std::process::Stdio::null());
    let _node = command.spawn().expect("auth-node starts");
    crate::world::eventually("the node listens", || async {
        tokio::net::TcpStream::connect(listen).await.is_ok()
    })
    .await;
    for (host, status) in [("auth.example", 200), ("auth.example:443", 200), ("127.0.0.1", 421)] {
        let request = world.http.get(format!("http://{listen}/docs")).header("host", host);
        let answer = Answer::read(request.send().await.expect("an answer")).await;
        assert_eq!(answer.status.as_u16(), status, "{host}");
        assert_eq!(answer.header("strict-transport-security"), "max-age=31536000");
    }
    let request = world.http.post(format!("http://{listen}/auth/v1/login")).header("host", "auth.example");
    let answer = Answer::read(request.json(&json!({})).send().await.expect("an answer")).await;
    assert_eq!(answer.expect(422).str("/type"), "https://auth.example/problems/validation");
}
