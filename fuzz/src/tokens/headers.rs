//! Well-signed tokens whose header is wrong.
use super::Why::{Algorithm, Claim, Forbidden, Header, KeyId, Type, UnknownKey};
use super::{Cases, Why};
use crate::world::{KIDS, claims, header, jwk, key, sign};

pub fn add(cases: &mut Cases) {
    names(cases);
    key_ids(cases);
    members(cases);
    json(cases);
}

fn headed(header: impl AsRef<[u8]>) -> String {
    sign(&key(1), header, claims().to_string())
}

fn names(cases: &mut Cases) {
    let kid = KIDS[0];
    let algorithms = [
        "none",
        "None",
        "NONE",
        "nOnE",
        "eddsa",
        "EDDSA",
        "EdDSA ",
        " EdDSA",
        "EdDSA\\u0000",
        "EdDSА",
        "Ed25519",
        "Ed448",
        "ES256",
        "ES256K",
        "ES384",
        "RS256",
        "PS256",
        "HS256",
        "HS512",
        "RSA-OAEP",
        "dir",
        "",
    ];
    for alg in algorithms {
        let header = format!(r#"{{"alg":"{alg}","typ":"at+jwt","kid":"{kid}"}}"#);
        cases.bad(&format!("alg {alg:?}"), headed(header), Algorithm);
    }
    let types = [
        "JWT",
        "jwt",
        "AT+JWT",
        "At+Jwt",
        "application/at+jwt",
        "at+jwt ",
        "at+jwt\\u0000",
        "at-jwt",
        "id+jwt",
        "dpop+jwt",
        "logout+jwt",
        "secevent+jwt",
        "JOSE",
        "",
    ];
    for typ in types {
        let header = format!(r#"{{"alg":"EdDSA","typ":"{typ}","kid":"{kid}"}}"#);
        cases.bad(&format!("typ {typ:?}"), headed(header), Type);
    }
    cases.bad("no typ", headed(format!(r#"{{"alg":"EdDSA","kid":"{kid}"}}"#)), Type);
    cases.bad("no alg", headed(format!(r#"{{"typ":"at+jwt","kid":"{kid}"}}"#)), Algorithm);
    for value in ["null", "1", "true", "[]", r#"["EdDSA"]"#, "{}"] {
        let header = format!(r#"{{"alg":{value},"typ":"at+jwt","kid":"{kid}"}}"#);
        cases.bad(&format!("alg the JSON {value}"), headed(header), Header);
        let header = format!(r#"{{"alg":"EdDSA","typ":{value},"kid":"{kid}"}}"#);
        cases.bad(&format!("typ the JSON {value}"), headed(header), Header);
    }
}

fn key_ids(cases: &mut Cases) {
    cases.bad("no kid", headed(r#"{"alg":"EdDSA","typ":"at+jwt"}"#), KeyId);
    cases.bad("Kid for kid", headed(header(KIDS[0]).replace("kid", "Kid")), KeyId);
    let mut with = |kid: &str, verifier: Why, node: Why| {
        let header = format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":{kid}}}"#);
        cases.bad_twice(&format!("kid {}", &kid[..kid.len().min(40)]), headed(header), verifier, node);
    };
    let unknown = [
        "key-9",
        "KEY-1",
        "key-1 ",
        " key-1",
        "key-1\\u0000",
        "key-1\\u0000.pem",
        "kеy-1",
        "../../key-1",
        "../../../../dev/null",
        "/dev/null",
        "file:///dev/null",
        "http://127.0.0.1:1/key-1",
        "' OR 1=1 --",
        "x' UNION SELECT 'AAAA",
        "key-1|id",
        "$(id)",
        "key-1%00",
        "key-1/../key-2",
        "*",
    ];
    for kid in unknown {
        with(&format!("\"{kid}\""), UnknownKey, UnknownKey);
    }
    // To a node an empty or endless name is one more that no key has.
    with(r#""""#, KeyId, UnknownKey);
    with(&format!(r#""{}""#, "k".repeat(129)), KeyId, UnknownKey);
    for value in [r#"["key-1"]"#, "1", "null", "true", r#"{"key-1":1}"#, r#""\ud800""#, r#""\udc00\ud800""#] {
        with(value, Header, Header);
    }
    // A published name, another's signature.
    cases.bad("kid of the second key", headed(header(KIDS[1])), Why::Signature);
}

fn members(cases: &mut Cases) {
    let with = |member: &str| format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{}",{member}}}"#, KIDS[0]);
    let (ours, foreign) = (jwk(KIDS[0], &key(1)), jwk(KIDS[0], &key(3)));
    for member in [
        r#""crit":["exp"]"#,
        r#""crit":[]"#,
        r#""crit":null"#,
        r#""crit":["b64"],"b64":false"#,
        r#""crit":["http://openid.net/specs/jwt/1.0"]"#,
        r#""b64":true"#,
        r#""b64":false"#,
        r#""zip":"DEF""#,
        r#""jku":"http://127.0.0.1:1/keys""#,
        r#""jku":"http://127.0.0.1:3002/.well-known/jwks.json""#,
        r#""x5u":"http://127.0.0.1:1/cert""#,
        r#""x5c":["AAAA"]"#,
        r#""x5c":[]"#,
        r#""x5t":"AAAA""#,
        r##""x5t#S256":"AAAA""##,
        r#""\u006aku":"http://127.0.0.1:1/keys""#,
        r#""jwk":null"#,
    ] {
        cases.bad(&format!("header with {member}"), headed(with(member)), Forbidden);
    }
    cases.bad("header with its own jwk", headed(with(&format!(r#""jwk":{ours}"#))), Forbidden);
    // The classic: a stranger's key in the header, and the stranger's signature.
    let smuggled = sign(&key(3), with(&format!(r#""jwk":{foreign}"#)), claims().to_string());
    cases.bad("header with a foreign jwk, signed with it", smuggled, Forbidden);
    for member in
        [r#""cty":"JWT""#, r#""later":{"a":[1]}"#, r#""iss":"http://127.0.0.1:3002""#, r#""enc":"A256GCM""#]
    {
        cases.bad_for_nodes(&format!("header with {member}"), headed(with(member)), Header);
    }
    for twice in [
        r#""alg":"EdDSA""#,
        r#""alg":"none""#,
        r#""typ":"at+jwt""#,
        r#""kid":"key-1""#,
        r#""\u0061lg":"EdDSA""#,
    ] {
        cases.bad(&format!("header with twice {twice}"), headed(with(twice)), Header);
    }
    cases.bad("header with an unknown member twice", headed(with(r#""a":1,"a":2"#)), Header);
    let many: Vec<String> = (0..65).map(|n| format!(r#""{n}":1"#)).collect();
    cases.bad("header with 65 unknown members", headed(with(&many.join(","))), Header);
}

fn json(cases: &mut Cases) {
    let good = header(KIDS[0]);
    for other in ["[]", r#"["EdDSA","at+jwt","key-1"]"#, "null", "1", r#""EdDSA""#, "{", "nonsense", "{}{}"] {
        cases.bad(&format!("header {other}"), headed(other), Header);
    }
    cases.bad("header {}", headed("{}"), Algorithm);
    cases.bad("two headers", headed(format!("{good}{good}")), Header);
    cases.bad("header with a comma too many", headed(good.replace('}', ",}")), Header);
    cases.bad("header in single quotes", headed(good.replace('"', "'")), Header);
    cases.bad("header with a comment", headed(good.replace(',', ",/**/")), Header);
    cases.bad("header with a byte order mark", headed(format!("\u{feff}{good}")), Header);
    cases.bad(
        "header in UTF-16",
        headed(good.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>()),
        Header,
    );
    cases.bad("header with NUL behind", headed(format!("{good}\0")), Header);
    cases.bad("header with NUL inside", headed(good.replace("key-1", "key-1\0")), Header);
    cases.bad("header of 3000 arrays", headed("[".repeat(3000)), Header);
    let deep = format!(r#","a":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    // Skipping needs no stack, so a service does not count how deep.
    cases.bad_for_nodes("header with 200 arrays in one another", headed(good.replace('}', &deep)), Header);
    cases.bad("header not UTF-8", headed([b"{\"a\":\"\xff\",", &good.as_bytes()[1..]].concat()), Header);
    cases.bad(
        "header with an overlong slash",
        headed([b"{\"a\":\"\xc0\xaf\",", &good.as_bytes()[1..]].concat()),
        Header,
    );
    cases.bad("payload under a header alone", sign(&key(1), &good, "{}"), Claim("iss"));
}
