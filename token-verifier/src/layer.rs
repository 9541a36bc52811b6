//! A tower layer: `Authorization: Bearer …` in, [`Claims`] in the request's extensions, or an RFC 9457 problem out.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tower::{Layer, Service};

use crate::error::VerifyError;
use crate::verifier::Verifier;
#[cfg(doc)]
use crate::{Claims, InvalidToken};

/// Lets only requests with a good access token through. They carry [`Claims`] in their extensions (in axum:
/// `Extension<Claims>`). The others are answered here:
///
/// * no bearer token: 401 and `WWW-Authenticate: Bearer`, without an error code (RFC 6750 section 3.1);
/// * more than one `Authorization` header: 400, `error="invalid_request"`;
/// * a bad token: 401, `error="invalid_token"`, with the text of [`InvalidToken`];
/// * keys missing: 503 and `Retry-After` of 1 to 5 s.
///
/// Works with every response body that can be made from a `String`, axum's among them.
#[derive(Debug, Clone)]
pub struct VerifyLayer {
    verifier: Verifier,
}

impl VerifyLayer {
    /// A layer that asks `verifier`.
    pub fn new(verifier: Verifier) -> Self {
        Self { verifier }
    }
}

impl<S> Layer<S> for VerifyLayer {
    type Service = VerifyService<S>;

    fn layer(&self, inner: S) -> VerifyService<S> {
        VerifyService { inner, verifier: self.verifier.clone() }
    }
}

/// The service that [`VerifyLayer`] makes.
#[derive(Debug, Clone)]
pub struct VerifyService<S> {
    inner: S,
    verifier: Verifier,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for VerifyService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    ReqBody: Send + 'static,
    ResBody: From<String>,
{
    type Response = Response<ResBody>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        // The clone stays behind; the service that was polled ready is the one to call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let verifier = self.verifier.clone();
        Box::pin(async move {
            let verdict = match bearer(request.headers()) {
                Ok(token) => verifier.verify_or_fetch(token).await.map_err(Refusal::from),
                Err(refusal) => Err(refusal),
            };
            match verdict {
                Ok(claims) => {
                    request.extensions_mut().insert(claims);
                    inner.call(request).await
                }
                Err(refusal) => Ok(refusal.respond(verifier.issuer())),
            }
        })
    }
}

enum Refusal {
    NoToken,
    TwoHeaders,
    Verdict(VerifyError),
}

impl From<VerifyError> for Refusal {
    fn from(error: VerifyError) -> Self {
        Self::Verdict(error)
    }
}

impl Refusal {
    fn respond<B: From<String>>(&self, issuer: &str) -> Response<B> {
        let (status, name, title, detail) = match self {
            Self::NoToken => (
                StatusCode::UNAUTHORIZED,
                "invalid-token",
                "An access token is needed",
                "no bearer token".to_owned(),
            ),
            Self::TwoHeaders => (
                StatusCode::BAD_REQUEST,
                "malformed",
                "Malformed request",
                "more than one Authorization header".to_owned(),
            ),
            Self::Verdict(VerifyError::Invalid(reason)) => (
                StatusCode::UNAUTHORIZED,
                "invalid-token",
                "The access token is not valid",
                reason.to_string(),
            ),
            Self::Verdict(VerifyError::CannotDecide(reason)) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "Tokens cannot be verified now",
                reason.to_string(),
            ),
        };
        let issuer = issuer.trim_end_matches('/');
        let problem = serde_json::json!({
            "type": format!("{issuer}/problems/{name}"),
            "title": title,
            "status": status.as_u16(),
            "detail": detail,
        });
        let mut response = Response::new(B::from(problem.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = self.challenge() {
            headers.insert(WWW_AUTHENTICATE, challenge);
        } else {
            let seconds = 1 + RandomState::new().hash_one(name) % 5;
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    fn challenge(&self) -> Option<HeaderValue> {
        match self {
            Self::NoToken => Some(HeaderValue::from_static("Bearer")),
            Self::TwoHeaders => Some(HeaderValue::from_static(r#"Bearer error="invalid_request""#)),
            Self::Verdict(VerifyError::Invalid(reason)) => {
                let text = format!(r#"Bearer error="invalid_token", error_description="{reason}""#);
                Some(
                    HeaderValue::from_str(&text)
                        .unwrap_or(HeaderValue::from_static(r#"Bearer error="invalid_token""#)),
                )
            }
            Self::Verdict(VerifyError::CannotDecide(_)) => None,
        }
    }
}

/// The token of `Authorization: Bearer token` (RFC 6750 section 2.1; the scheme's name knows no case). Tokens in
/// the query or the body are not looked for.
fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Refusal::NoToken)?;
    if values.next().is_some() {
        return Err(Refusal::TwoHeaders);
    }
    let (scheme, token) =
        value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(Refusal::NoToken)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refusal::NoToken);
    }
    Ok(token.trim_matches(' '))
}
