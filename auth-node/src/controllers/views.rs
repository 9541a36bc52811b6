//! The JSON shapes of answers (DESIGN: HTTP). Kept compatible under `/auth/v1` once released.
use auth_core::domain::{DisplayName, Grant, SessionSummary, User};
use axum::Json;
use axum::http::header::{CACHE_CONTROL, HeaderName};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

pub fn user(user: &User) -> Value {
    json!({
        "id": user.id.to_string(),
        "email": user.email,
        "email_verified": user.email_verified,
        "name": user.name.as_ref().map(DisplayName::as_str),
        "created_at": rfc3339(user.created_at),
    })
}

pub fn session(session: &SessionSummary, current: bool) -> Value {
    json!({
        "id": session.id.to_string(),
        "current": current,
        "ip": session.ip,
        "user_agent": session.user_agent,
        "created_at": rfc3339(session.created_at),
        "last_seen_at": rfc3339(session.last_seen_at),
        "expires_at": rfc3339(session.expires_at),
    })
}

/// RFC 6749 section 5.1: token answers are never stored.
pub fn grant(grant: Grant) -> Response {
    let body = json!({
        "access_token": grant.access_token,
        "token_type": "Bearer",
        "expires_in": grant.expires_in,
        "refresh_token": grant.refresh_token,
        "session": {
            "id": grant.session.id.to_string(),
            "auth_time": rfc3339(grant.session.auth_time),
            "expires_at": rfc3339(grant.session.expires_at),
        },
        "user": user(&grant.user),
    });
    private(Json(body))
}

/// Marks an answer as the caller's own.
pub fn private(response: impl IntoResponse) -> Response {
    const NO_STORE: [(HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];
    (NO_STORE, response).into_response()
}
