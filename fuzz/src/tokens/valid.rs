//! Tokens that everybody should accept: our two verifiers, PyJWT and jose.
use serde_json::{Value, json};

use super::Cases;
use crate::world::{AUDIENCE, KIDS, NOW_S, b64, claims, header, key, sign, sign_text, token};

pub fn add(cases: &mut Cases) {
    cases.good("plain", token());
    cases.good("second key", sign(&key(2), header(KIDS[1]), claims().to_string()));
    with(cases, "aud a string", |c| c["aud"] = json!(AUDIENCE));
    with(cases, "aud with another", |c| c["aud"] = json!(["orders", AUDIENCE]));
    with(cases, "roles and scope", |c| {
        (c["roles"], c["scope"]) = (json!(["admin"]), json!("orders:read orders:write"));
    });
    with(cases, "no roles in a list", |c| c["roles"] = json!([]));
    with(cases, "several amr", |c| c["amr"] = json!(["pwd", "otp"]));
    with(cases, "text beyond ASCII", |c| c["client_id"] = json!("ünïcode \u{1f511} \u{202e}"));
    with(cases, "claims of later versions", |c| {
        (c["cnf"], c["later"]) =
            (json!({"jkt": "x"}), json!({"a": [1.5, null, 18_446_744_073_709_551_615_u64]}));
    });
    times(cases);
    spellings(cases);
}

fn times(cases: &mut Cases) {
    with(cases, "issued 30 s ahead", |c| (c["iat"], c["exp"]) = (json!(NOW_S + 30), json!(NOW_S + 330)));
    with(cases, "nbf 30 s ahead", |c| c["nbf"] = json!(NOW_S + 30));
    with(cases, "nbf long ago", |c| c["nbf"] = json!(0));
    with(cases, "expired 29 s ago", |c| {
        (c["iat"], c["exp"], c["auth_time"]) = (json!(NOW_S - 329), json!(NOW_S - 29), json!(NOW_S - 400));
    });
    with(cases, "for one second", |c| c["exp"] = json!(NOW_S + 1));
    with(cases, "for an hour", |c| c["exp"] = json!(NOW_S + 3600));
    with(cases, "auth_time long ago", |c| c["auth_time"] = json!(0));
    with(cases, "auth_time 30 s after iat", |c| c["auth_time"] = json!(NOW_S + 30));
}

/// JSON leaves freedom in how one thing is written; what was signed is what counts.
fn spellings(cases: &mut Cases) {
    let (h, p) = (header(KIDS[0]), claims().to_string());
    let mut spelt =
        |name: &str, header: &str, payload: &str| cases.good(name, sign(&key(1), header, payload));
    spelt("header with spaces", &format!(" {} ", h.replace(':', " : ")), &p);
    spelt("header in another order", &format!(r#"{{"kid":"{}","typ":"at+jwt","alg":"EdDSA"}}"#, KIDS[0]), &p);
    spelt("header with an escape", &h.replace("EdDSA", "EdDS\\u0041"), &p);
    spelt("payload with line breaks", &h, &p.replace(',', ",\r\n\t"));
    spelt(
        "payload with escapes",
        &h,
        &p.replace("\"pwd\"", "\"\\u0070w\\u0064\"").replace("\"sub\"", "\"\\u0073ub\""),
    );
    spelt("iss with escaped slashes", &h, &p.replacen("http://", "http:\\/\\/", 1));
    // 8192 bytes: the longest that is read. Three bytes of payload are four characters.
    let padded = |pad: usize| p.replacen('{', &format!(r#"{{"pad":"{}","#, "x".repeat(pad)), 1);
    let text = |pad: usize| format!("{}.{}", b64(&h), b64(padded(pad)));
    let pad = (0..8192).rev().find(|pad| text(*pad).len() + 87 <= 8192).expect("some padding fits");
    cases.good("8 KiB", sign_text(&key(1), &text(pad)));
}

fn with(cases: &mut Cases, name: &str, edit: impl Fn(&mut Value)) {
    let mut claims = claims();
    edit(&mut claims);
    cases.good(name, sign(&key(1), header(KIDS[0]), claims.to_string()));
}
