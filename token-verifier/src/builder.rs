//! How a verifier is put together. Every limit is here, with its default.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::{Cache, Policy};
use crate::clock::{Clock, SystemClock};
use crate::source::{HttpJwks, JwksSource};
use crate::verifier::{Rules, Verifier};

/// Why a verifier cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The issuer or the audience is empty.
    #[error("issuer and audience must not be empty")]
    Empty,
    /// The key set's URL is none, or is not `http` or `https`.
    #[error("not a usable key set URL: {0}")]
    Url(String),
    /// The URL is `https` and this crate was built without its `https` feature.
    #[error("{0} needs the feature `https` of token-verifier")]
    HttpsFeature(String),
    /// Keys over plain `http` from another host: whoever sits in between chooses them.
    #[error("{0} is plain http beyond this host; use https, or allow_plain_http() inside a trusted network")]
    PlainHttp(String),
    /// The HTTP client could not be set up.
    #[error("the HTTP client could not be set up: {0}")]
    Client(String),
}

/// Settings of a [`Verifier`]; made by [`Verifier::builder`].
pub struct VerifierBuilder {
    rules: Rules,
    jwks_url: Option<String>,
    plain_http: bool,
    source: Option<Box<dyn JwksSource>>,
    clock: Arc<dyn Clock>,
    policy: Policy,
}

impl VerifierBuilder {
    pub(crate) fn new(issuer: String, audience: String) -> Self {
        Self {
            rules: Rules { issuer, audience, leeway_s: 30, max_lifetime_s: 3600 },
            jwks_url: None,
            plain_http: false,
            source: None,
            clock: Arc::new(SystemClock::new()),
            policy: Policy {
                cool_down: Duration::from_secs(30),
                stale_bound: Duration::from_secs(24 * 3600),
                min_refresh: Duration::from_secs(5),
                max_refresh: Duration::from_secs(3600),
            },
        }
    }

    /// Where the key set is. Default: `{issuer}/.well-known/jwks.json`.
    pub fn jwks_url(mut self, url: impl Into<String>) -> Self {
        self.jwks_url = Some(url.into());
        self
    }

    /// Takes keys over plain `http` from hosts other than loopback: inside a mesh that encrypts, for example.
    pub fn allow_plain_http(mut self) -> Self {
        self.plain_http = true;
        self
    }

    /// Takes keys from `source` instead of fetching a URL.
    pub fn source(mut self, source: impl JwksSource) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Reads time from `clock` instead of the machine.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// How far the issuer's clock and ours may differ. Default 30 s.
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.rules.leeway_s = leeway.as_secs();
        self
    }

    /// The longest `exp − iat` that is accepted. Default 1 h.
    pub fn max_lifetime(mut self, max_lifetime: Duration) -> Self {
        self.rules.max_lifetime_s = max_lifetime.as_secs();
        self
    }

    /// How long after a fetch an unknown `kid` causes no other. Default 30 s: the issuer publishes a key at least
    /// this much (and more) before it signs.
    pub fn cool_down(mut self, cool_down: Duration) -> Self {
        self.policy.cool_down = cool_down;
        self
    }

    /// How long the last good keys serve while the issuer cannot be reached. Default 24 h.
    pub fn stale_bound(mut self, stale_bound: Duration) -> Self {
        self.policy.stale_bound = stale_bound;
        self
    }

    /// The bounds within which `Cache-Control: max-age` is obeyed. Default 5 s to 1 h.
    pub fn refresh_between(mut self, min: Duration, max: Duration) -> Self {
        self.policy.min_refresh = min;
        self.policy.max_refresh = max.max(min);
        self
    }

    /// A verifier without keys and without background refresh: the first [`Verifier::verify_or_fetch`] fetches.
    pub fn build(self) -> Result<Verifier, BuildError> {
        if self.rules.issuer.is_empty() || self.rules.audience.is_empty() {
            return Err(BuildError::Empty);
        }
        let source = match self.source {
            Some(source) => source,
            None => {
                let issuer = self.rules.issuer.trim_end_matches('/');
                let url = self.jwks_url.unwrap_or_else(|| format!("{issuer}/.well-known/jwks.json"));
                Box::new(http_source(&url, self.plain_http)?)
            }
        };
        Ok(Verifier::new(self.rules, Cache::new(source, self.clock, self.policy)))
    }

    /// A verifier that has tried once to load the keys and goes on refreshing them in the background, on the
    /// current tokio runtime, until its last clone is dropped. An issuer that is down is no error: a service must be
    /// able to start without it. Ask [`Verifier::status`].
    pub async fn start(self) -> Result<Verifier, BuildError> {
        let verifier = self.build()?;
        verifier.start().await;
        Ok(verifier)
    }
}

impl fmt::Debug for VerifierBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifierBuilder")
            .field("rules", &self.rules)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

fn http_source(url: &str, plain_http: bool) -> Result<HttpJwks, BuildError> {
    let parsed = reqwest::Url::parse(url).map_err(|error| BuildError::Url(format!("{url}: {error}")))?;
    match parsed.scheme() {
        "https" if cfg!(feature = "https") => {}
        "https" => return Err(BuildError::HttpsFeature(url.to_owned())),
        "http" if plain_http || is_loopback(&parsed) => {}
        "http" => return Err(BuildError::PlainHttp(url.to_owned())),
        _ => return Err(BuildError::Url(url.to_owned())),
    }
    // A proxy would see, and could replace, keys that were meant not to leave this host.
    let proxied = !is_loopback(&parsed);
    HttpJwks::new(parsed, proxied).map_err(|error| BuildError::Client(error.to_string()))
}

fn is_loopback(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(issuer: &str) -> Result<Verifier, BuildError> {
        Verifier::builder(issuer, "a").build()
    }

    #[test]
    fn urls() {
        for issuer in ["http://127.0.0.1:3002", "http://[::1]:1/", "http://localhost"] {
            assert!(build(issuer).is_ok(), "{issuer}");
        }
        assert!(matches!(build("http://login.example"), Err(BuildError::PlainHttp(_))));
        assert!(matches!(build("http://127.0.0.1.example"), Err(BuildError::PlainHttp(_))));
        assert!(Verifier::builder("http://login.example", "a").allow_plain_http().build().is_ok());
        assert!(matches!(build("ftp://127.0.0.1"), Err(BuildError::Url(_))));
        assert!(matches!(build("login"), Err(BuildError::Url(_))));
        assert!(matches!(build(""), Err(BuildError::Empty)));
        let https = build("https://login.example");
        assert_eq!(https.is_ok(), cfg!(feature = "https"));
        assert!(cfg!(feature = "https") || matches!(https, Err(BuildError::HttpsFeature(_))));
    }
}
