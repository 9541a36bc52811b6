//! Tests of the access token: one vector made elsewhere, and round trips. What must be refused is in `refusals`.

mod refusals;

use super::*;
use proptest::prelude::*;
use shard_key::Bucket;

const NOW: i64 = 1_800_000_100;
const ISS: &str = "https://id.example";

/// Made with Python's `cryptography` (OpenSSL) from the seed `07…07` and the claims of [`claims`].
const VECTOR: &str = "\
    eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCIsImtpZCI6Ii0tNklNNWwwT29zTGo5eVdza0lTWWhVQTNuXzNDVVJRa21yWU1T\
    aGFfY2sifQ.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJzdWIiOiIwMWEzMTg1Yy01MDAwLTg3MDctODAwNS0wNzA3MDcwN\
    zA3MDciLCJhdWQiOiJodHRwczovL2lkLmV4YW1wbGUiLCJjbGllbnRfaWQiOiJmaXJzdC1wYXJ0eSIsInNpZCI6IjAxYTMxODVjL\
    TUwMDAtODkwOS04MDA1LTA5MDkwOTA5MDkwOSIsImp0aSI6IkJ3Y0hCd2NIQndjSEJ3Y0hCd2NIQnciLCJpYXQiOjE4MDAwMDAwM\
    DAsImV4cCI6MTgwMDAwMDMwMCwiYXV0aF90aW1lIjoxNzk5OTk5MDAwLCJhbXIiOlsicHdkIl0sInRlbmFudCI6ImRlZmF1bHQif\
    Q.V1r2KGRg-m2iwxfLPkTzTgVsYViaK8U6h0CVBhzBkY9TyYyVL0LmTwMH9ePV3ChD7dcVuNTSMyP0qRs42SzTCA";

fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

fn claims() -> AccessClaims {
    AccessClaims {
        iss: ISS.into(),
        sub: "01a3185c-5000-8707-8005-070707070707".parse().unwrap(),
        aud: vec![ISS.into()],
        client_id: "first-party".into(),
        sid: "01a3185c-5000-8909-8005-090909090909".parse().unwrap(),
        jti: jti([7; 16]),
        iat: 1_800_000_000,
        exp: 1_800_000_300,
        auth_time: 1_799_999_000,
        amr: vec!["pwd".into()],
        tenant: "default".into(),
        roles: Vec::new(),
        scope: None,
    }
}

fn check_at(token: &str, now: i64) -> Result<AccessClaims, BadAccessToken> {
    let (kid, key) = (key().kid().to_owned(), key().verifying_key());
    let aud = [ISS.to_owned()];
    let expected = Expected { iss: ISS, aud: &aud, now, leeway_s: 30 };
    verify(token, |asked| (asked == kid).then_some(&key), &expected)
}

fn check(token: &str) -> Result<AccessClaims, BadAccessToken> {
    check_at(token, NOW)
}

fn header() -> String {
    format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{}"}}"#, key().kid())
}

fn payload() -> String {
    serde_json::to_string(&claims()).unwrap()
}

/// Any header and payload under a genuine signature: no refusal below is owed to the signature.
fn signed(header: &str, payload: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = key().sign_bytes(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn the_vector_comes_out_and_is_read() {
    assert_eq!(key().sign(&claims()), VECTOR);
    assert_eq!(check(VECTOR), Ok(claims()));
}

#[test]
fn optional_claims_appear_only_when_they_say_something() {
    let plain = payload();
    assert!(
        !plain.contains("roles")
            && !plain.contains("scope")
            && plain.contains(r#""aud":"https://id.example""#)
    );
    let full = AccessClaims {
        aud: vec![ISS.into(), "api".into()],
        roles: vec!["admin".into()],
        scope: Some("openid email".into()),
        ..claims()
    };
    let text = serde_json::to_string(&full).unwrap();
    assert!(text.contains(r#""aud":["https://id.example","api"]"#), "{text}");
    assert!(text.ends_with(r#""tenant":"default","roles":["admin"],"scope":"openid email"}"#), "{text}");
    assert_eq!(check(&key().sign(&full)), Ok(full));
}

#[test]
fn members_of_later_versions_are_let_pass() {
    let later = payload().replacen('{', r#"{"nbf":1800000000,"cnf":{"jkt":"x"},"#, 1);
    assert_eq!(check(&signed(&header(), &later)), Ok(claims()));
}

/// The same reading by a parser that is not ours. (It checks no signature here: its pure-Rust backend would bring a
/// second ed25519-dalek. The signature's second opinion is [`VECTOR`].)
#[test]
fn jsonwebtoken_reads_the_same() {
    let read = jsonwebtoken::dangerous::insecure_decode::<AccessClaims>(VECTOR).unwrap();
    assert_eq!(
        (read.header.alg, read.header.typ.as_deref()),
        (jsonwebtoken::Algorithm::EdDSA, Some("at+jwt"))
    );
    assert_eq!(read.header.kid.as_deref(), Some(key().kid()));
    assert_eq!(read.claims, claims());
    let jwk: jsonwebtoken::jwk::Jwk =
        serde_json::from_value(serde_json::to_value(key().jwk()).unwrap()).unwrap();
    assert_eq!(jwk.common.key_id.as_deref(), Some(key().kid()));
}

proptest! {
    #[test]
    fn tokens_round_trip(
        bucket in 0u16..16384, random in any::<[u8; 8]>(), name in any::<[u8; 16]>(), ttl in 1i64..=300,
        more in proptest::collection::vec(".{0,20}", 0..3), roles in proptest::collection::vec(".{1,20}", 0..4),
        scope in proptest::option::of(".{0,20}"), client_id in ".{0,20}", tenant in "[a-z-]{1,20}",
    ) {
        let bucket = Bucket::new(bucket).unwrap();
        let aud = more.into_iter().chain([ISS.to_owned()]).collect();
        let (sub, sid) = (UserId::generate(bucket, 7, random), SessionId::generate(bucket, 8, random));
        let (iat, exp) = (NOW, NOW + ttl);
        let claims = AccessClaims { sub, sid, aud, jti: jti(name), iat, exp, roles, scope, client_id, tenant, ..claims() };
        prop_assert_eq!(check(&key().sign(&claims)), Ok(claims));
    }

    #[test]
    fn no_character_can_change(at in any::<prop::sample::Index>(), other in "[A-Za-z0-9_.=-]") {
        let at = at.index(VECTOR.len());
        prop_assume!(VECTOR[at..=at] != other);
        let mut token = VECTOR.to_owned();
        token.replace_range(at..=at, &other);
        prop_assert!(check(&token).is_err());
    }

    #[test]
    fn no_text_panics(text in any::<String>(), payload in any::<String>()) {
        prop_assert!(check(&text).is_err());
        prop_assert!(check(&signed(&text, &payload)).is_err());
        prop_assert!(check(&signed(&header(), &payload)).is_err());
    }
}
