//! The token corpus that `token-verifier` shares (`interop/corpus`): what a node says to each of its tokens.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use auth_core::crypto::access_token::{BadAccessToken, Expected, verify};
use auth_core::crypto::opened_tokens::OpenedTokens;
use auth_core::crypto::signing_key::verifying_key;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::VerifyingKey;
use serde_json::Value;

struct Corpus {
    document: Value,
    keys: HashMap<String, VerifyingKey>,
    audience: [String; 1],
}

impl Corpus {
    fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../interop/corpus/tokens.json");
        let document: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let keys = document["jwks"]["keys"].as_array().unwrap().iter();
        let keys = keys.map(|jwk| (jwk["kid"].as_str().unwrap().to_owned(), point(&jwk["x"]))).collect();
        let audience = [document["audience"].as_str().unwrap().to_owned()];
        Self { document, keys, audience }
    }

    fn expected(&self) -> Expected<'_> {
        Expected {
            iss: self.document["issuer"].as_str().unwrap(),
            aud: &self.audience,
            now: self.document["now_s"].as_i64().unwrap(),
            leeway_s: 30,
        }
    }

    fn tokens(&self) -> impl Iterator<Item = &Value> {
        self.document["tokens"].as_array().unwrap().iter()
    }
}

/// The corpus names its keys as it likes, so the thumbprint is computed here.
fn point(x: &Value) -> VerifyingKey {
    let bytes: [u8; 32] = URL_SAFE_NO_PAD.decode(x.as_str().unwrap()).unwrap().try_into().unwrap();
    verifying_key(&auth_core::crypto::signing_key::thumbprint(&bytes), &bytes).unwrap()
}

#[test]
fn every_token_gets_its_verdict() {
    let corpus = Corpus::read();
    let (mut wrong, mut refused) = (Vec::new(), 0);
    for case in corpus.tokens() {
        let token = case["token"].as_str().unwrap();
        let got = verify(token, |kid| corpus.keys.get(kid), &corpus.expected());
        let reason = got.as_ref().err().map(BadAccessToken::to_string);
        refused += usize::from(reason.is_some());
        if reason.as_deref() != case["auth_core"].as_str() {
            wrong.push(format!("{}: want {}, got {got:?}", case["name"], case["auth_core"]));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(refused >= 200, "only {refused} bad tokens");
    println!("{refused} bad tokens refused, {} accepted", corpus.tokens().count() - refused);
}

/// The tokens that a node remembers are judged as if it remembered none, the second time as the first.
#[test]
fn memory_changes_no_verdict() {
    let (corpus, opened) = (Corpus::read(), OpenedTokens::default());
    for case in corpus.tokens().chain(corpus.tokens()) {
        let token = case["token"].as_str().unwrap();
        let got = opened.verify(token, |kid| corpus.keys.get(kid), &corpus.expected());
        let reason = got.err().map(|error| error.to_string());
        assert_eq!(reason.as_deref(), case["auth_core"].as_str(), "{}", case["name"]);
    }
}
