//! Well-signed tokens whose claims are wrong.

use serde_json::json;
use token_verifier::InvalidToken::{self, *};

use crate::Case;
use crate::common::*;

pub fn claim_types(cases: &mut Vec<Case>) {
    let bad_text: &[&str] = &["null", "1", "1.5", "true", "[]", r#"["a"]"#, "{}"];
    for claim in ["iss", "client_id", "jti", "tenant", "scope", "sub", "sid"] {
        for value in bad_text {
            with(cases, claim, value, Claim(claim));
        }
    }
    for claim in ["sub", "sid"] {
        for value in [
            r#""""#,
            r#""1""#,
            r#""01890a5dac968b2c80000123456789ab""#,
            r#""{01890a5d-ac96-8b2c-8000-0123456789ab}""#,
            r#""urn:uuid:01890a5d-ac96-8b2c-8000-0123456789ab""#,
            r#""01890A5D-AC96-8B2C-8000-0123456789AB""#,
            r#"" 01890a5d-ac96-8b2c-8000-0123456789ab""#,
        ] {
            with(cases, claim, value, Claim(claim));
        }
    }
    for claim in ["iat", "exp", "auth_time", "nbf"] {
        for value in [
            "null",
            "true",
            "[]",
            "{}",
            r#""1900000000""#,
            "1900000000.0",
            "1900000000.5",
            "1.9e9",
            "-1",
            "-0",
            "18446744073709551616",
            "1e400",
            "9999999999999999999999999",
        ] {
            with(cases, claim, value, Claim(claim));
        }
    }
    for claim in ["amr", "roles"] {
        for value in ["null", r#""pwd""#, "1", "{}", "[1]", "[null]", r#"[["pwd"]]"#] {
            with(cases, claim, value, Claim(claim));
        }
    }
    for value in
        ["null", "1", "true", "{}", "[1]", r#"["http://127.0.0.1:3002",1]"#, r#"[["http://127.0.0.1:3002"]]"#]
    {
        with(cases, "aud", value, Claim("aud"));
    }
    for claim in ["iss", "sub", "aud", "client_id", "sid", "jti", "iat", "exp", "auth_time", "amr", "tenant"]
    {
        let mut missing = claims();
        missing.as_object_mut().unwrap().remove(claim);
        cases.push((format!("no {claim}"), sign(&key(1), header(KID), missing.to_string()), Claim(claim)));
        let twice = claims().to_string().replacen('{', &format!(r#"{{"{claim}":{},"#, claims()[claim]), 1);
        cases.push((format!("{claim} twice"), sign(&key(1), header(KID), twice), Claim(claim)));
    }
    let mut payload = |name: &str, payload: Vec<u8>| {
        cases.push((format!("payload {name}"), sign(&key(1), header(KID), payload), Payload));
    };
    let text = claims().to_string();
    payload("unknown claim twice", text.replacen('{', r#"{"a":1,"a":2,"#, 1).into_bytes());
    payload("list", format!("[{text}]").into_bytes());
    payload("null", b"null".to_vec());
    payload("string", b"\"x\"".to_vec());
    payload("trailing comma", text.replacen('}', ",}", 1).into_bytes());
    payload("two objects", format!("{text}{text}").into_bytes());
    payload("cut", text.as_bytes()[..text.len() - 1].to_vec());
    payload("byte order mark", format!("\u{feff}{text}").into_bytes());
    payload("not UTF-8", [&text.as_bytes()[..text.len() - 1], b",\"a\":\"\xff\"}"].concat());
    payload("NUL behind", format!("{text}\0").into_bytes());
    payload("NaN", text.replacen('{', r#"{"a":NaN,"#, 1).into_bytes());
    payload("deep", text.replacen('{', &format!(r#"{{"a":{}"#, "[".repeat(3000)), 1).into_bytes());
}

pub fn claim_values(cases: &mut Vec<Case>) {
    for iss in [
        "http://127.0.0.1:3002/",
        "HTTP://127.0.0.1:3002",
        "http://127.0.0.1:3012",
        "",
        "http://127.0.0.1:3002\\u0000",
    ] {
        with(cases, "iss", &format!(r#""{iss}""#), Issuer);
    }
    for aud in [
        "[]",
        r#""""#,
        r#""orders""#,
        r#"["a","b"]"#,
        r#""http://127.0.0.1:3002/""#,
        r#""a http://127.0.0.1:3002""#,
    ] {
        with(cases, "aud", aud, Audience);
    }
    for (claim, value, want) in [
        ("exp", NOW_S, Lifetime),
        ("exp", NOW_S - 1, Lifetime),
        ("exp", 0, Lifetime),
        ("exp", NOW_S + 3601, Lifetime),
        ("exp", u64::MAX, Lifetime),
        ("exp", NOW_S * 1000, Lifetime),
        ("iat", 0, Lifetime),
        ("iat", NOW_S + 31, NotYetValid),
        ("iat", u64::MAX, Lifetime),
        ("nbf", NOW_S + 31, NotYetValid),
        ("nbf", u64::MAX, NotYetValid),
        ("auth_time", NOW_S + 31, NotYetValid),
        ("auth_time", u64::MAX, NotYetValid),
    ] {
        with(cases, claim, &value.to_string(), want);
    }
    let mut expired = claims();
    (expired["iat"], expired["exp"], expired["auth_time"]) =
        (json!(NOW_S - 330), json!(NOW_S - 30), json!(NOW_S - 400));
    cases.push(("expired".to_owned(), sign(&key(1), header(KID), expired.to_string()), Expired));
    for claim in ["client_id", "jti", "tenant"] {
        with(cases, claim, r#""""#, Claim(claim));
        with(cases, claim, &format!(r#""{}""#, "x".repeat(256)), Claim(claim));
    }
    for scope in ["", " ", "a  b", " a", "a "] {
        with(cases, "scope", &format!(r#""{scope}""#), Claim("scope"));
    }
}

/// A well-signed token whose `claim` is the JSON text `value`.
fn with(cases: &mut Vec<Case>, claim: &str, value: &str, want: InvalidToken) {
    let mut claims = claims();
    claims[claim] = json!("@");
    let payload = claims.to_string().replace(r#""@""#, value);
    cases.push((format!("{claim} {value}"), sign(&key(1), header(KID), payload), want));
}
