//! `auth-core`'s own reading of access tokens, alone and beside `token-verifier`'s.
use std::collections::HashSet;
use std::sync::OnceLock;

use auth_core::crypto::access_token::{self, AccessClaims, BadAccessToken, Expected};
use auth_core::crypto::opened_tokens::OpenedTokens;
use auth_core::crypto::signing_key::SigningKey;
use ed25519_dalek::VerifyingKey;
use token_verifier::{InvalidToken, VerifyError};

use super::lines::first_line;
use super::verifier;
use crate::tokens;
use crate::world::{AUDIENCE, ISSUER, KIDS, LEEWAY_S, NOW_S, key, sign};

fn keys() -> &'static [VerifyingKey; 2] {
    static KEYS: OnceLock<[VerifyingKey; 2]> = OnceLock::new();
    KEYS.get_or_init(|| [key(1).verifying_key(), key(2).verifying_key()])
}

fn find(kid: &str) -> Option<&'static VerifyingKey> {
    KIDS.iter().position(|known| *known == kid).map(|at| &keys()[at])
}

/// What a node says that has both keys; one that remembers tokens must say the same.
fn verify(token: &str) -> Result<AccessClaims, BadAccessToken> {
    static OPENED: OnceLock<OpenedTokens> = OnceLock::new();
    let aud = [AUDIENCE.to_owned()];
    let expected =
        Expected { iss: ISSUER, aud: &aud, now: NOW_S.cast_signed(), leeway_s: LEEWAY_S.cast_signed() };
    let plain = access_token::verify(token, find, &expected);
    let opened = OPENED.get_or_init(OpenedTokens::default).verify(token, find, &expected);
    assert_eq!(plain, opened.map(|verified| verified.clone()));
    plain
}

/// Nothing is accepted but what was signed, to the last character.
pub fn text(data: &[u8]) {
    static SIGNED: OnceLock<HashSet<String>> = OnceLock::new();
    let signed = SIGNED.get_or_init(|| {
        tokens::all().into_iter().filter(|case| case.node.is_none()).map(|case| case.token).collect()
    });
    let Ok(token) = std::str::from_utf8(data) else { return };
    assert_eq!(verify(token).is_ok(), signed.contains(token), "{token}");
}

/// Any header under a genuine signature: three members, and nothing else.
pub fn header(data: &[u8]) {
    if verify(&sign(&key(1), data, crate::world::claims().to_string())).is_ok() {
        verifier::check_header(data);
        let header: serde_json::Value = serde_json::from_slice(data).expect("an accepted header is JSON");
        assert_eq!(header.as_object().map(serde_json::Map::len), Some(3));
    }
}

/// Any payload under a genuine signature: written again, and signed again, it says the same.
pub fn claims(data: &[u8]) {
    let Ok(claims) = verify(&sign(&key(1), crate::world::header(KIDS[0]), data)) else { return };
    assert!(claims.iss == ISSUER && claims.aud.iter().any(|aud| aud == AUDIENCE));
    assert!(claims.exp > claims.iat && claims.iat >= 0 && claims.auth_time >= 0);
    let again = serde_json::to_string(&claims).expect("claims can be written");
    assert_eq!(verify(&sign(&key(1), crate::world::header(KIDS[0]), &again)).as_ref(), Ok(&claims));
    let signer = SigningKey::from_seed(&[1; 32]);
    let token = signer.sign(&claims);
    let (key, aud) = (signer.verifying_key(), [AUDIENCE.to_owned()]);
    let expected =
        Expected { iss: ISSUER, aud: &aud, now: NOW_S.cast_signed(), leeway_s: LEEWAY_S.cast_signed() };
    // Longer than what was read, it may have become too long to be read again.
    let read = access_token::verify(&token, |_| Some(&key), &expected);
    assert!(read == Ok(claims) || token.len() > access_token::MAX_TOKEN_BYTES);
}

/// A header line and a payload under a genuine signature: our two verifiers differ only where they mean to.
pub fn both(data: &[u8]) {
    let (header, payload) = first_line(data);
    let token = sign(&key(1), header, payload);
    match (verify(&token), verifier::verify(&token)) {
        (Ok(node), Ok(service)) => {
            verifier::check_header(header);
            verifier::check_claims(&service, payload);
            assert_eq!((node.sub.as_uuid(), node.sid.as_uuid()), (service.sub, service.sid));
            assert_eq!((&node.iss, &node.aud, &node.jti), (&service.iss, &service.aud, &service.jti));
            assert_eq!((node.exp.cast_unsigned(), node.roles), (service.exp, service.roles));
            assert_eq!((node.scope, node.tenant), (service.scope, service.tenant));
        }
        (Ok(_), Err(error)) => assert!(only_services_refuse(&error), "{error}"),
        (Err(error), Ok(_)) => {
            assert!(matches!(error, BadAccessToken::Header | BadAccessToken::Claims), "{error}")
        }
        (Err(_), Err(_)) => {}
    }
}

/// `interop/corpus/README.md`, "Where our two differ".
fn only_services_refuse(error: &VerifyError) -> bool {
    use InvalidToken::{Claim, Lifetime, NotYetValid, Payload};
    match error {
        VerifyError::Invalid(Claim(name)) => ["client_id", "tenant", "scope", "sub", "sid"].contains(name),
        VerifyError::Invalid(reason) => matches!(reason, Lifetime | NotYetValid | Payload),
        VerifyError::CannotDecide(_) => false,
    }
}
