//! `?consistency=eventual`: the caller says that an answer of up to a second ago will do, so a replica may give it.
use auth_core::ports::Freshness;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::app::App;
use crate::problem::{FieldError, Problem};

/// How fresh the caller wants the answer; the primary unless they say otherwise.
pub struct Consistency(pub Freshness);

impl FromRequestParts<App> for Consistency {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        match parts.uri.query() {
            None | Some("" | "consistency=strong") => Ok(Self(Freshness::Primary)),
            Some("consistency=eventual") => Ok(Self(Freshness::ReplicaAllowed)),
            Some(_) => {
                let reason = "must be `strong` or `eventual`, and the only parameter";
                Err(Problem::Validation(vec![FieldError::new("consistency", reason)]))
            }
        }
    }
}
