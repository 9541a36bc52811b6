//! `Authorization: Bearer …` (RFC 6750 section 2.1; never from the query or a form).
use http::HeaderMap;
use http::header::AUTHORIZATION;

/// The token of exactly one header: scheme `Bearer` in any case (RFC 9110 section 11.1), one space, one token.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        bearer(&headers).map(str::to_owned)
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
