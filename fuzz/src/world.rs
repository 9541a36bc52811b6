//! The issuer that all tokens here are of: its keys, its clock, and a signature under any header and payload.
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

/// `iss`.
pub const ISSUER: &str = "http://127.0.0.1:3002";
/// `aud`.
pub const AUDIENCE: &str = ISSUER;
/// Now, in seconds since 1970.
pub const NOW_S: u64 = 1_900_000_000;
/// How far clocks may differ.
pub const LEEWAY_S: u64 = 30;
/// The names of the published keys: `key(1)` and `key(2)`.
pub const KIDS: [&str; 2] = ["key-1", "key-2"];

/// The `n`th key.
pub fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

/// base64url without padding.
pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A public key as the issuer publishes it.
pub fn jwk(kid: &str, key: &SigningKey) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": b64(key.verifying_key()), "kid": kid, "use": "sig", "alg": "EdDSA"})
}

/// The published keys.
pub fn jwks() -> Value {
    json!({ "keys": [jwk(KIDS[0], &key(1)), jwk(KIDS[1], &key(2))] })
}

/// The header that we write.
pub fn header(kid: &str) -> String {
    format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{kid}"}}"#)
}

/// The claims of a good token.
pub fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "01890a5d-ac96-8b2c-8000-0123456789ab", "aud": [AUDIENCE],
        "client_id": "first-party", "sid": "01890a5d-ac96-8b2c-8000-ba9876543210", "jti": "AAECAwQFBgcICQoLDA0ODw",
        "iat": NOW_S, "exp": NOW_S + 300, "auth_time": NOW_S - 10, "amr": ["pwd"], "tenant": "default"
    })
}

/// Any header and payload under a genuine signature of `key`.
pub fn sign(key: &SigningKey, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
    sign_text(key, &format!("{}.{}", b64(header), b64(payload)))
}

/// Any text before the last dot under a genuine signature.
pub fn sign_text(key: &SigningKey, text: &str) -> String {
    format!("{text}.{}", b64(key.sign(text.as_bytes()).to_bytes()))
}

/// A good token of the first key.
pub fn token() -> String {
    sign(&key(1), header(KIDS[0]), claims().to_string())
}
