//! Where key sets come from: a small trait, and its everyday implementation over HTTP.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http::header::{ACCEPT, CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};

use crate::jwk::MAX_BODY_BYTES;

/// The whole of one fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Its TCP (and TLS) handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What a [`JwksSource`] answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The set behind the presented ETag is still the current one.
    NotModified {
        /// `Cache-Control: max-age`, if the answer has one.
        max_age: Option<Duration>,
    },
    /// A key set, not yet checked.
    Body {
        /// The JSON text; more than 64 KiB are refused.
        bytes: Vec<u8>,
        /// The ETag to present next time.
        etag: Option<String>,
        /// `Cache-Control: max-age`, if the answer has one.
        max_age: Option<Duration>,
    },
}

/// Why a fetch brought nothing. The text goes to [`crate::KeyStatus::last_error`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(String);

impl FetchError {
    /// An error with a text for whoever runs the service.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// The future that [`JwksSource::fetch`] returns.
pub type FetchFuture<'a> = Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + Send + 'a>>;

/// Something that can bring the issuer's key set: HTTP, a file, a test. At most one `fetch` runs at a time, and a
/// fetch that takes longer than 10 s is given up.
pub trait JwksSource: Send + Sync + 'static {
    /// Brings the set; `etag` is that of the last one taken, for a conditional request.
    fn fetch<'a>(&'a self, etag: Option<&'a str>) -> FetchFuture<'a>;
}

/// Fetches from a URL with a conditional GET. Follows no redirect: the place that keys come from is configured.
pub(crate) struct HttpJwks {
    client: reqwest::Client,
    url: reqwest::Url,
}

impl HttpJwks {
    /// `proxied`: whether `HTTP_PROXY` and its kin apply.
    pub(crate) fn new(url: reqwest::Url, proxied: bool) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(FETCH_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("tessera-token-verifier/", env!("CARGO_PKG_VERSION")));
        let client = if proxied { client } else { client.no_proxy() }.build()?;
        Ok(Self { client, url })
    }

    async fn get(&self, etag: Option<&str>) -> Result<Fetched, FetchError> {
        let mut request = self.client.get(self.url.clone()).header(ACCEPT, "application/json");
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let mut response = request.send().await.map_err(|error| FetchError::new(chain(&error)))?;
        let max_age = max_age(response.headers());
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED => return Ok(Fetched::NotModified { max_age }),
            status => return Err(FetchError::new(format!("the key set answered {status}"))),
        }
        let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| FetchError::new(chain(&error)))? {
            if bytes.len() + chunk.len() > MAX_BODY_BYTES {
                return Err(FetchError::new("the key set is too large"));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Fetched::Body { bytes, etag, max_age })
    }
}

impl JwksSource for HttpJwks {
    fn fetch<'a>(&'a self, etag: Option<&'a str>) -> FetchFuture<'a> {
        Box::pin(self.get(etag))
    }
}

/// An error with its causes: reqwest's own text says only that something failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// `max-age` of `Cache-Control` (RFC 9111 section 5.2.2.1); zero if the answer must not be stored.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let mut found = None;
    for value in headers.get_all(CACHE_CONTROL) {
        for directive in value.to_str().ok()?.split(',') {
            let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-store" | "no-cache" => return Some(Duration::ZERO),
                "max-age" => found = argument.trim().trim_matches('"').parse().ok().map(Duration::from_secs),
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_control() {
        for (value, want) in [
            ("public, max-age=300, stale-if-error=86400", Some(300)),
            ("Max-Age=\"7\"", Some(7)),
            ("max-age=10, no-cache", Some(0)),
            ("no-store", Some(0)),
            ("max-age=-1", None),
            ("max-age", None),
            ("public", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, value.parse().unwrap());
            assert_eq!(max_age(&headers), want.map(Duration::from_secs), "{value}");
        }
    }
}
