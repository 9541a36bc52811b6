//! `GET /.well-known/jwks.json` (RFC 7517): one precomputed body.
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::app::App;

pub async fn show(State(app): State<App>, headers: HeaderMap) -> Response {
    let jwks = std::sync::Arc::clone(&app.keys.current().jwks);
    let tags = [(ETAG, jwks.etag.clone()), (CACHE_CONTROL, app.jwks_cache_control.clone())];
    let known = headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == jwks.etag) {
        return (StatusCode::NOT_MODIFIED, tags).into_response();
    }
    (tags, [(CONTENT_TYPE, "application/jwk-set+json")], jwks.body.clone()).into_response()
}
