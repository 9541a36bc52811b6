//! The tower layer in front of an axum router.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use axum::routing::get;
use axum::{Extension, Router};
use common::*;
use serde_json::Value;
use token_verifier::{Claims, Verifier, VerifyLayer};
use tower::ServiceExt as _;

fn app(verifier: Verifier) -> Router {
    Router::new()
        .route("/who", get(|Extension(claims): Extension<Claims>| async move { claims.sub.to_string() }))
        .layer(VerifyLayer::new(verifier))
}

async fn ask(app: &Router, authorization: &[&[u8]]) -> Response<Body> {
    let mut request = Request::get("/who").body(Body::empty()).unwrap();
    for value in authorization {
        request.headers_mut().append(header::AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
    }
    app.clone().oneshot(request).await.unwrap()
}

async fn problem(response: Response<Body>) -> (u16, Option<String>, Value) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    let challenge = response.headers().get(header::WWW_AUTHENTICATE).map(|v| v.to_str().unwrap().to_owned());
    let body: Value = serde_json::from_slice(&to_bytes(response.into_body(), 4096).await.unwrap()).unwrap();
    assert_eq!(body["status"], status);
    (status, challenge, body)
}

#[tokio::test]
async fn answers() {
    let app = app(loaded(&TestClock::new(), &[(KID, &key(1))]).await);
    let good = token(KID, &key(1));
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let response = ask(&app, &[format!("{scheme} {good}").as_bytes()]).await;
        assert_eq!(response.status(), StatusCode::OK);
        let body = to_bytes(response.into_body(), 100).await.unwrap();
        assert_eq!(body, "01890a5d-ac96-8b2c-8000-0123456789ab");
    }
    assert_eq!(problem(ask(&app, &[]).await).await.1.as_deref(), Some("Bearer"));
    for none in [&b"Basic YTpi"[..], good.as_bytes(), b"Bearer", b"Bearer \xff\xfe"] {
        let (status, challenge, body) = problem(ask(&app, &[none]).await).await;
        assert_eq!((status, challenge.as_deref()), (401, Some("Bearer")));
        assert_eq!(body["type"], format!("{ISSUER}/problems/invalid-token"));
    }
    let (status, challenge, body) = problem(ask(&app, &[format!("Bearer {good}x").as_bytes()]).await).await;
    assert_eq!(status, 401);
    assert!(challenge.unwrap().starts_with(r#"Bearer error="invalid_token", error_description=""#));
    assert_eq!(body["detail"], "the token signature is wrong");
    let bearer = format!("Bearer {good}");
    let (status, challenge, _) = problem(ask(&app, &[bearer.as_bytes(), bearer.as_bytes()]).await).await;
    assert_eq!((status, challenge.as_deref()), (400, Some(r#"Bearer error="invalid_request""#)));
}

#[tokio::test]
async fn an_outage_is_never_a_verdict() {
    let clock = TestClock::new();
    let server = KeyServer::start(jwks(&[(KID, &key(1))])).await;
    server.reply(StatusCode::BAD_GATEWAY, "");
    let app = app(server.builder(&clock).build().unwrap());
    let bearer = format!("Bearer {}", token(KID, &key(1)));
    let response = ask(&app, &[bearer.as_bytes()]).await;
    let seconds: u64 = response.headers()[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=5).contains(&seconds));
    let (status, challenge, body) = problem(response).await;
    assert_eq!((status, challenge), (503, None));
    assert_eq!(body["type"], format!("{ISSUER}/problems/unavailable"));
}
