//! Tokens whose form is wrong: segments, base64url, header.

use ed25519_dalek::Signer as _;
use serde_json::json;
use token_verifier::InvalidToken::*;

use crate::Case;
use crate::common::*;

pub fn shapes(cases: &mut Vec<Case>) {
    let good = token(KID, &key(1));
    let [h, p, s] = good.split('.').collect::<Vec<_>>()[..] else { unreachable!() };
    let mut case = |name: &str, token: String, want| cases.push((name.to_owned(), token, want));
    case("empty", String::new(), Malformed);
    case("one dot", ".".to_owned(), Malformed);
    case("two dots", "..".to_owned(), Malformed);
    case("one segment", h.to_owned(), Malformed);
    case("two segments", format!("{h}.{p}"), Malformed);
    case("four segments", format!("{good}.{s}"), Malformed);
    case("five segments (JWE)", format!("{good}.{s}.{s}"), Malformed);
    case("empty header", format!(".{p}.{s}"), Malformed);
    case("empty payload", format!("{h}..{s}"), Malformed);
    case("empty signature", format!("{h}.{p}."), Malformed);
    case("dot in front", format!(".{good}"), Malformed);
    case("dot behind", format!("{good}."), Malformed);
    case("space in front", format!(" {good}"), Malformed);
    case("space behind", format!("{good} "), Signature);
    case("newline behind", format!("{good}\n"), Signature);
    case("newline inside", format!("{h}\n.{p}.{s}"), Malformed);
    case("newline in the payload", format!("{h}.{p}\n.{s}"), Signature);
    case("NUL behind", format!("{good}\0"), Signature);
    case("NUL inside", format!("{h}\0.{p}.{s}"), Malformed);
    case("padded header", format!("{h}=.{p}.{s}"), Malformed);
    case("padded signature", format!("{h}.{p}.{s}=="), Signature);
    case("standard alphabet", format!("{}.{p}.{s}", h.replacen('J', "+", 1)), Malformed);
    case("not ASCII", format!("{h}é.{p}.{s}"), Malformed);
    case("full-width dots", format!("{h}．{p}．{s}"), Malformed);
    case("percent-encoded", good.replace('.', "%2E"), Malformed);
    case("Bearer inside", format!("Bearer {good}"), Malformed);
    case(
        "JSON serialisation",
        format!(r#"{{"protected":"{h}","payload":"{p}","signature":"{s}"}}"#),
        Malformed,
    );
    case("too large", format!("{h}.{}.{s}", "A".repeat(8 * 1024)), TooLarge);
    let mut big = claims();
    big["roles"] = json!(["r".repeat(8 * 1024)]);
    case("too large, well signed", sign(&key(1), header(KID), big.to_string()), TooLarge);
    let last = s.as_bytes()[s.len() - 1];
    let twin = char::from(if last == b'Z' { b'Y' } else { last + 1 });
    case("trailing bits in the signature", format!("{h}.{p}.{}{twin}", &s[..s.len() - 1]), Signature);
    // A payload whose length leaves two spare bits, re-signed with them set: only strict base64 notices.
    let mut payload = claims().to_string();
    while payload.len() % 3 != 2 {
        payload.push(' ');
    }
    let mut encoded = b64(&payload).into_bytes();
    let end = encoded.len() - 1;
    encoded[end] += 1;
    let signed = format!("{h}.{}", String::from_utf8(encoded).unwrap());
    case("trailing bits in the payload", resign(&signed), Malformed);
    case("padded payload", resign(&format!("{h}.{}=", b64(&payload))), Malformed);
    case("payload not base64", resign(&format!("{h}.!!!!")), Malformed);
    case("nested JWS", sign(&key(1), header(KID), &good), Payload);
}

pub fn headers(cases: &mut Vec<Case>) {
    let mut case = |header: &str, want| {
        cases.push((format!("header {header}"), sign(&key(1), header, claims().to_string()), want));
    };
    for alg in [
        "none", "None", "NONE", "eddsa", "EDDSA", "EdDSA ", "Ed25519", "Ed448", "ES256", "RS256", "HS256", "",
    ] {
        case(&format!(r#"{{"alg":"{alg}","typ":"at+jwt","kid":"{KID}"}}"#), Algorithm);
    }
    for typ in
        ["JWT", "jwt", "AT+JWT", "application/at+jwt", "at+jwt ", "id+jwt", "dpop+jwt", "logout+jwt", ""]
    {
        case(&format!(r#"{{"alg":"EdDSA","typ":"{typ}","kid":"{KID}"}}"#), Type);
    }
    case(&format!(r#"{{"alg":"EdDSA","kid":"{KID}"}}"#), Type);
    case(&format!(r#"{{"typ":"at+jwt","kid":"{KID}"}}"#), Algorithm);
    case(r#"{"alg":"EdDSA","typ":"at+jwt"}"#, KeyId);
    for (kid, want) in [
        (r#""""#, KeyId),
        (r#""key-9""#, UnknownKey),
        (r#""KEY-1""#, UnknownKey),
        (r#""key-1 ""#, UnknownKey),
        (r#""key-1\u0000""#, UnknownKey),
        (r#""../../key-1""#, UnknownKey),
        (r#""' OR 1=1 --""#, UnknownKey),
        (r#"["key-1"]"#, Header),
        ("1", Header),
        ("null", Header),
        ("true", Header),
        (r#"{"key-1":1}"#, Header),
        (r#""\ud800""#, Header),
    ] {
        case(&format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":{kid}}}"#), want);
    }
    case(&format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{}"}}"#, "k".repeat(129)), KeyId);
    let jwk = jwk(KID, &key(1));
    for extra in [
        r#""crit":["exp"]"#.to_owned(),
        r#""crit":[]"#.to_owned(),
        r#""crit":["b64"],"b64":false"#.to_owned(),
        r#""b64":true"#.to_owned(),
        r#""zip":"DEF""#.to_owned(),
        format!(r#""jwk":{jwk}"#),
        r#""jku":"http://127.0.0.1:1/keys""#.to_owned(),
        r#""x5u":"http://127.0.0.1:1/cert""#.to_owned(),
        r#""x5c":["AAAA"]"#.to_owned(),
        r#""x5t":"AAAA""#.to_owned(),
        r#""x5t#S256":"AAAA""#.to_owned(),
        r#""\u006aku":"http://127.0.0.1:1/keys""#.to_owned(),
    ] {
        case(&format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{KID}",{extra}}}"#), ForbiddenMember);
    }
    for duplicate in [
        r#""alg":"EdDSA""#,
        r#""alg":"none""#,
        r#""typ":"at+jwt""#,
        r#""kid":"key-1""#,
        r#""\u0061lg":"EdDSA""#,
    ] {
        case(&format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{KID}",{duplicate}}}"#), Header);
    }
    case(&format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{KID}","a":1,"a":2}}"#), Header);
    case(&format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{KID}"}}{{}}"#), Header);
    case(&format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{KID}",}}"#), Header);
    case(&format!(r#"{{'alg':'EdDSA','typ':'at+jwt','kid':'{KID}'}}"#), Header);
    case(&format!("\u{feff}{}", header(KID)), Header);
    for other in ["[]", r#"["EdDSA","at+jwt","key-1"]"#, "null", "1", r#""EdDSA""#, "{", "nonsense"] {
        case(other, Header);
    }
    case("{}", Algorithm);
    let many: String = (0..65).map(|n| format!(r#","{n}":1"#)).collect();
    case(&format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{KID}"{many}}}"#), Header);
    let mut not_utf8 = header(KID).into_bytes();
    not_utf8.splice(1..1, *b"\"a\":\"\xff\",");
    cases.push(("header not UTF-8".to_owned(), sign(&key(1), not_utf8, claims().to_string()), Header));
}

fn resign(signed: &str) -> String {
    format!("{signed}.{}", b64(key(1).sign(signed.as_bytes()).to_bytes()))
}
