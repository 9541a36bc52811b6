//! `Idempotency-Key`.
use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use auth_core::services::OnceKey;

use crate::app::App;
use crate::problem::{FieldError, Problem};

/// The key, where one was sent.
pub struct IdempotencyKey(pub Option<OnceKey>);

impl FromRequestParts<App> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get("idempotency-key") else { return Ok(Self(None)) };
        let key = value.to_str().ok().and_then(OnceKey::parse);
        let refused = || FieldError::new("Idempotency-Key", "must be 1 to 255 visible ASCII characters");
        key.map(|key| Self(Some(key))).ok_or_else(|| Problem::Validation(vec![refused()]))
    }
}
