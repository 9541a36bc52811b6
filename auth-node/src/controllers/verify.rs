//! `GET /auth/verify`: forward auth for gateways. 200 with the caller in headers, 401, or 503 when unsure.
use axum::http::{HeaderMap, HeaderValue, StatusCode};

use crate::extract::Visitor;
use crate::problem::Problem;

pub async fn show(Visitor(caller): Visitor) -> Result<(StatusCode, HeaderMap), Problem> {
    let mut headers = HeaderMap::with_capacity(4);
    let roles = Some(caller.roles.join(",")).filter(|roles| !roles.is_empty());
    for (name, value) in [
        ("x-auth-subject", Some(caller.user_id.to_string())),
        ("x-auth-session", Some(caller.session_id.to_string())),
        ("x-auth-roles", roles),
    ] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert(name, value);
        }
    }
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    Ok((StatusCode::OK, headers))
}
