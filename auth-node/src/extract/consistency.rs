//! `?consistency=eventual`.
use auth_core::ports::Freshness;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::app::App;
use crate::problem::Problem;

/// How fresh the caller wants the answer; the primary unless they say otherwise.
pub struct Consistency(pub Freshness);

impl FromRequestParts<App> for Consistency {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        auth_input::consistency(parts.uri.query()).map(Self).map_err(|fault| Problem::Validation(vec![fault]))
    }
}
