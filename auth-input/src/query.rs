//! How fresh an answer must be: `?consistency=`, and the position that an earlier answer gave.
use auth_core::domain::ReadPosition;
use auth_core::ports::Freshness;
use http::HeaderMap;

use crate::FieldError;
use crate::cookies::cookie;

/// Where a client that is no browser sends the position that it was given.
pub const READ_AFTER_HEADER: &str = "tessera-read-after";
/// Where a browser keeps it.
pub const READ_AFTER_COOKIE: &str = "__Host-tessera-read-after";

/// What the query says; else a replica that has everything up to the caller's position; else the primary.
///
/// # Errors
/// What the parameter must be.
pub fn consistency(query: Option<&str>, headers: &HeaderMap) -> Result<Freshness, FieldError> {
    match query {
        None | Some("") => Ok(read_after(headers).map_or(Freshness::Primary, Freshness::After)),
        Some("consistency=strong") => Ok(Freshness::Primary),
        Some("consistency=eventual") => Ok(Freshness::ReplicaAllowed),
        Some(_) => {
            Err(FieldError::new("consistency", "must be `strong` or `eventual`, and the only parameter"))
        }
    }
}

/// The header's, else the cookie's. One that we did not give is none: then the primary answers.
pub fn read_after(headers: &HeaderMap) -> Option<ReadPosition> {
    let text = match headers.get(READ_AFTER_HEADER) {
        Some(value) => value.to_str().ok()?,
        None => cookie(headers, READ_AFTER_COOKIE)?,
    };
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, header};

    const TEXT: &str = "AQADAAAAAgAAABazdNhI";
    const POSITION: Freshness = Freshness::After(ReadPosition { shard: 3, timeline: 2, lsn: 0x16_B374_D848 });

    fn read(query: Option<&str>, header: &str, cookie: &str) -> Freshness {
        let mut headers = HeaderMap::new();
        for (name, value) in [(READ_AFTER_HEADER, header), (header::COOKIE.as_str(), cookie)] {
            if !value.is_empty() {
                headers
                    .insert(http::HeaderName::from_static(name), HeaderValue::from_str(value).expect("text"));
            }
        }
        consistency(query, &headers).expect("a good query")
    }

    #[test]
    fn a_position_comes_from_the_header_or_the_cookie() {
        let cookie = format!("a=b; {READ_AFTER_COOKIE}={TEXT}");
        assert_eq!(read(None, "", ""), Freshness::Primary);
        assert_eq!(read(None, TEXT, ""), POSITION);
        assert_eq!(read(Some(""), "", &cookie), POSITION);
        assert_eq!(read(None, "AQAB", &cookie), Freshness::Primary, "a header that we did not give");
    }

    #[test]
    fn the_query_has_the_last_word() {
        assert_eq!(read(Some("consistency=strong"), TEXT, ""), Freshness::Primary);
        assert_eq!(read(Some("consistency=eventual"), TEXT, ""), Freshness::ReplicaAllowed);
        for bad in ["consistency=maybe", "consistency=strong&a=b", "a"] {
            assert!(consistency(Some(bad), &HeaderMap::new()).is_err(), "{bad}");
        }
    }
}
