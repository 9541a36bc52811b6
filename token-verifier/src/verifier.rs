//! The one thing this crate does: token in, claims or a reason out.

use std::fmt;
use std::sync::{Arc, OnceLock};

use ed25519_dalek::Signature;

use crate::base64url;
use crate::builder::VerifierBuilder;
use crate::cache::{Cache, KeyStatus};
use crate::claims::{self, Claims, Expected};
use crate::error::{InvalidToken, VerifyError};
use crate::header;

/// The longest accepted token.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// What every token is held against.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub issuer: String,
    pub audience: String,
    pub leeway_s: u64,
    pub max_lifetime_s: u64,
}

/// Verifies access tokens of one issuer for one audience. Clones are cheap and share the keys.
#[derive(Clone)]
pub struct Verifier {
    inner: Arc<Inner>,
}

struct Inner {
    rules: Rules,
    cache: Arc<Cache>,
    background: OnceLock<tokio::task::AbortHandle>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(background) = self.background.get() {
            background.abort();
        }
    }
}

impl Verifier {
    /// Begins a verifier for tokens whose `iss` is exactly `issuer` and whose `aud` contains `audience`.
    pub fn builder(issuer: impl Into<String>, audience: impl Into<String>) -> VerifierBuilder {
        VerifierBuilder::new(issuer.into(), audience.into())
    }

    pub(crate) fn new(rules: Rules, cache: Cache) -> Self {
        Self { inner: Arc::new(Inner { rules, cache: Arc::new(cache), background: OnceLock::new() }) }
    }

    pub(crate) async fn start(&self) {
        self.inner.cache.refetch().await;
        let task = tokio::spawn(Cache::keep_fresh(Arc::downgrade(&self.inner.cache)));
        if let Err(second) = self.inner.background.set(task.abort_handle()) {
            second.abort();
        }
    }

    /// Verifies with the keys in memory: no network, no waiting. What a service calls whose background refresh runs
    /// ([`VerifierBuilder::start`]) and that cannot wait.
    pub fn verify(&self, token: &str) -> Result<Claims, VerifyError> {
        let parts = Parts::split(token)?;
        let header_bytes = base64url::decode(parts.header).ok_or(InvalidToken::Malformed)?;
        let header = header::parse(&header_bytes)?;
        let signature: [u8; 64] = base64url::decode_exact(parts.signature).ok_or(InvalidToken::Signature)?;
        self.inner.cache.with_key(&header.kid, |key| {
            if header.alg != key.algorithm {
                return Err(InvalidToken::Algorithm);
            }
            key.verifying
                .verify_strict(parts.signed.as_bytes(), &Signature::from_bytes(&signature))
                .map_err(|_| InvalidToken::Signature)
        })?;
        let payload = base64url::decode(parts.payload).ok_or(InvalidToken::Malformed)?;
        Ok(claims::parse(&payload, &self.expected())?)
    }

    /// As [`Self::verify`]; but if the key is unknown, or there are no usable keys, asks the issuer first, at most
    /// once per cool-down and together with everybody else who waits. Needs a tokio runtime.
    pub async fn verify_or_fetch(&self, token: &str) -> Result<Claims, VerifyError> {
        match self.verify(token) {
            Err(error) if error.hangs_on_keys() => {
                self.inner.cache.refetch().await;
                self.verify(token)
            }
            verdict => verdict,
        }
    }

    /// How the keys are: for a health page, and to log at start.
    pub fn status(&self) -> KeyStatus {
        self.inner.cache.status()
    }

    /// The issuer that this verifier trusts.
    pub fn issuer(&self) -> &str {
        &self.inner.rules.issuer
    }

    fn expected(&self) -> Expected<'_> {
        let Rules { issuer, audience, leeway_s, max_lifetime_s } = &self.inner.rules;
        Expected {
            issuer,
            audience,
            now_s: self.inner.cache.clock().unix_s(),
            leeway_s: *leeway_s,
            max_lifetime_s: *max_lifetime_s,
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("rules", &self.inner.rules).finish_non_exhaustive()
    }
}

/// The compact serialisation (RFC 7515 section 7.1), still encoded.
struct Parts<'a> {
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
    /// Header, dot, payload: what the signature covers.
    signed: &'a str,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Result<Self, InvalidToken> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(InvalidToken::TooLarge);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(InvalidToken::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(InvalidToken::Malformed)?;
        if header.is_empty() || payload.is_empty() || signature.is_empty() || payload.contains('.') {
            return Err(InvalidToken::Malformed);
        }
        Ok(Self { header, payload, signature, signed })
    }
}
