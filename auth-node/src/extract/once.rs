//! `Idempotency-Key`.
use auth_core::services::OnceKey;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::app::App;
use crate::problem::Problem;

/// The key, where one was sent.
pub struct IdempotencyKey(pub Option<OnceKey>);

impl FromRequestParts<App> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        auth_input::idempotency_key(&parts.headers)
            .map(Self)
            .map_err(|fault| Problem::Validation(vec![fault]))
    }
}
