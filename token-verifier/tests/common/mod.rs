//! Keys, tokens, a clock and a key server for the tests.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use token_verifier::{Clock, FetchFuture, Fetched, JwksSource, Verifier, VerifierBuilder};
use tokio::sync::Semaphore;

pub const ISSUER: &str = "http://127.0.0.1:3002";
pub const AUDIENCE: &str = "http://127.0.0.1:3002";
pub const NOW_S: u64 = 1_900_000_000;
pub const KID: &str = "key-1";

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The `n`th test key.
pub fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

pub fn jwk(kid: &str, key: &SigningKey) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": b64(key.verifying_key()), "kid": kid, "use": "sig", "alg": "EdDSA"})
}

pub fn jwks(keys: &[(&str, &SigningKey)]) -> String {
    json!({ "keys": keys.iter().map(|(kid, key)| jwk(kid, key)).collect::<Vec<_>>() }).to_string()
}

pub fn header(kid: &str) -> String {
    format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{kid}"}}"#)
}

pub fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "01890a5d-ac96-8b2c-8000-0123456789ab", "aud": [AUDIENCE],
        "client_id": "first-party", "sid": "01890a5d-ac96-8b2c-8000-ba9876543210", "jti": "j-1",
        "iat": NOW_S, "exp": NOW_S + 300, "auth_time": NOW_S - 10, "amr": ["pwd"], "tenant": "default"
    })
}

/// Signs any header and payload bytes.
pub fn sign(key: &SigningKey, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
    let signed = format!("{}.{}", b64(header), b64(payload));
    let signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", b64(signature.to_bytes()))
}

/// A good token of `key` named `kid`.
pub fn token(kid: &str, key: &SigningKey) -> String {
    sign(key, header(kid), claims().to_string())
}

/// A clock that only tests move.
#[derive(Clone)]
pub struct TestClock {
    unix_s: Arc<AtomicU64>,
    uptime_ms: Arc<AtomicU64>,
}

impl TestClock {
    pub fn new() -> Self {
        Self { unix_s: Arc::new(AtomicU64::new(NOW_S)), uptime_ms: Arc::default() }
    }

    /// Moves how old the keys are, not the dates of tokens.
    pub fn age(&self, by: Duration) {
        self.uptime_ms.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub fn set_unix_s(&self, unix_s: u64) {
        self.unix_s.store(unix_s, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn unix_s(&self) -> u64 {
        self.unix_s.load(Ordering::SeqCst)
    }

    fn uptime(&self) -> Duration {
        Duration::from_millis(self.uptime_ms.load(Ordering::SeqCst))
    }
}

/// Always the same key set.
pub struct StaticJwks(pub String);

impl JwksSource for StaticJwks {
    fn fetch<'a>(&'a self, _: Option<&'a str>) -> FetchFuture<'a> {
        Box::pin(async {
            Ok(Fetched::Body { bytes: self.0.clone().into_bytes(), etag: None, max_age: None })
        })
    }
}

/// A verifier that has loaded `keys` from a static source.
pub async fn loaded(clock: &TestClock, keys: &[(&str, &SigningKey)]) -> Verifier {
    Verifier::builder(ISSUER, AUDIENCE)
        .clock(clock.clone())
        .source(StaticJwks(jwks(keys)))
        .start()
        .await
        .unwrap()
}

/// A key server on a free port. It answers what `reply` holds; while `gate` has no permits requests wait.
pub struct KeyServer {
    pub url: String,
    pub shared: Arc<Shared>,
}

pub struct Shared {
    pub reply: Mutex<(StatusCode, String)>,
    pub etag: Mutex<Option<&'static str>>,
    pub cache_control: Mutex<&'static str>,
    pub hits: AtomicUsize,
    pub not_modified: AtomicUsize,
    pub gate: Semaphore,
}

impl KeyServer {
    pub async fn start(body: String) -> Self {
        let shared = Arc::new(Shared {
            reply: Mutex::new((StatusCode::OK, body)),
            etag: Mutex::new(None),
            cache_control: Mutex::new("public, max-age=300"),
            hits: AtomicUsize::new(0),
            not_modified: AtomicUsize::new(0),
            gate: Semaphore::new(1000),
        });
        let app =
            axum::Router::new().route("/keys", axum::routing::get(answer)).with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, shared }
    }

    pub fn reply(&self, status: StatusCode, body: impl Into<String>) {
        *self.shared.reply.lock().unwrap() = (status, body.into());
    }

    pub fn hits(&self) -> usize {
        self.shared.hits.load(Ordering::SeqCst)
    }

    pub fn builder(&self, clock: &TestClock) -> VerifierBuilder {
        Verifier::builder(ISSUER, AUDIENCE).jwks_url(&self.url).clock(clock.clone())
    }
}

async fn answer(
    axum::extract::State(shared): axum::extract::State<Arc<Shared>>,
    headers: HeaderMap,
) -> impl IntoResponse {
    shared.hits.fetch_add(1, Ordering::SeqCst);
    let _permit = shared.gate.acquire().await;
    let (mut status, mut body) = shared.reply.lock().unwrap().clone();
    let mut answer = HeaderMap::new();
    answer.insert(header::CACHE_CONTROL, shared.cache_control.lock().unwrap().parse().unwrap());
    if let Some(etag) = *shared.etag.lock().unwrap() {
        answer.insert(header::ETAG, etag.parse().unwrap());
        if headers.get(header::IF_NONE_MATCH).is_some_and(|seen| seen == etag) {
            shared.not_modified.fetch_add(1, Ordering::SeqCst);
            (status, body) = (StatusCode::NOT_MODIFIED, String::new());
        }
    }
    if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
        answer.insert(header::LOCATION, "/keys?again".parse().unwrap());
    }
    (status, answer, body)
}

/// Waits for `condition`, at most ten seconds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain until {what}");
}
