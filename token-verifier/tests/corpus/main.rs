//! Good tokens are accepted; every way we know of making a bad one is refused, each for the reason we meant: a
//! token that is refused by accident proves nothing.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod claims_cases;
mod form_cases;
mod signature_cases;

use common::*;
use serde_json::{Value, json};
use token_verifier::InvalidToken::{self, *};
use token_verifier::VerifyError;

type Case = (String, String, InvalidToken);

#[tokio::test]
async fn good_tokens() {
    let clock = TestClock::new();
    let verifier = loaded(&clock, &[(KID, &key(1)), ("key-2", &key(2))]).await;
    for (kid, n) in [(KID, 1), ("key-2", 2)] {
        let claims = verifier.verify(&token(kid, &key(n))).unwrap();
        assert_eq!(claims.sub.to_string(), "01890a5d-ac96-8b2c-8000-0123456789ab");
        assert_eq!((claims.roles.len(), claims.scope), (0, None));
    }
    let accept = |edit: fn(&mut Value)| {
        let mut claims = claims();
        edit(&mut claims);
        verifier.verify(&sign(&key(1), header(KID), claims.to_string())).unwrap()
    };
    let full = accept(|c| (c["roles"], c["scope"]) = (json!(["admin"]), json!("orders:read orders:write")));
    assert!(full.has_role("admin") && !full.has_role("adm"));
    assert!(full.has_scope("orders:write") && !full.has_scope("orders"));
    assert_eq!(accept(|c| c["aud"] = json!(AUDIENCE)).aud, [AUDIENCE]);
    assert_eq!(accept(|c| c["aud"] = json!(["other", AUDIENCE])).aud.len(), 2);
    accept(|c| c["nbf"] = json!(NOW_S + 30));
    accept(|c| c["later"] = json!({"a": [1.5, null]}));
    accept(|c| (c["iat"], c["exp"]) = (json!(NOW_S + 30), json!(NOW_S + 330))); // the issuer's clock is ahead
    accept(|c| {
        (c["iat"], c["exp"], c["auth_time"]) = (json!(NOW_S - 329), json!(NOW_S - 29), json!(NOW_S - 400))
    });
    accept(|c| c["exp"] = json!(NOW_S + 3600));
    let spaced = format!(" {} ", header(KID)); // JSON allows it, and it is what was signed
    verifier.verify(&sign(&key(1), spaced, claims().to_string())).unwrap();
}

#[tokio::test]
async fn expiry_to_the_second() {
    let clock = TestClock::new();
    let verifier = loaded(&clock, &[(KID, &key(1))]).await;
    let token = token(KID, &key(1));
    clock.set_unix_s(NOW_S + 329);
    assert!(verifier.verify(&token).is_ok());
    clock.set_unix_s(NOW_S + 330);
    assert_eq!(verifier.verify(&token).unwrap_err(), Expired.into());
    clock.set_unix_s(NOW_S - 30);
    assert!(verifier.verify(&token).is_ok());
    clock.set_unix_s(NOW_S - 31);
    assert_eq!(verifier.verify(&token).unwrap_err(), NotYetValid.into());
}

#[tokio::test]
async fn bad_tokens() {
    let clock = TestClock::new();
    let verifier = loaded(&clock, &[(KID, &key(1))]).await;
    let mut cases = Vec::new();
    form_cases::shapes(&mut cases);
    form_cases::headers(&mut cases);
    signature_cases::signatures(&mut cases);
    claims_cases::claim_types(&mut cases);
    claims_cases::claim_values(&mut cases);
    let mut wrong = Vec::new();
    for (name, token, want) in &cases {
        let got = verifier.verify_or_fetch(token).await;
        if got.as_ref().err() != Some(&VerifyError::Invalid(*want)) {
            wrong.push(format!("{name}: want {want:?}, got {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(cases.len() >= 200, "only {} bad tokens", cases.len());
    println!("{} bad tokens refused", cases.len());
}

/// Every single character of a token matters: change any to any other of the alphabet's neighbours.
#[tokio::test]
async fn no_character_can_change() {
    let verifier = loaded(&TestClock::new(), &[(KID, &key(1))]).await;
    let good = token(KID, &key(1));
    for i in 0..good.len() {
        for other in [b'A', b'B', b'_', b'.', b'='] {
            let mut bytes = good.clone().into_bytes();
            if std::mem::replace(&mut bytes[i], other) != other {
                let bad = String::from_utf8(bytes).unwrap();
                assert!(matches!(verifier.verify(&bad), Err(VerifyError::Invalid(_))), "{i}: {bad}");
            }
        }
    }
}

fn decode(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap()
}
