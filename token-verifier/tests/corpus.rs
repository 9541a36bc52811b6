//! Good tokens are accepted; every way we know of making a bad one is refused, each for the reason that the corpus says
//! (`interop/corpus`, shared with `auth-core`): a token that is refused by accident proves nothing.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::*;
use serde_json::Value;
use token_verifier::InvalidToken::{Expired, NotYetValid};
use token_verifier::{Claims, Verifier, VerifyError};

fn corpus() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../interop/corpus/tokens.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn verdict(got: &Result<Claims, VerifyError>) -> Option<String> {
    match got {
        Ok(_) => None,
        Err(VerifyError::Invalid(reason)) => Some(reason.to_string()),
        Err(VerifyError::CannotDecide(cause)) => panic!("no verdict: {cause}"),
    }
}

#[tokio::test]
async fn every_token_gets_its_verdict() {
    let corpus = corpus();
    let text = |name: &str| corpus[name].as_str().unwrap();
    let clock = TestClock::new();
    clock.set_unix_s(corpus["now_s"].as_u64().unwrap());
    let verifier = Verifier::builder(text("issuer"), text("audience"))
        .clock(clock)
        .source(StaticJwks(corpus["jwks"].to_string()))
        .start()
        .await
        .unwrap();
    let (mut wrong, mut refused) = (Vec::new(), 0);
    let tokens = corpus["tokens"].as_array().unwrap();
    for case in tokens {
        let got = verifier.verify_or_fetch(case["token"].as_str().unwrap()).await;
        let reason = verdict(&got);
        refused += usize::from(reason.is_some());
        if reason.as_deref() != case["token_verifier"].as_str() {
            wrong.push(format!("{}: want {}, got {got:?}", case["name"], case["token_verifier"]));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(refused >= 200, "only {refused} bad tokens");
    println!("{refused} bad tokens refused, {} accepted", tokens.len() - refused);
}

#[tokio::test]
async fn what_a_good_token_says() {
    let verifier = loaded(&TestClock::new(), &[(KID, &key(1))]).await;
    let mut said = claims();
    (said["roles"], said["scope"]) =
        (serde_json::json!(["admin"]), serde_json::json!("orders:read orders:write"));
    said["aud"] = serde_json::json!(AUDIENCE);
    let full = verifier.verify(&sign(&key(1), header(KID), said.to_string())).unwrap();
    assert_eq!(full.sub.to_string(), "01890a5d-ac96-8b2c-8000-0123456789ab");
    assert_eq!(full.aud, [AUDIENCE]);
    assert!(full.has_role("admin") && !full.has_role("adm"));
    assert!(full.has_scope("orders:write") && !full.has_scope("orders"));
    let plain = verifier.verify(&token(KID, &key(1))).unwrap();
    assert_eq!((plain.roles.len(), plain.scope), (0, None));
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
