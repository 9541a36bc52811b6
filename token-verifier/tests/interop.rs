//! The verifiers of `interop/` (PyJWT, jose) against tokens made here: they accept what we accept, and refuse with
//! exit 1 what we refuse; a key server that fails makes them exit 2. `make tools` sets them up (`make test` does it first);
//! without them these tests fail and say so.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests; other libraries read the real clock"
)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use common::*;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pyjwt() {
    let root = root();
    check(move || {
        let mut command = Command::new("python3");
        command
            .env("PYTHONPATH", root.join(".tessera/tools/python"))
            .arg(root.join("interop/python/verify.py"));
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jose() {
    let script = root().join("interop/typescript/dist/verify.js");
    assert!(script.exists(), "npm ci --prefix interop/typescript first");
    check(move || {
        let mut command = Command::new("node");
        command.arg(&script);
        command
    })
    .await;
}

#[test]
fn pyjwt_accepts_the_good_tokens_of_the_corpus() {
    let root = root();
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", root.join(".tessera/tools/python")).arg(root.join("interop/python/corpus.py"));
    accepts_the_good_tokens(command);
}

#[test]
fn jose_accepts_the_good_tokens_of_the_corpus() {
    let mut command = Command::new("node");
    command.arg(root().join("interop/typescript/dist/corpus.js"));
    accepts_the_good_tokens(command);
}

/// Where they take what we refuse is told in `interop/corpus/README.md`; what we take they must.
fn accepts_the_good_tokens(mut judge: Command) {
    let path = root().join("interop/corpus/tokens.json");
    let output = judge.arg(&path).output().unwrap();
    assert!(output.status.success(), "make tools first: {}", String::from_utf8_lossy(&output.stderr));
    let verdicts: Value = serde_json::from_slice(&output.stdout).unwrap();
    let corpus: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let tokens = corpus["tokens"].as_array().unwrap();
    let good: Vec<&Value> = tokens.iter().filter(|case| case["valid"] == true).collect();
    assert!(good.len() >= 20, "only {} good tokens", good.len());
    for case in good {
        let verdict = verdicts.get(case["name"].as_str().unwrap()).expect("a verdict on every token");
        assert_eq!(*verdict, Value::Null, "{}", case["name"]);
    }
    // A judge that takes everything would pass so far.
    let stolen = verdicts.get("signature of another token").expect("a verdict on every token");
    assert!(stolen.is_string(), "took another token's signature");
}

async fn check(command: impl Fn() -> Command) {
    let server = KeyServer::start(jwks(&[(KID, &key(1)), ("key-2", &key(2))])).await;
    let run = |token: &str| {
        let output =
            command().arg(token).env("TESSERA_ISSUER", ISSUER).env("TESSERA_JWKS_URL", &server.url).output();
        let output = output.unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), text)
    };
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = |edit: &dyn Fn(&mut Value)| {
        let mut claims = claims();
        (claims["iat"], claims["exp"], claims["auth_time"]) =
            (json!(now_s), json!(now_s + 300), json!(now_s));
        edit(&mut claims);
        claims.to_string()
    };
    let good = sign(&key(1), header(KID), claims(&|_| {}));
    let string_aud = sign(&key(2), header("key-2"), claims(&|c| c["aud"] = json!(AUDIENCE)));
    for token in [&good, &string_aud] {
        let (code, text) = run(token);
        assert_eq!(code, 0, "{text}");
        let printed: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(printed["sub"], "01890a5d-ac96-8b2c-8000-0123456789ab");
    }
    let with = |edit: &dyn Fn(&mut Value)| sign(&key(1), header(KID), claims(edit));
    let headed = |from: &str, to: &str| sign(&key(1), header(KID).replace(from, to), claims(&|_| {}));
    for (name, token) in [
        ("not a token", "nonsense".to_owned()),
        ("two segments", good.rsplit_once('.').unwrap().0.to_owned()),
        ("a wrong key", sign(&key(3), header(KID), claims(&|_| {}))),
        ("an unknown key", sign(&key(3), header("key-3"), claims(&|_| {}))),
        ("alg none", headed("EdDSA", "none")),
        ("alg HS256", headed("EdDSA", "HS256")),
        ("typ JWT", headed("at+jwt", "JWT")),
        ("typ missing", headed(r#""typ":"at+jwt","#, "")),
        ("kid missing", headed(r#","kid":"key-1""#, "")),
        ("crit", headed(r#""typ""#, r#""crit":["exp"],"typ""#)),
        ("jwk", headed(r#""typ""#, &format!(r#""jwk":{},"typ""#, jwk(KID, &key(1))))),
        ("expired", with(&|c| (c["iat"], c["exp"]) = (json!(now_s - 900), json!(now_s - 600)))),
        ("issued in the future", with(&|c| (c["iat"], c["exp"]) = (json!(now_s + 100), json!(now_s + 400)))),
        ("too long a life", with(&|c| c["exp"] = json!(now_s + 7200))),
        ("another issuer", with(&|c| c["iss"] = json!("http://127.0.0.1:3012"))),
        ("another audience", with(&|c| c["aud"] = json!(["orders"]))),
        ("exp a string", with(&|c| c["exp"] = json!((now_s + 300).to_string()))),
        ("exp a fraction", with(&|c| c["exp"] = json!(now_s as f64 + 300.5))),
        ("sid missing", with(&|c| drop(c.as_object_mut().unwrap().remove("sid")))),
        ("large", with(&|c| c["pad"] = json!("x".repeat(9000)))),
    ] {
        let (code, text) = run(&token);
        assert_eq!(code, 1, "{name}: {text}");
        assert!(text.contains("invalid token:"), "{name}: {text}");
    }
    server.reply(StatusCode::BAD_GATEWAY, "");
    let (code, text) = run(&good);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("cannot decide:"), "{text}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
