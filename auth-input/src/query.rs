//! `?consistency=eventual`: the caller says that an answer of up to a second ago will do, so a replica may give it.
use auth_core::ports::Freshness;

use crate::FieldError;

/// How fresh the caller wants the answer; the primary unless they say otherwise.
///
/// # Errors
/// What the parameter must be.
pub fn consistency(query: Option<&str>) -> Result<Freshness, FieldError> {
    match query {
        None | Some("" | "consistency=strong") => Ok(Freshness::Primary),
        Some("consistency=eventual") => Ok(Freshness::ReplicaAllowed),
        Some(_) => {
            Err(FieldError::new("consistency", "must be `strong` or `eventual`, and the only parameter"))
        }
    }
}
