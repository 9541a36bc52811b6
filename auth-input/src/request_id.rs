//! `X-Request-Id`: the name that a caller gives a request.
use http::{HeaderMap, HeaderValue};

/// The caller's id, if it is harmless in a log: 1 to 64 letters, digits, `-`, `_` and `.`.
pub fn request_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get("x-request-id").filter(|value| {
        let bytes = value.as_bytes();
        (1..=64).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
    })
}
