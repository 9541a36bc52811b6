//! Every route has its row: who may call it without a token, and what it says then. A new route fails here first.
use std::sync::Arc;

use reqwest::Method;
use serde_json::json;

use crate::Suite;
use crate::world::World;

/// Method, path, status without a token (and, for calls that need none, with an empty JSON object).
pub const ROUTES: &[(&str, &str, u16)] = &[
    ("POST", "/auth/v1/register", 422),
    ("POST", "/auth/v1/login", 422),
    ("POST", "/auth/v1/refresh", 422),
    ("POST", "/auth/v1/logout", 401),
    ("GET", "/auth/v1/sessions", 401),
    ("DELETE", "/auth/v1/sessions", 401),
    ("DELETE", "/auth/v1/sessions/{id}", 401),
    ("GET", "/auth/v1/me", 401),
    ("PATCH", "/auth/v1/me", 401),
    ("DELETE", "/auth/v1/me", 401),
    ("POST", "/auth/v1/me/password", 401),
    ("GET", "/auth/verify", 401),
    ("GET", "/.well-known/jwks.json", 200),
    ("GET", "/health", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/docs", 200),
    ("GET", "/docs/{file}", 200),
    ("GET", "/problems/{name}", 200),
];

/// What stands for the parameters of paths.
const PARAMETERS: [(&str, &str); 2] = [("{file}", "docs.js"), ("{name}", "validation")];

pub fn add(suite: &mut Suite) {
    suite.add("every_route_stands_in_the_unauthorised_table_and_in_openapi", table_is_whole);
    suite.add("nobody_without_a_token_gets_past_it", unauthorised);
    suite.add("the_ops_listener_answers_and_its_metrics_cover_what_was_promised", ops);
}

async fn table_is_whole(world: Arc<World>) {
    let announced = world.announced.calls();
    let source = include_str!("../../src/routes.rs");
    let public = source.split("pub fn ops").next().unwrap_or_default();
    for line in public.lines().filter(|line| line.contains(".route(")) {
        let path = line.split('"').nth(1).expect("a path");
        for method in ["get", "post", "patch", "delete", "put"] {
            if line.contains(&format!("{method}(")) {
                let row = ROUTES.iter().any(|(m, p, _)| m.eq_ignore_ascii_case(method) && *p == path);
                assert!(row, "{method} {path} has no row");
                let call = (method.to_owned(), path.to_owned());
                assert!(announced.contains(&call), "{method} {path} is not in src/openapi/table.rs");
            }
        }
    }
    for (method, path) in announced {
        let row = ROUTES.iter().any(|(m, p, _)| m.eq_ignore_ascii_case(&method) && *p == path);
        assert!(row, "{method} {path} is in OpenAPI and has no row");
    }
}

async fn unauthorised(world: Arc<World>) {
    let dead = world.new_session().await;
    world.call(Method::POST, "/auth/v1/logout", Some(&dead.access), None).await.expect(204);
    for (method, path, status) in ROUTES {
        let method: Method = method.parse().expect("a method");
        let path = PARAMETERS.iter().fold(path.replace("{id}", &dead.id), |p, (name, v)| p.replace(name, v));
        let body = (!method.is_safe()).then(|| json!({}));
        let answer = world.call(method.clone(), &path, None, body).await;
        assert_eq!(answer.status.as_u16(), *status, "{method} {path}: {:?}", answer.body);
        if *status == 401 {
            assert_eq!(answer.problem(), "invalid-token");
            assert!(answer.header("www-authenticate").starts_with("Bearer"));
            let body = match path.as_str() {
                "/auth/v1/me/password" => json!({"current": "12345678", "new": "12345678"}),
                "/auth/v1/me" if method == Method::PATCH => json!({"name": "x"}),
                _ => json!({"password": "12345678"}),
            };
            let body = (!method.is_safe()).then_some(body);
            let answer = world.call(method.clone(), &path, Some(&dead.access), body).await;
            let expected = if path == "/auth/v1/logout" { 204 } else { 401 };
            assert_eq!(
                answer.status.as_u16(),
                expected,
                "{method} {path} with a dead session: {:?}",
                answer.body
            );
        }
    }
}

async fn ops(world: Arc<World>) {
    let session = world.new_session().await;
    world.get("/auth/verify", &session.access).await.expect(200);
    for node in [1, 2] {
        let url = world.cluster.ops_url(node).expect("an address");
        let read = async |path: &str| {
            let response = world.http.get(format!("{url}{path}")).send().await.expect("an answer");
            assert_eq!(response.status(), 200, "{path}");
            response.text().await.expect("text")
        };
        read("/health/live").await;
        read("/health/ready").await;
        assert!(read("/health/dependencies").await.contains("\"shard_id\":3"));
        let odd: Method = "INVENTED7F3A".parse().expect("a method");
        let answer = world.call_at(&world.node(node), odd, "/health", None, None).await;
        answer.expect_problem(405, "method-not-allowed");
        let metrics = read("/metrics").await;
        assert!(
            !metrics.contains("INVENTED7F3A") && metrics.contains("OTHER"),
            "strangers make no metric series"
        );
        for name in [
            "tessera_http_request_seconds_bucket",
            "tessera_pool_connections",
            "tessera_shard_up",
            "tessera_replica_lag_seconds",
            "tessera_hash_waiting",
            "tessera_cache_requests_total",
            "tessera_map_version",
            "tessera_redis_breaker_state",
            "tessera_store_seconds_bucket",
        ] {
            assert!(metrics.contains(name), "node {node} shows no {name}");
        }
    }
}
