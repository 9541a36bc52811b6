//! Hands out, with an answer, the position from which its client reads its own writes ([`trail`]).
use auth_core::domain::ReadPosition;
use auth_core::ports::trail;
use auth_input::{READ_AFTER_COOKIE, READ_AFTER_HEADER, read_after};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{HeaderName, HeaderValue, SET_COOKIE};
use axum::middleware::Next;
use axum::response::Response;

/// Follows the request. Inside of whatever spawns it: a trail does not cross tasks.
pub async fn follow(request: Request, next: Next) -> Response {
    let (reads, sent) = (request.method().is_safe(), read_after(request.headers()));
    let (mut response, found) = trail::follow(next.run(request)).await;
    // What is gone may have been ended by a call whose answer was lost.
    let tells = response.status().is_success() || response.status() == StatusCode::NOT_FOUND;
    if let Some(position) = found.filter(|found| tells && is_news(*found, reads, sent)) {
        hand_out(position, &mut response);
    }
    response
}

/// A read changes nothing: who has a position in that log keeps it. Else the answer to a read that was overtaken by a write
/// would take the write's position away from a browser.
fn is_news(found: ReadPosition, reads: bool, sent: Option<ReadPosition>) -> bool {
    !(reads && sent.is_some_and(|sent| sent.is_in_log_of(found)))
}

/// A browser keeps the cookie until it is closed, anything else the header.
fn hand_out(position: ReadPosition, response: &mut Response) {
    let text = position.to_string();
    let cookie = format!("{READ_AFTER_COOKIE}={text}; Path=/; Secure; HttpOnly; SameSite=Lax");
    let value = |text: &str| HeaderValue::from_str(text).expect("base64url is a header value");
    response.headers_mut().insert(HeaderName::from_static(READ_AFTER_HEADER), value(&text));
    response.headers_mut().append(SET_COOKIE, value(&cookie));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_takes_no_position_away() {
        let at = |shard, lsn| ReadPosition { shard, timeline: 1, lsn };
        assert!(is_news(at(1, 5), true, None));
        assert!(!is_news(at(1, 5), true, Some(at(1, 4))), "a write may have overtaken it");
        assert!(is_news(at(1, 5), false, Some(at(1, 4))));
        assert!(is_news(at(2, 5), true, Some(at(1, 4))), "the bucket has moved");
        assert!(is_news(at(1, 5), true, Some(ReadPosition::NOWHERE)));
    }
}
