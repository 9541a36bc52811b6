//! Tokens whose form is wrong: segments, base64url, size.
use serde_json::json;

use super::Cases;
use super::Why::{Algorithm, Header, Malformed, Payload, Signature, TooLarge};
use crate::world::{KIDS, b64, claims, header, key, sign, sign_text, token};

pub fn add(cases: &mut Cases) {
    segments(cases);
    foreign_bytes(cases);
    canonical(cases);
    nested(cases);
    sizes(cases);
}

fn segments(cases: &mut Cases) {
    let good = token();
    let [h, p, s] = good.split('.').collect::<Vec<_>>()[..] else {
        unreachable!("a token has three segments")
    };
    cases.bad("empty", String::new(), Malformed);
    cases.bad("one dot", ".".to_owned(), Malformed);
    cases.bad("one segment", h.to_owned(), Malformed);
    cases.bad("two segments", format!("{h}.{p}"), Malformed);
    cases.bad("four segments", format!("{good}.{s}"), Malformed);
    cases.bad("five segments, as a JWE", format!("{good}.{s}.{s}"), Malformed);
    cases.bad_twice(
        "a JWE's header",
        format!("{}..{p}.{s}.{s}", b64(r#"{"alg":"dir","enc":"A256GCM"}"#)),
        Malformed,
        Header,
    );
    cases.bad_twice("a thousand dots", ".".repeat(1000), Malformed, Header);
    cases.bad("dot behind", format!("{good}."), Malformed);
    cases.bad_twice("empty payload", format!("{h}..{s}"), Malformed, Signature);
    cases.bad_twice("empty signature", format!("{h}.{p}."), Malformed, Signature);
    cases.bad_twice(
        "unsecured, RFC 7519 section 6.1",
        format!("{}.{p}.", b64(r#"{"alg":"none"}"#)),
        Malformed,
        Header,
    );
    cases.bad_twice("two dots", "..".to_owned(), Malformed, Header);
    cases.bad_twice("empty header", format!(".{p}.{s}"), Malformed, Header);
    cases.bad_twice("dot in front", format!(".{good}"), Malformed, Header);
    cases.bad("header twice", format!("{h}.{good}"), Malformed);
    cases.bad("segments swapped", format!("{p}.{h}.{s}"), Algorithm);
}

fn foreign_bytes(cases: &mut Cases) {
    let good = token();
    let [h, p, s] = good.split('.').collect::<Vec<_>>()[..] else {
        unreachable!("a token has three segments")
    };
    for (name, byte) in
        [("space", " "), ("line break", "\n"), ("NUL", "\0"), ("é", "é"), ("joiner", "\u{200d}")]
    {
        cases.bad(&format!("{name} in front"), format!("{byte}{good}"), Malformed);
        cases.bad(&format!("{name} in the header"), format!("{h}{byte}.{p}.{s}"), Malformed);
        cases.bad_twice(
            &format!("{name} in the payload"),
            format!("{h}.{p}{byte}.{s}"),
            Signature,
            Malformed,
        );
        cases.bad_twice(&format!("{name} behind"), format!("{good}{byte}"), Signature, Malformed);
    }
    cases.bad("full-width dots", format!("{h}．{p}．{s}"), Malformed);
    cases.bad("full-width letters", good.replacen('e', "ｅ", 1), Malformed);
    cases.bad("percent-encoded dots", good.replace('.', "%2E"), Malformed);
    cases.bad("with its scheme", format!("Bearer {good}"), Malformed);
    cases.bad("in quotes", format!("\"{good}\""), Malformed);
    cases.bad("two tokens", format!("{good},{good}"), Malformed);
    let json = format!(r#"{{"protected":"{h}","payload":"{p}","signature":"{s}"}}"#);
    cases.bad("JSON serialisation", json, Malformed);
}

/// One value has one spelling (RFC 4648 sections 3.5 and 5): signed anew where the signature would give it away.
fn canonical(cases: &mut Cases) {
    let good = token();
    let [h, p, s] = good.split('.').collect::<Vec<_>>()[..] else {
        unreachable!("a token has three segments")
    };
    cases.bad("padded header", sign_text(&key(1), &format!("{h}=.{p}")), Malformed);
    cases.bad("padded payload", sign_text(&key(1), &format!("{h}.{p}=")), Malformed);
    cases.bad_twice("padded signature", format!("{good}=="), Signature, Malformed);
    cases.bad(
        "standard alphabet",
        sign_text(&key(1), &format!("{}.{p}", h.replacen('J', "+", 1))),
        Malformed,
    );
    cases.bad("payload not base64", sign_text(&key(1), &format!("{h}.!!!!")), Malformed);
    cases.bad("payload of one character", sign_text(&key(1), &format!("{h}.A")), Malformed);
    let last = s.as_bytes()[s.len() - 1];
    for step in 1..16 {
        let twin = format!("{h}.{p}.{}{}", &s[..s.len() - 1], next(last, step));
        cases.bad_twice(&format!("trailing bits {step} in the signature"), twin, Signature, Malformed);
    }
    let (long_h, long_p) = (two_over(header(KIDS[0])), two_over(claims().to_string()));
    cases.bad(
        "trailing bits in the header",
        sign_text(&key(1), &format!("{}.{p}", spare(&long_h))),
        Malformed,
    );
    cases.bad(
        "trailing bits in the payload",
        sign_text(&key(1), &format!("{h}.{}", spare(&long_p))),
        Malformed,
    );
}

fn nested(cases: &mut Cases) {
    let good = token();
    cases.bad("nested JWS", sign(&key(1), header(KIDS[0]), &good), Payload);
    cases.bad("nested JWS as a JSON string", sign(&key(1), header(KIDS[0]), format!("\"{good}\"")), Payload);
    let cty = format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{}","cty":"JWT"}}"#, KIDS[0]);
    cases.bad_twice("nested JWS with cty", sign(&key(1), cty, &good), Payload, Header);
}

fn sizes(cases: &mut Cases) {
    let mut big = claims();
    big["pad"] = json!("x".repeat(6 * 1024));
    let big = sign(&key(1), header(KIDS[0]), big.to_string());
    cases.bad("longer than 8 KiB, well signed", big, TooLarge);
    cases.bad("8193 bytes", "A".repeat(8193), TooLarge);
    cases.bad("8192 bytes of nothing", "A".repeat(8192), Malformed);
}

/// With spaces behind, until its length leaves two spare bits in base64url.
fn two_over(mut text: String) -> String {
    while text.len() % 3 != 2 {
        text.push(' ');
    }
    text
}

/// base64url with a spare bit set.
fn spare(text: &str) -> String {
    let encoded = b64(text);
    let last = encoded.as_bytes()[encoded.len() - 1];
    format!("{}{}", &encoded[..encoded.len() - 1], next(last, 1))
}

/// The character whose value is `step` more in the spare bits, which are zero.
fn next(character: u8, step: usize) -> char {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = ALPHABET.iter().position(|known| *known == character).expect("a character of base64url");
    char::from(ALPHABET[at + step])
}
