//! Health: terse in public, in full on the ops listener. Readiness never depends on one shared database.
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::app::App;

/// For whoever sends traffic here: not while the node drains, or cannot do its work.
pub async fn public(State(app): State<App>) -> (StatusCode, Json<Value>) {
    match app.not_ready() {
        None => (StatusCode::OK, Json(json!({ "status": "ok" }))),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "not ready" }))),
    }
}

pub async fn live() -> Json<Value> {
    Json(json!({ "status": "live" }))
}

/// Ready: not draining, a map in memory, a key that signs. Not: this or that database answers.
pub async fn ready(State(app): State<App>) -> (StatusCode, Json<Value>) {
    let reason = app.not_ready();
    let status = if reason.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (
        status,
        Json(json!({ "status": if reason.is_none() { "ready" } else { "not ready" }, "reason": reason })),
    )
}

pub async fn dependencies(State(app): State<App>) -> Json<Value> {
    Json(app.dependencies())
}
