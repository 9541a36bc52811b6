//! How fresh the caller wants an answer: `?consistency=`, `Tessera-Read-After` and its cookie.
use auth_core::ports::Freshness;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::app::App;
use crate::problem::Problem;

/// How fresh the answer must be.
pub struct Consistency(pub Freshness);

impl FromRequestParts<App> for Consistency {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let wanted = auth_input::consistency(parts.uri.query(), &parts.headers);
        wanted.map(Self).map_err(|fault| Problem::Validation(vec![fault]))
    }
}
