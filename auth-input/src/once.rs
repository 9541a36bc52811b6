//! `Idempotency-Key`.
use auth_core::services::OnceKey;
use http::HeaderMap;

use crate::FieldError;

/// The key, where one was sent. Two are none that anybody could mean.
///
/// # Errors
/// What the header must be.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<OnceKey>, FieldError> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().ok().and_then(OnceKey::parse).filter(|_| values.next().is_none());
    let refused = || FieldError::new("Idempotency-Key", "must be 1 to 255 visible ASCII characters, once");
    key.map(Some).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<Option<OnceKey>, FieldError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("idempotency-key", value.parse().unwrap());
        }
        idempotency_key(&headers)
    }

    #[test]
    fn one_key_or_none() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["k-1"]), Ok(OnceKey::parse("k-1")));
        for bad in [&[""][..], &["a b"], &["k", "k"], &["k", "other"], &["é"]] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
