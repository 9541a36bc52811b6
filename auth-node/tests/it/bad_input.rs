//! Whatever a stranger sends: a problem document with the field named, never a 5xx, never the value in a log.
use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use crate::Suite;
use crate::world::{Answer, PASSWORD, World};

const POSTS: [&str; 4] = ["/auth/v1/register", "/auth/v1/login", "/auth/v1/refresh", "/auth/v1/me/password"];

pub fn add(suite: &mut Suite) {
    suite.add("bodies_that_cannot_be_read", unreadable);
    suite.add("fields_at_fault_are_named", fields);
    suite.add("odd_emails_are_refused_or_taken_never_a_500", emails);
    suite.add("odd_methods_paths_and_headers", odd_requests);
    suite.add("foreign_origins_may_not_write", origins);
    suite.add("secrets_and_addresses_are_in_no_log", canaries);
}

async fn raw(world: &World, path: &str, content_type: &str, body: Vec<u8>, token: Option<&str>) -> Answer {
    let mut request = world
        .http
        .post(format!("{}{path}", world.any_node()))
        .header("content-type", content_type)
        .body(body);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    Answer::read(request.send().await.expect("an answer")).await
}

async fn unreadable(world: Arc<World>) {
    let session = world.new_session().await;
    let deep = "[".repeat(30_000).into_bytes();
    for path in POSTS {
        let send = |kind: &'static str, body: Vec<u8>| raw(&world, path, kind, body, Some(&session.access));
        let json = "application/json";
        for body in [
            &b""[..],
            b"{",
            b"null",
            b"[]",
            b"\"x\"",
            b"{\"email\":\"\xff\xfe\"}",
            b"{\"a\":1,\"a\":2}",
            b"{}{}",
            &deep,
        ] {
            send(json, body.to_vec()).await.expect_problem(400, "malformed");
        }
        send(json, vec![b' '; 65_537]).await.expect_problem(413, "payload-too-large");
        let huge = format!(r#"{{"email":"a@example.com","password":"{}"}}"#, "p".repeat(1 << 20));
        send(json, huge.into_bytes()).await.expect_problem(413, "payload-too-large");
        send("text/plain", b"{}".to_vec()).await.expect_problem(415, "unsupported-media-type");
        send("application/x-www-form-urlencoded", b"email=a".to_vec())
            .await
            .expect_problem(415, "unsupported-media-type");
    }
}

fn named(answer: &Answer) -> Vec<String> {
    let errors = answer.body["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|e| e["field"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn fields(world: Arc<World>) {
    let email = "named@example.com";
    for (path, body, expected) in [
        (POSTS[0], json!({}), vec!["email", "password"]),
        (POSTS[0], json!({"email": 7, "password": []}), vec!["email", "password"]),
        (POSTS[0], json!({"email": email, "password": "short"}), vec!["password"]),
        (POSTS[0], json!({"email": email, "password": "p".repeat(1025)}), vec!["password"]),
        (POSTS[0], json!({"email": email, "password": PASSWORD, "name": ""}), vec!["name"]),
        (POSTS[0], json!({"email": email, "password": PASSWORD, "admin": true}), vec!["admin"]),
        (POSTS[1], json!({"email": "nobody", "password": PASSWORD}), vec!["email"]),
        (POSTS[1], json!({"email": email, "password": PASSWORD, "code": 1, "x": 2}), vec!["code", "x"]),
        (POSTS[2], json!({}), vec!["refresh_token"]),
        (POSTS[2], json!({"refresh_token": null}), vec!["refresh_token"]),
    ] {
        let answer = world.post(path, body.clone()).await.expect_problem(422, "validation");
        assert_eq!(named(&answer), expected, "{path} {body}");
    }
    // A password of 20 kB fits the body and not the field.
    let long = json!({"email": email, "password": "p".repeat(20_000)});
    assert_eq!(named(&world.post(POSTS[1], long).await.expect_problem(422, "validation")), ["password"]);
}

async fn emails(world: Arc<World>) {
    let unique = world.new_email();
    let odd = [
        "",
        " ",
        "@",
        "a@",
        "@b.example",
        "a@b",
        "a@@b.example",
        "a b@c.example",
        "\"a b\"@c.example",
        "a@[127.0.0.1]",
        "a@b..example",
        "a@-b.example",
        "a@b.example.",
        ".a@b.example",
        "a.@b.example",
        "a..b@c.example",
        "a\u{0}@b.example",
        "a\n@b.example",
        "a@b.example\r\nBcc: x@y.example",
        "a\u{202e}@b.example",
        "a\u{378}@b.example",
        "<a@b.example>",
        "a@xn--\u{fffd}.example",
        "a@xn--a.example",
        "a@1.2.3.4",
        "javascript:alert(1)@",
        "' OR 1=1 --@b.example",
    ];
    for email in odd.iter().map(|e| (*e).to_owned()).chain([
        format!("{}@b.example", "a".repeat(65)),
        format!("a@{}.example", "b".repeat(64)),
        "a".repeat(60_000),
    ]) {
        for path in [POSTS[0], POSTS[1]] {
            let answer = world.post(path, json!({"email": email, "password": PASSWORD})).await;
            let answer = answer.expect_problem(422, "validation");
            assert_eq!(named(&answer), ["email"], "{email:?}");
        }
    }
    for email in [
        format!("ünïcode.{unique}"),
        format!("o'brien+tag.{unique}"),
        unique.replace("example.com", "bücher.example"),
        format!("用户.{unique}"),
    ] {
        world.post(POSTS[0], json!({"email": email, "password": PASSWORD})).await.expect(201);
        world.try_login(&email, PASSWORD, None, &world.new_address()).await.expect(200);
    }
}

async fn odd_requests(world: Arc<World>) {
    world.call(Method::GET, "/auth/v1/register", None, None).await.expect_problem(405, "method-not-allowed");
    world
        .call(Method::PUT, "/auth/v1/me", None, Some(json!({})))
        .await
        .expect_problem(405, "method-not-allowed");
    for path in [
        "/",
        "/auth",
        "/auth/v1",
        "/auth/v1/register/",
        "/metrics",
        "/health/ready",
        "/%2e%2e/etc/passwd",
        "/auth/v2/login",
    ] {
        world.call(Method::GET, path, None, None).await.expect_problem(404, "not-found");
    }
    let session = world.new_session().await;
    for value in [
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "bearer  x",
        &format!("Bearer {}x", session.access),
        &"a".repeat(7000),
    ] {
        let request =
            world.http.get(format!("{}/auth/verify", world.any_node())).header("authorization", value);
        Answer::read(request.send().await.expect("an answer")).await.expect_problem(401, "invalid-token");
    }
    let request = world.http.get(format!("{}/health", world.any_node())).header("x-request-id", "mine-1");
    assert_eq!(
        Answer::read(request.send().await.expect("an answer")).await.expect(200).header("x-request-id"),
        "mine-1"
    );
    let request = world.http.get(format!("{}/health", world.any_node())).header("x-request-id", "evil id {}");
    assert_ne!(
        Answer::read(request.send().await.expect("an answer")).await.expect(200).header("x-request-id"),
        "evil id {}"
    );
    let request = world.http.get(format!("{}/health", world.any_node())).header("x-long", "a".repeat(40_000));
    assert!(
        matches!(request.send().await.map(|r| r.status().as_u16()), Ok(431) | Err(_)),
        "headers are bounded"
    );
    world.call(Method::GET, "/health", None, None).await.expect(200);
}

async fn origins(world: Arc<World>) {
    let email = world.register().await;
    let body = json!({"email": email, "password": PASSWORD});
    let ours = world.node(1);
    for (name, value, allowed) in [
        ("origin", "https://evil.example", false),
        ("origin", "null", false),
        ("origin", ours.as_str(), true),
        ("sec-fetch-site", "cross-site", false),
        ("sec-fetch-site", "same-origin", true),
        ("sec-fetch-site", "none", true),
    ] {
        let request = world.http.post(format!("{}/auth/v1/login", world.any_node())).header(name, value);
        let answer = Answer::read(
            request
                .header("x-forwarded-for", world.new_address())
                .json(&body)
                .send()
                .await
                .expect("an answer"),
        )
        .await;
        if allowed {
            answer.expect(200);
        } else {
            answer.expect_problem(403, "forbidden");
        }
    }
}

/// Values planted into every field and header come back in no line that the nodes write (RELIABILITY S13).
async fn canaries(world: Arc<World>) {
    let canary = "canary7f3a";
    let email = format!("{canary}.{}", world.new_email());
    let body = json!({"email": email, "password": format!("pw-{canary}"), "name": format!("name {canary}")});
    world.post(POSTS[0], body.clone()).await.expect(201);
    world.post(POSTS[0], body).await.expect(409);
    let login =
        world.try_login(&email, &format!("pw-{canary}"), None, &world.new_address()).await.expect(200);
    world.try_login(&email, &format!("wrong-{canary}"), None, &world.new_address()).await.expect(401);
    world.post(POSTS[1], json!({"email": canary, "password": canary, canary: canary})).await.expect(422);
    raw(&world, POSTS[0], "application/json", format!("{{\"email\":\"{canary}").into_bytes(), None)
        .await
        .expect(400);
    let (access, refresh) = (login.str("/access_token"), login.str("/refresh_token"));
    world.refresh(&refresh, Some(&login.header("tessera-device"))).await.expect(200);
    world.refresh(&format!("tsr_{canary}"), None).await.expect(401);
    world.get(&format!("/auth/v1/{canary}"), &access).await.expect(404);
    world.get("/auth/verify", canary).await.expect(401);
    for name in ["node-1", "node-2"] {
        let log = world.cluster.logs(name).expect("a log");
        assert!(log.lines().filter(|l| l.starts_with('{')).all(|l| serde_json::from_str::<Value>(l).is_ok()));
        for secret in [canary, access.as_str(), refresh.as_str(), &login.header("tessera-device"), &email] {
            assert!(!log.contains(secret), "{name} logged {secret}");
        }
    }
    for node in [1, 2] {
        let url = format!("{}/metrics", world.cluster.ops_url(node).expect("an address"));
        let text = world.http.get(url).send().await.expect("metrics").text().await.expect("text");
        assert!(!text.contains(canary));
    }
}
