//! `token-verifier`: the text of a token, its header, its claims, and the key set.
use std::collections::HashSet;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use token_verifier::{Claims, Clock, FetchFuture, Fetched, JwksSource, Verifier, VerifyError};
use tokio::runtime::Runtime;

use crate::tokens;
use crate::world::{AUDIENCE, ISSUER, KIDS, LEEWAY_S, NOW_S, b64, jwks, key, sign, token};

/// The corpus's time, standing still.
struct Still;

impl Clock for Still {
    fn unix_s(&self) -> u64 {
        NOW_S
    }

    fn uptime(&self) -> Duration {
        Duration::ZERO
    }
}

struct Fixed(Vec<u8>);

impl JwksSource for Fixed {
    fn fetch<'a>(&'a self, _: Option<&'a str>) -> FetchFuture<'a> {
        Box::pin(async { Ok(Fetched::Body { bytes: self.0.clone(), etag: None, max_age: None }) })
    }
}

fn loaded(body: Vec<u8>) -> Verifier {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime of one thread")
    });
    let builder = Verifier::builder(ISSUER, AUDIENCE).clock(Still).source(Fixed(body));
    runtime.block_on(builder.start()).expect("issuer and audience are given")
}

/// What the verifier says that has both keys.
pub fn verify(token: &str) -> Result<Claims, VerifyError> {
    static VERIFIER: OnceLock<Verifier> = OnceLock::new();
    VERIFIER.get_or_init(|| loaded(jwks().to_string().into_bytes())).verify(token)
}

/// Nothing is accepted but what was signed, to the last character.
pub fn text(data: &[u8]) {
    static SIGNED: OnceLock<HashSet<String>> = OnceLock::new();
    let signed = SIGNED.get_or_init(|| {
        tokens::all().into_iter().filter(|case| case.verifier.is_none()).map(|case| case.token).collect()
    });
    let Ok(token) = std::str::from_utf8(data) else { return };
    assert_eq!(verify(token).is_ok(), signed.contains(token), "{token}");
}

/// Any header under a genuine signature.
pub fn header(data: &[u8]) {
    if verify(&sign(&key(1), data, crate::world::claims().to_string())).is_ok() {
        check_header(data);
    }
}

/// Any payload under a genuine signature.
pub fn claims(data: &[u8]) {
    if let Ok(claims) = verify(&sign(&key(1), crate::world::header(KIDS[0]), data)) {
        check_claims(&claims, data);
    }
}

/// An accepted header, read by a parser that shares no code with ours and keeps the last of two equal names.
pub fn check_header(header: &[u8]) {
    let Some(header) = plain(header) else { return };
    assert_eq!(header["alg"], "EdDSA");
    assert_eq!(header["typ"], "at+jwt");
    assert_eq!(header["kid"], KIDS[0]);
    for name in ["crit", "b64", "zip", "jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256"] {
        assert_eq!(header.get(name), None, "{name}");
    }
}

/// Accepted claims: what they say is what stands there, and it is within the rules.
pub fn check_claims(claims: &Claims, payload: &[u8]) {
    assert_eq!(claims.iss, ISSUER);
    assert!(claims.aud.iter().any(|aud| aud == AUDIENCE));
    assert!(claims.exp > claims.iat && claims.exp - claims.iat <= 3600);
    assert!(claims.iat <= NOW_S + LEEWAY_S && claims.exp + LEEWAY_S > NOW_S);
    assert!(claims.auth_time <= claims.iat + LEEWAY_S);
    let Some(value) = plain(payload) else { return };
    let list = |name: &str| value.get(name).map_or(Vec::new(), texts);
    assert_eq!(claims.aud, list("aud"));
    assert_eq!((&claims.amr, &claims.roles), (&list("amr"), &list("roles")));
    for (name, number) in [("iat", claims.iat), ("exp", claims.exp), ("auth_time", claims.auth_time)] {
        assert_eq!(value[name].as_u64(), Some(number), "{name}");
    }
    assert!(value.get("nbf").is_none_or(|nbf| nbf.as_u64().is_some_and(|nbf| nbf <= NOW_S + LEEWAY_S)));
    let (sub, sid) = (claims.sub.to_string(), claims.sid.to_string());
    for (name, text) in [
        ("sub", &sub),
        ("sid", &sid),
        ("client_id", &claims.client_id),
        ("jti", &claims.jti),
        ("tenant", &claims.tenant),
    ] {
        assert_eq!(value[name].as_str(), Some(text.as_str()), "{name}");
    }
    assert_eq!(value.get("scope").and_then(Value::as_str), claims.scope.as_deref());
}

/// None where this parser gives up and ours skips what it does not read: half a surrogate, deep nesting.
fn plain(json: &[u8]) -> Option<Value> {
    let value: Option<Value> = serde_json::from_slice(json).ok();
    let skipped = json.windows(3).any(|bytes| bytes == b"\\ud" || bytes == b"\\uD") || nested(json) > 100;
    assert!(value.is_some() || skipped, "accepted, and no JSON");
    value
}

fn nested(json: &[u8]) -> usize {
    json.iter().filter(|byte| matches!(byte, b'[' | b'{')).count()
}

fn texts(value: &Value) -> Vec<String> {
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    list.iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
}

/// Any key set: a key of ours verifies only if the set has it, whole, under its name, once.
pub fn key_set(data: &[u8]) {
    let verifier = loaded(data.to_vec());
    let status = verifier.status();
    let accepted = verifier.verify(&token()).is_ok();
    assert_eq!(status.keys == 0, status.last_error.is_some());
    if status.keys == 0 {
        assert!(!accepted);
        return;
    }
    let set: Value = serde_json::from_slice(data).expect("a set that was taken is JSON");
    let keys = set["keys"].as_array().expect("a set that was taken has keys");
    assert_eq!(status.keys + status.dropped_keys, keys.len());
    let named = |jwk: &&Value| jwk["kid"] == KIDS[0];
    let of_that_name: Vec<&Value> = keys.iter().filter(named).collect();
    if accepted {
        let [jwk] = of_that_name[..] else { panic!("{} keys of one name", of_that_name.len()) };
        let ours = crate::world::jwk(KIDS[0], &key(1));
        let ours = ours.as_object().expect("an object");
        assert!(ours.iter().all(|(name, value)| jwk[name] == *value), "{jwk}");
        assert_eq!(jwk["x"], b64(key(1).verifying_key()));
    }
}
