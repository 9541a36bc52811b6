//! RFC 9457 problem documents: every refusal that a client can meet, in one place.
//!
//! Nothing internal can get in here: a problem carries its kind, the fields at fault, a wait and perhaps the id of a trace, no
//! text from below.
use auth_core::domain::Standing;
use auth_input::{BadBody, FieldError};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::time::Duration;

use crate::limits::{tell, whole_seconds};

/// The kinds of NAMES.md, with what each needs to say.
#[derive(Debug, PartialEq, Eq)]
pub enum Problem {
    InvalidCredentials,
    InvalidToken,
    InvalidRefreshToken,
    EmailTaken,
    Validation(Vec<FieldError>),
    Malformed(&'static str),
    PayloadTooLarge,
    UnsupportedMediaType,
    RateLimited(Duration),
    Limited(Standing),
    Overloaded,
    Unavailable,
    NotFound,
    MethodNotAllowed,
    Misdirected,
    Forbidden(&'static str),
    IdempotencyMismatch,
    IdempotencyRunning,
    Internal,
}

impl From<BadBody> for Problem {
    fn from(bad: BadBody) -> Self {
        match bad {
            BadBody::Malformed(detail) => Self::Malformed(detail),
            BadBody::Fields(errors) => Self::Validation(errors),
        }
    }
}

impl Problem {
    /// Status, name and title.
    pub fn parts(&self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::InvalidCredentials => {
                (S::UNAUTHORIZED, "invalid-credentials", "The e-mail or the password is wrong.")
            }
            Self::InvalidToken => (
                S::UNAUTHORIZED,
                "invalid-token",
                "The access token is missing, invalid or its session is over.",
            ),
            Self::InvalidRefreshToken => {
                (S::UNAUTHORIZED, "invalid-refresh-token", "The refresh token is not valid; log in again.")
            }
            Self::EmailTaken => (S::CONFLICT, "email-taken", "This e-mail address cannot be registered."),
            Self::Validation(_) => (S::UNPROCESSABLE_ENTITY, "validation", "Some fields are not acceptable."),
            Self::Malformed(_) => (S::BAD_REQUEST, "malformed", "The request cannot be read."),
            Self::PayloadTooLarge => {
                (S::PAYLOAD_TOO_LARGE, "payload-too-large", "The request body is too large.")
            }
            Self::UnsupportedMediaType => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body must be application/json.")
            }
            Self::RateLimited(_) | Self::Limited(_) => {
                (S::TOO_MANY_REQUESTS, "rate-limited", "Too many attempts; wait and try again.")
            }
            Self::Overloaded => (S::SERVICE_UNAVAILABLE, "overloaded", "Too busy now; try again."),
            Self::Unavailable => (
                S::SERVICE_UNAVAILABLE,
                "unavailable",
                "A part of the service is not available now; try again.",
            ),
            Self::NotFound => (S::NOT_FOUND, "not-found", "There is nothing here."),
            Self::MethodNotAllowed => {
                (S::METHOD_NOT_ALLOWED, "method-not-allowed", "This address does not take that method.")
            }
            Self::Misdirected => {
                (S::MISDIRECTED_REQUEST, "misdirected", "This service does not answer under that host name.")
            }
            Self::Forbidden(_) => (S::FORBIDDEN, "forbidden", "This request is not allowed."),
            Self::IdempotencyMismatch => (
                S::UNPROCESSABLE_ENTITY,
                "idempotency-mismatch",
                "The Idempotency-Key was used for another request.",
            ),
            Self::IdempotencyRunning => (
                S::CONFLICT,
                "idempotency-running",
                "The first request with this Idempotency-Key is still running.",
            ),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "Something went wrong on our side."),
        }
    }

    /// Full jitter over 1–5 s, so that turned-away clients do not come back together.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::RateLimited(wait) => Some(whole_seconds(*wait)),
            Self::Limited(standing) => Some(whole_seconds(standing.more_in)),
            Self::Overloaded | Self::Unavailable | Self::IdempotencyRunning => {
                Some(rand::random_range(1..=5))
            }
            _ => None,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, name, title) = self.parts();
        let mut body =
            json!({ "type": crate::problem::type_url(name), "title": title, "status": status.as_u16() });
        if let Some(trace) = crate::traces::current_id() {
            body["trace_id"] = trace.into();
        }
        match &self {
            Self::Validation(errors) => {
                let list: Vec<_> =
                    errors.iter().map(|e| json!({ "field": e.field, "reason": e.reason })).collect();
                body["errors"] = list.into();
            }
            Self::Malformed(detail) | Self::Forbidden(detail) => body["detail"] = (*detail).into(),
            _ => {}
        }
        let mut response = (status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Self::Limited(standing) = &self {
            tell(standing, headers);
        }
        if matches!(self, Self::InvalidToken) {
            // RFC 6750 section 3.
            headers
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""));
        }
        response
    }
}

static BASE: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// Sets the base of problem types, once, from `server.public_url`.
pub fn set_base(public_url: &str) {
    let _ = BASE.set(public_url.to_owned());
}

fn type_url(name: &str) -> String {
    format!("{}/problems/{name}", BASE.get().map_or("", String::as_str))
}
