//! Well-signed tokens whose claims are wrong.
use serde_json::json;

use super::Why::{Audience, Claim, Expired, Issuer, Lifetime, NotYet, Payload};
use super::{Cases, Why};
use crate::world::{AUDIENCE, ISSUER, KIDS, NOW_S, claims, header, key, sign};

const DATES: [&str; 4] = ["iat", "exp", "auth_time", "nbf"];
const REQUIRED: [&str; 11] =
    ["iss", "sub", "aud", "client_id", "sid", "jti", "iat", "exp", "auth_time", "amr", "tenant"];

pub fn add(cases: &mut Cases) {
    texts(cases);
    ids(cases);
    dates(cases);
    lists(cases);
    presence(cases);
    payloads(cases);
    parties(cases);
    times(cases);
}

fn payload(text: impl AsRef<[u8]>) -> String {
    sign(&key(1), header(KIDS[0]), text)
}

/// A well-signed token whose `claim` is the JSON text `value`.
fn with(claim: &str, value: &str) -> String {
    let mut claims = claims();
    claims[claim] = json!("@");
    payload(claims.to_string().replace(r#""@""#, value))
}

fn bad(cases: &mut Cases, claim: &str, value: &str, why: Why) {
    cases.bad(&name(claim, value), with(claim, value), why);
}

fn name(claim: &str, value: &str) -> String {
    let short: String = value.chars().take(60).collect();
    format!("{claim} {short}")
}

fn texts(cases: &mut Cases) {
    for claim in ["iss", "client_id", "jti", "tenant", "scope", "sub", "sid"] {
        for value in ["null", "1", "1.5", "true", "[]", r#"["a"]"#, "{}"] {
            bad(cases, claim, value, Claim(claim));
        }
    }
    // What a name or a scope may be is for services to check; a node wrote it.
    for claim in ["client_id", "tenant"] {
        for value in [r#""""#.to_owned(), format!(r#""{}""#, "x".repeat(256))] {
            cases.bad_for_services(&name(claim, &value), with(claim, &value), Claim(claim));
        }
    }
    for scope in ["", " ", "a  b", " a", "a "] {
        let value = format!("\"{scope}\"");
        cases.bad_for_services(&name("scope", &value), with("scope", &value), Claim("scope"));
    }
    // A node's own are 16 bytes; a service only needs to tell them apart.
    bad(cases, "jti", r#""""#, Claim("jti"));
    bad(cases, "jti", &format!(r#""{}""#, "x".repeat(256)), Claim("jti"));
    for jti in ["j-1", "AAECAwQFBgcICQoLDA0ODx", "AAECAwQFBgcICQoLDA0ODw==", "AAECAwQFBgcICQoLDA0ODxA"] {
        let value = format!("\"{jti}\"");
        cases.bad_for_nodes(&name("jti", &value), with("jti", &value), Claim("jti"));
    }
}

fn ids(cases: &mut Cases) {
    for claim in ["sub", "sid"] {
        for value in [
            "",
            "1",
            "01890a5dac968b2c80000123456789ab",
            "{01890a5d-ac96-8b2c-8000-0123456789ab}",
            "urn:uuid:01890a5d-ac96-8b2c-8000-0123456789ab",
            " 01890a5d-ac96-8b2c-8000-0123456789ab",
            "01890a5d-ac96-8b2c-8000-0123456789ab\\u0000",
            "01890a5d-ac96-8b2c-8000-0123456789aｂ",
            "01890a5d-ac96-8b2c-8000-0123456789a",
            "01890a5d_ac96_8b2c_8000_0123456789ab",
            "ada@example.com",
        ] {
            bad(cases, claim, &format!("\"{value}\""), Claim(claim));
        }
        // A node reads an id in either case, as from a path; it never writes capitals.
        let capitals = r#""01890A5D-AC96-8B2C-8000-0123456789AB""#;
        cases.bad_for_services(&name(claim, capitals), with(claim, capitals), Claim(claim));
        // To a service any UUID is one; a node finds the bucket in its own kind only.
        for other in ["01890a5d-ac96-7b2c-8000-0123456789ab", "00000000-0000-0000-0000-000000000000"] {
            let value = format!("\"{other}\"");
            cases.bad_for_nodes(&name(claim, &value), with(claim, &value), Claim(claim));
        }
    }
}

fn dates(cases: &mut Cases) {
    for claim in DATES {
        for value in [
            "null",
            "true",
            "[]",
            "{}",
            "[1900000000]",
            r#""1900000000""#,
            r#""2030-03-17T17:46:40Z""#,
            "1900000000.0",
            "1900000000.5",
            "1.9e9",
            "19e8",
            "-1",
            "-0",
            "-9223372036854775809",
            "18446744073709551616",
            "1e400",
            "9999999999999999999999999",
        ] {
            bad(cases, claim, value, Claim(claim));
        }
    }
    // No JSON at all. Where the number is read to its end first, the object is at fault.
    for value in ["+1900000000", "01900000000", "1900000000.", "NaN", "Infinity"] {
        bad(cases, "exp", value, Claim("exp"));
    }
    for value in ["0x713fb300", "1_900_000_000", "1900000000n"] {
        bad(cases, "exp", value, Payload);
    }
}

fn lists(cases: &mut Cases) {
    for claim in ["amr", "roles"] {
        for value in ["null", r#""pwd""#, "1", "{}", "[1]", "[null]", r#"[["pwd"]]"#, r#"["pwd",1]"#] {
            bad(cases, claim, value, Claim(claim));
        }
    }
    let nested = format!(r#"[["{AUDIENCE}"]]"#);
    let mixed = format!(r#"["{AUDIENCE}",1]"#);
    let keyed = format!(r#"{{"{AUDIENCE}":true}}"#);
    for value in ["null", "1", "true", "{}", "[1]", "[null]", &nested, &mixed, &keyed] {
        bad(cases, "aud", value, Claim("aud"));
    }
}

fn presence(cases: &mut Cases) {
    for claim in REQUIRED {
        let mut missing = claims();
        missing.as_object_mut().expect("an object").remove(claim);
        cases.bad(&format!("no {claim}"), payload(missing.to_string()), Claim(claim));
        let twice = claims().to_string().replacen('{', &format!(r#"{{"{claim}":{},"#, claims()[claim]), 1);
        cases.bad(&format!("{claim} twice"), payload(&twice), Claim(claim));
    }
    let p = claims().to_string();
    let first = |member: &str| payload(p.replacen('{', &format!("{{{member},"), 1));
    cases.bad("exp twice, one escaped", first(r#""\u0065xp":1900009999"#), Claim("exp"));
    cases.bad("nbf twice", first(r#""nbf":0,"nbf":0"#), Claim("nbf"));
    cases.bad("unknown claim twice", first(r#""a":1,"a":2"#), Payload);
    cases.bad("Exp for exp", payload(p.replace("\"exp\"", "\"Exp\"")), Claim("exp"));
    cases.bad("exp with a NUL in its name", payload(p.replace("\"exp\"", "\"exp\\u0000\"")), Claim("exp"));
    // Services read what they know and skip the rest.
    cases.bad_for_nodes("a member twice deep inside", first(r#""x":{"y":1,"y":2}"#), Payload);
    let many: Vec<String> = (0..65).map(|n| format!(r#""{n}":1"#)).collect();
    cases.bad_for_services("65 unknown claims", first(&many.join(",")), Payload);
}

fn payloads(cases: &mut Cases) {
    let text = claims().to_string();
    let mut bad = |name: &str, text: &[u8]| cases.bad(&format!("payload {name}"), payload(text), Payload);
    bad("list", format!("[{text}]").as_bytes());
    bad("null", b"null");
    bad("string", b"\"x\"");
    bad("number", b"1900000000");
    bad("of one NUL", b"\0");
    bad("with a comma too many", text.replacen('}', ",}", 1).as_bytes());
    bad("twice", format!("{text}{text}").as_bytes());
    bad("cut", &text.as_bytes()[..text.len() - 1]);
    bad("with a byte order mark", format!("\u{feff}{text}").as_bytes());
    bad("in UTF-16", &text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
    bad("not UTF-8", &[&text.as_bytes()[..text.len() - 1], b",\"a\":\"\xff\"}"].concat());
    bad("with NUL behind", format!("{text}\0").as_bytes());
    bad("with a raw NUL in a text", text.replacen('{', "{\"a\":\"\0\",", 1).as_bytes());
    bad("with NaN", text.replacen('{', r#"{"a":NaN,"#, 1).as_bytes());
    bad("compressed", &[0x78, 0x9c, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01]);
    // Skipping reads no escapes and needs no stack.
    let mut skipped = |name: &str, member: &str| {
        cases.bad_for_nodes(name, payload(text.replacen('{', &format!("{{{member},"), 1)), Payload);
    };
    skipped("half a surrogate in an unknown claim", r#""a":"\ud800""#);
    skipped("200 arrays in one another", &format!(r#""a":{}{}"#, "[".repeat(200), "]".repeat(200)));
}

fn parties(cases: &mut Cases) {
    for iss in [
        format!("{ISSUER}/"),
        ISSUER.to_uppercase(),
        ISSUER.replace("http", "https"),
        ISSUER.replace("3002", "3012"),
        ISSUER.replace("127.0.0.1", "localhost"),
        ISSUER[..ISSUER.len() - 1].to_owned(),
        format!("{ISSUER}.evil.example"),
        format!("{ISSUER}@evil.example"),
        format!("{ISSUER}\\u0000"),
        format!(" {ISSUER}"),
        format!("{ISSUER}#"),
        ISSUER.replace('1', "１"),
        String::new(),
    ] {
        bad(cases, "iss", &format!("\"{iss}\""), Issuer);
    }
    for aud in [
        r#""""#.to_owned(),
        r#""orders""#.to_owned(),
        r#"["a","b"]"#.to_owned(),
        format!(r#""{AUDIENCE}/""#),
        format!(r#""{AUDIENCE}0""#),
        format!(r#""a {AUDIENCE}""#),
        format!(r#""{AUDIENCE},a""#),
        format!(r#"["{}"]"#, &AUDIENCE[..AUDIENCE.len() - 1]),
        format!(r#"["{}"]"#, AUDIENCE.to_uppercase()),
        format!(r#"["{AUDIENCE}\u0000"]"#),
    ] {
        bad(cases, "aud", &aud, Audience);
    }
    // An empty list names nobody: a node calls that malformed.
    cases.bad_twice("aud []", with("aud", "[]"), Audience, Claim("aud"));
    let foreign = |kid: &str| sign(&key(3), header(kid), claims().to_string());
    cases.bad("signed by another issuer's key", foreign("key-3"), Why::UnknownKey);
    let mut theirs = claims();
    theirs["iss"] = json!("https://other.example");
    let theirs = sign(&key(3), header("key-3"), theirs.to_string());
    cases.bad("another issuer's good token", theirs, Why::UnknownKey);
}

fn times(cases: &mut Cases) {
    for value in [NOW_S, NOW_S - 1, 0] {
        bad(cases, "exp", &value.to_string(), Lifetime);
    }
    bad(cases, "exp", &u64::MAX.to_string(), Lifetime);
    bad(cases, "iat", &u64::MAX.to_string(), Lifetime);
    // How long it lives is the node's own decision.
    for (claim, value) in [("exp", NOW_S + 3601), ("exp", NOW_S * 1000), ("exp", i64::MAX as u64), ("iat", 0)]
    {
        cases.bad_for_services(&format!("{claim} {value}"), with(claim, &value.to_string()), Lifetime);
    }
    for value in [NOW_S + 31, i64::MAX as u64] {
        bad(cases, "nbf", &value.to_string(), NotYet);
    }
    cases.bad_twice("nbf 2^64 - 1", with("nbf", &u64::MAX.to_string()), NotYet, Claim("nbf"));
    bad(cases, "iat", &(NOW_S + 31).to_string(), NotYet);
    // Who signed knows when the user proved who they are.
    cases.bad_for_services("auth_time after iat", with("auth_time", &(NOW_S + 31).to_string()), NotYet);
    cases.bad_twice(
        "auth_time 2^64 - 1",
        with("auth_time", &u64::MAX.to_string()),
        NotYet,
        Claim("auth_time"),
    );
    for (name, ago) in [("30 s", 30), ("an hour", 3600), ("a year", 31_536_000)] {
        let mut expired = claims();
        (expired["iat"], expired["exp"], expired["auth_time"]) =
            (json!(NOW_S - ago - 300), json!(NOW_S - ago), json!(0));
        cases.bad(&format!("expired {name} ago"), payload(expired.to_string()), Expired);
    }
}
