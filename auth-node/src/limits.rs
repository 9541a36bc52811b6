//! Limits at the edge: who is counted before anything of a call is read, and what the client is told.
//!
//! `RateLimit` and `RateLimit-Policy` are structured fields (draft-ietf-httpapi-ratelimit-headers, RFC 9651): `q` tries
//! in `w` seconds; `r` are left, and in `t` seconds there are more. `Retry-After` comes with 429 and wins over them.
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use auth_core::domain::{Limited, Standing};

use crate::app::App;
use crate::extract::Client;
use crate::problem::Problem;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Around each call that needs no token: counted for the address, before its body is read.
pub async fn open_call(
    State(app): State<App>,
    Client(client): Client,
    request: Request,
    next: Next,
) -> Response {
    match app.throttle.open_call(client.address).await {
        Ok(standing) => {
            let mut response = next.run(request).await;
            if let Some(standing) = standing {
                tell(&standing, response.headers_mut());
            }
            response
        }
        Err(limited) => Problem::from(limited).into_response(),
    }
}

impl From<Limited> for Problem {
    fn from(Limited(standing): Limited) -> Self {
        Self::Limited(standing)
    }
}

/// Says where the client stands.
pub fn tell(standing: &Standing, headers: &mut HeaderMap) {
    let Standing { rule, left, more_in, .. } = standing;
    let policy = format!("\"{}\";q={};w={}", rule.name, rule.limit, rule.window.as_secs());
    let now = format!("\"{}\";r={left};t={}", rule.name, whole_seconds(*more_in));
    for (name, value) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, now)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
}

/// Rounded up: who waits that long has waited long enough.
pub fn whole_seconds(wait: std::time::Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use auth_core::domain::LimitRule;
    use std::time::Duration;

    #[test]
    fn the_fields_are_structured_and_times_are_rounded_up() {
        let rule = LimitRule { name: "address", limit: 100, window: Duration::from_secs(900) };
        let more_in = Duration::from_millis(58_001);
        let response = Problem::Limited(Standing { rule, granted: false, left: 0, more_in }).into_response();
        assert_eq!(response.status(), 429);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("ratelimit-policy"), "\"address\";q=100;w=900");
        assert_eq!(header("ratelimit"), "\"address\";r=0;t=59");
        assert_eq!(header("retry-after"), "59");
        assert_eq!(whole_seconds(Duration::ZERO), 1);
    }
}
