//! The caller, by the token of `Authorization: Bearer …`.
use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use auth_core::domain::Principal;
use auth_core::services::{AuthError, TokenSubject};

use super::client::client_address;
use crate::app::App;
use crate::problem::Problem;

/// A caller whose token is valid and whose session was live on its primary within the last minute.
pub struct Caller(pub Principal);

/// A caller as a gateway asks about them. Who has no token is told so however often: a limit on a site's anonymous
/// visitors would be the gateway's error page.
pub struct Visitor(pub Principal);

/// A caller whose token is valid. For calls whose own transaction checks the session on the primary.
pub struct Subject(pub TokenSubject);

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        match principal(parts, app).await {
            Ok(principal) => Ok(Self(principal)),
            Err(error) => Err(refused(error, parts, app).await),
        }
    }
}

impl FromRequestParts<App> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Ok(Self(principal(parts, app).await?))
    }
}

impl FromRequestParts<App> for Subject {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        match token(parts).and_then(|token| app.authenticator.subject(token)) {
            Ok(subject) => Ok(Self(subject)),
            Err(error) => Err(refused(error, parts, app).await),
        }
    }
}

async fn principal(parts: &Parts, app: &App) -> Result<Principal, AuthError> {
    app.authenticator.principal(token(parts)?).await
}

/// No token, or none that we signed, is an unauthenticated call: it counts against its address.
async fn refused(error: AuthError, parts: &Parts, app: &App) -> Problem {
    match error {
        AuthError::NotOurs => match app.throttle.stranger(client_address(parts, app)).await {
            Ok(()) => error.into(),
            Err(limited) => limited.into(),
        },
        AuthError::InvalidToken | AuthError::Store(_) => error.into(),
    }
}

fn token(parts: &Parts) -> Result<&str, AuthError> {
    auth_input::bearer(&parts.headers).ok_or(AuthError::NotOurs)
}
