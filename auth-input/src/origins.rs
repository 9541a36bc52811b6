//! `Origin` and `Sec-Fetch-Site`: whose page sends a request.
use http::header::ORIGIN;
use http::{HeaderMap, HeaderName, HeaderValue};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The origins whose pages may call and read.
pub struct Origins(Vec<String>);

impl Origins {
    /// Each as browsers write it: scheme, host and port, without a path.
    pub fn new<'a>(origins: impl IntoIterator<Item = &'a str>) -> Self {
        Self(origins.into_iter().map(str::to_owned).collect())
    }

    /// Whether the origin is listed, byte for byte.
    pub fn knows(&self, origin: &HeaderValue) -> bool {
        self.0.iter().any(|known| known.as_bytes() == origin.as_bytes())
    }

    /// Whether an unsafe call may come from here: nobody's page, or a page of a listed origin.
    pub fn may_write(&self, headers: &HeaderMap) -> bool {
        let origin_ok = headers.get(ORIGIN).is_none_or(|origin| self.knows(origin));
        let site = headers.get(SEC_FETCH_SITE).map(|site| site.to_str().unwrap_or("?"));
        // A listed origin may be another site; then Origin has spoken.
        let site_ok = site.is_none_or(|site| matches!(site, "same-origin" | "same-site" | "none"))
            || (origin_ok && headers.contains_key(ORIGIN));
        origin_ok && site_ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_pages_may_not_write() {
        let origins = Origins::new(["https://app.example"]);
        for (origin, site, allowed) in [
            (None, None, true),
            (None, Some("none"), true),
            (None, Some("same-site"), true),
            (None, Some("cross-site"), false),
            (None, Some("CROSS-SITE"), false),
            (Some("https://app.example"), Some("cross-site"), true),
            (Some("https://app.example"), None, true),
            (Some("https://app.example:443"), None, false),
            (Some("HTTPS://app.example"), None, false),
            (Some("null"), Some("same-origin"), false),
            (Some(""), None, false),
        ] {
            let mut headers = HeaderMap::new();
            origin.into_iter().for_each(|origin| drop(headers.insert(ORIGIN, origin.parse().unwrap())));
            site.into_iter().for_each(|site| drop(headers.insert(SEC_FETCH_SITE, site.parse().unwrap())));
            assert_eq!(origins.may_write(&headers), allowed, "{origin:?} {site:?}");
        }
    }
}
