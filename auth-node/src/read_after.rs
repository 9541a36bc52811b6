//! Hands out, with an answer, the position from which its client reads its own writes ([`trail`]).
use auth_core::domain::ReadPosition;
use auth_core::ports::trail;
use auth_input::{READ_AFTER_COOKIE, READ_AFTER_HEADER};
use axum::extract::Request;
use axum::http::header::{HeaderName, HeaderValue, SET_COOKIE};
use axum::middleware::Next;
use axum::response::Response;

/// Follows the request. Inside of whatever spawns it: a trail does not cross tasks.
pub async fn follow(request: Request, next: Next) -> Response {
    let (mut response, position) = trail::follow(next.run(request)).await;
    if let Some(position) = position.filter(|_| response.status().is_success()) {
        hand_out(position, &mut response);
    }
    response
}

/// A browser keeps the cookie until it is closed, anything else the header.
fn hand_out(position: ReadPosition, response: &mut Response) {
    let text = position.to_string();
    let cookie = format!("{READ_AFTER_COOKIE}={text}; Path=/; Secure; HttpOnly; SameSite=Lax");
    let value = |text: &str| HeaderValue::from_str(text).expect("base64url is a header value");
    response.headers_mut().insert(HeaderName::from_static(READ_AFTER_HEADER), value(&text));
    response.headers_mut().append(SET_COOKIE, value(&cookie));
}
