//! `Authorization: Bearer …` (RFC 6750 section 2.1; never from the query or a form).
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use auth_core::domain::Principal;
use auth_core::services::TokenSubject;

use crate::app::App;
use crate::problem::Problem;

/// A caller whose token is valid and whose session was live on its primary within the last minute.
pub struct Caller(pub Principal);

/// A caller whose token is valid. For calls whose own transaction checks the session on the primary.
pub struct Subject(pub TokenSubject);

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Ok(Self(app.authenticator.principal(token(parts)?).await?))
    }
}

impl FromRequestParts<App> for Subject {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Ok(Self(app.authenticator.subject(token(parts)?)?))
    }
}

/// Exactly one header, scheme `Bearer` in any case (RFC 9110 section 11.1), one space, one token.
fn token(parts: &Parts) -> Result<&str, Problem> {
    let mut values = parts.headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(Problem::InvalidToken) };
    let value = value.to_str().map_err(|_| Problem::InvalidToken)?;
    let (scheme, token) = value.split_once(' ').ok_or(Problem::InvalidToken)?;
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() {
        Ok(token)
    } else {
        Err(Problem::InvalidToken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn read(values: &[&str]) -> Option<String> {
        let mut request = Request::builder();
        for value in values {
            request = request.header(AUTHORIZATION, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        token(&parts).ok().map(str::to_owned)
    }

    #[test]
    fn one_bearer_header_and_nothing_else() {
        assert_eq!(read(&["Bearer abc"]), Some("abc".into()));
        assert_eq!(read(&["bEaReR abc"]), Some("abc".into()));
        for bad in
            [&[][..], &["Basic abc"], &["Bearer"], &["Bearer "], &["Bearerabc"], &["Bearer a", "Bearer a"]]
        {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
