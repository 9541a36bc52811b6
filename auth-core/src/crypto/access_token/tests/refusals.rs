//! What must be refused although, mostly, its signature is genuine (RFC 8725; RFC 9068, section 4).

use super::*;
use crate::crypto::mac::mac;

#[test]
fn headers_are_exact() {
    let h = header();
    let with = |member: &str| h.replacen('{', &format!("{{{member},"), 1);
    let headers = [
        h.replace("EdDSA", "none"),
        h.replace("EdDSA", "None"),
        h.replace("EdDSA", "eddsa"),
        h.replace("EdDSA", "Ed25519"),
        h.replace("EdDSA", "HS256"),
        h.replace("EdDSA", "ES256"),
        h.replace("EdDSA", ""),
        h.replace(r#""EdDSA""#, r#"["EdDSA"]"#),
        h.replace(r#""EdDSA""#, "null"),
        h.replace(r#""alg":"EdDSA","#, ""),
        h.replace("at+jwt", "JWT"),
        h.replace("at+jwt", "AT+JWT"),
        h.replace("at+jwt", "application/at+jwt"),
        h.replace("at+jwt", "logout+jwt"),
        h.replace(r#""typ":"at+jwt","#, ""),
        h.replace(r#""kid":""#, r#""Kid":""#),
        h.replace(&format!(r#""{}""#, key().kid()), "7"),
        with(r#""crit":[]"#),
        with(r#""crit":["exp"]"#),
        with(r#""jku":"https://evil.example/jwks""#),
        with(r#""jwk":{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#),
        with(r#""x5u":"https://evil.example""#),
        with(r#""x5c":[]"#),
        with(r#""b64":false"#),
        with(r#""zip":"DEF""#),
        with(r#""cty":"JWT""#),
        with(r#""alg":"EdDSA""#),
        with(r#""al\u0067":"none""#),
        with(r#""kid":"x""#),
        format!(r#"["EdDSA","at+jwt","{}"]"#, key().kid()),
        format!("{h}{h}"),
        format!("\u{feff}{h}"),
        "{}".into(),
        String::new(),
        "null".into(),
    ];
    for header in headers {
        assert_eq!(check(&signed(&header, &payload())), Err(BadAccessToken::Header), "{header}");
    }
    let foreign = h.replace(key().kid(), "other");
    assert_eq!(check(&signed(&foreign, &payload())), Err(BadAccessToken::UnknownKey));
}

#[test]
fn claims_are_typed_and_stand_once() {
    let p = payload();
    let mut payloads: Vec<String> = [
        (r#""iat":1800000000"#, r#""iat":"1800000000""#),
        (r#""iat":1800000000"#, r#""iat":1800000000.0"#),
        (r#""iat":1800000000"#, r#""iat":1.8e9"#),
        (r#""iat":1800000000"#, r#""iat":-1"#),
        (r#""iat":1800000000"#, r#""iat":1800000300"#),
        (r#""iat":1800000000"#, r#""iat":null"#),
        (r#""exp":1800000300"#, r#""exp":9223372036854775808"#),
        (r#""exp":1800000300"#, r#""exp":1e400"#),
        (r#""exp":1800000300"#, r#""exp":true"#),
        (r#""exp":1800000300"#, r#""exp":{}"#),
        (r#""auth_time":1799999000"#, r#""auth_time":-5"#),
        (r#""amr":["pwd"]"#, r#""amr":"pwd""#),
        (r#""amr":["pwd"]"#, r#""amr":[1]"#),
        (r#""tenant":"default""#, r#""tenant":1"#),
        (r#""tenant":"default""#, r#""tenant":"default","roles":null"#),
        (r#""tenant":"default""#, r#""tenant":"default","roles":"admin""#),
        (r#""tenant":"default""#, r#""tenant":"default","scope":null"#),
        (r#""tenant":"default""#, r#""tenant":"default","scope":["openid"]"#),
        (r#""tenant":"default""#, r#""tenant":"default","nbf":"0""#),
        (r#""tenant":"default""#, r#""tenant":"default","nbf":null"#),
        (r#""tenant":"default""#, r#""tenant":"default","nbf":-1"#),
        (r#""tenant":"default""#, r#""tenant":"default","exp":1800009999"#),
        (r#""tenant":"default""#, r#""tenant":"default","e\u0078p":1800009999"#),
        (r#""tenant":"default""#, r#""tenant":"default","x":1,"x":1"#),
        (r#""tenant":"default""#, r#""tenant":"default","x":{"y":1,"y":2}"#),
        (r#""aud":"https://id.example""#, r#""aud":[]"#),
        (r#""aud":"https://id.example""#, r#""aud":["https://id.example",1]"#),
        (r#""aud":"https://id.example""#, r#""aud":{"https://id.example":1}"#),
        (r#""aud":"https://id.example""#, r#""aud":null"#),
        (r#""sub":"01a3185c-5000-8707-"#, r#""sub":"01a3185c-5000-7707-"#),
        (r#""sub":"01a3185c-5000-8707-"#, r#""sub":"{01a3185c-5000-8707-"#),
        (r#""sid":"01a3185c-5000-8909-"#, r#""sid":"01a3185c50008909"#),
        (r#""jti":"BwcHBwcHBwcHBwcHBwcHBw""#, r#""jti":"BwcHBwcHBwcHBwcHBwcHBx""#),
        (r#""jti":"BwcHBwcHBwcHBwcHBwcHBw""#, r#""jti":"BwcH""#),
        (r#""iss":"https://id.example""#, r#""iss":["https://id.example"]"#),
    ]
    .into_iter()
    .map(|(from, to)| {
        assert!(p.contains(from), "{from}");
        p.replacen(from, to, 1)
    })
    .collect();
    let all: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&p).unwrap();
    for name in all.keys() {
        let mut without = all.clone();
        without.remove(name);
        payloads.push(serde_json::to_string(&without).unwrap());
    }
    payloads.extend([
        format!("[{p}]"),
        format!("{p} x"),
        "{}".into(),
        String::new(),
        "null".into(),
        "\"x\"".into(),
    ]);
    let in_order: Vec<_> = all.values().collect();
    payloads.push(serde_json::to_string(&in_order).unwrap());
    for payload in payloads {
        assert_eq!(check(&signed(&header(), &payload)), Err(BadAccessToken::Claims), "{payload}");
    }
}

#[test]
fn issuer_and_audience_are_exact() {
    for iss in [
        "https://id.example/",
        "https://ID.example",
        "http://id.example",
        "",
        "https://id.example.evil.example",
    ] {
        let token = key().sign(&AccessClaims { iss: iss.into(), ..claims() });
        assert_eq!(check(&token), Err(BadAccessToken::Issuer), "{iss}");
    }
    for aud in [&["https://id.example/"][..], &["api"], &["a", "https://id.example "], &[""]] {
        let token =
            key().sign(&AccessClaims { aud: aud.iter().map(|aud| (*aud).into()).collect(), ..claims() });
        assert_eq!(check(&token), Err(BadAccessToken::Audience), "{aud:?}");
    }
}

#[test]
fn time_has_a_leeway_and_an_end() {
    let token = key().sign(&claims());
    assert!(check_at(&token, 1_800_000_329).is_ok());
    assert_eq!(check_at(&token, 1_800_000_330), Err(BadAccessToken::Expired));
    assert!(check_at(&token, 1_799_999_970).is_ok());
    assert_eq!(check_at(&token, 1_799_999_969), Err(BadAccessToken::NotYet));
    let later = payload().replacen('{', r#"{"nbf":1800000131,"#, 1);
    assert_eq!(check(&signed(&header(), &later)), Err(BadAccessToken::NotYet));
    let endless = key().sign(&AccessClaims { exp: i64::MAX, ..claims() });
    assert!(check(&endless).is_ok(), "and nothing overflows");
}

#[test]
fn signatures_are_strict() {
    let (message, signature) = VECTOR.rsplit_once('.').unwrap();
    let genuine: [u8; 64] = URL_SAFE_NO_PAD.decode(signature).unwrap().try_into().unwrap();
    let with = |bytes: &[u8]| check(&format!("{message}.{}", URL_SAFE_NO_PAD.encode(bytes)));
    assert!(with(&genuine).is_ok());
    // RFC 8032, section 5.1.7: S must be below the group order L, or S + L would be a second signature.
    let order = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let (mut malleated, mut carry) = (genuine, 0);
    for (byte, add) in malleated[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + add + carry;
        (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
    }
    let (mut identity, public) = ([0; 64], key().public());
    identity[0] = 1;
    let hmac = mac(&public, &[message.as_bytes()]);
    let refused = [
        &malleated[..],
        &[0; 64],
        &identity,
        &genuine[..63],
        &[&genuine[..], &[0]].concat(),
        &hmac,
        &[],
        &public,
    ];
    for bytes in refused {
        assert_eq!(with(bytes), Err(BadAccessToken::Signature), "{bytes:?}");
    }
    let other = SigningKey::from_seed(&[8; 32]).sign_bytes(message.as_bytes());
    assert_eq!(with(&other), Err(BadAccessToken::Signature));
}

#[test]
fn spelling_is_canonical_and_bounded() {
    let [header, payload, signature] = VECTOR.split('.').collect::<Vec<_>>().try_into().unwrap();
    let malformed = [
        String::new(),
        ".".into(),
        "..".into(),
        header.into(),
        format!("{header}.{payload}"),
        format!("{VECTOR}="),
        format!("{VECTOR}\n"),
        format!(" {VECTOR}"),
        format!("{header}=.{payload}.{signature}"),
        format!("{header}.{payload}=.{signature}"),
        format!("{header}.{payload}+.{signature}"),
        // 64 bytes leave four unused bits in the last character.
        format!("{header}.{payload}.{}B", &signature[..85]),
    ];
    for token in malformed {
        let error = check(&token).unwrap_err();
        assert!(matches!(error, BadAccessToken::Malformed | BadAccessToken::Header), "{token}: {error}");
    }
    for extra in [format!("{VECTOR}.{signature}"), format!("{VECTOR}."), format!(".{VECTOR}")] {
        assert!(check(&extra).is_err(), "{extra}");
    }
    let long = AccessClaims { roles: vec!["x".repeat(MAX_TOKEN_BYTES)], ..claims() };
    assert_eq!(check(&key().sign(&long)), Err(BadAccessToken::TooLong));
}

/// For a key of small order anybody can make signatures: plain `verify` takes these.
#[test]
fn keys_of_small_order_sign_nothing() {
    let mut identity = [0; 32];
    identity[0] = 1;
    let weak = VerifyingKey::from_bytes(&identity).unwrap();
    let (message, _) = VECTOR.rsplit_once('.').unwrap();
    let forged = Signature::from_components(identity, [0; 32]);
    assert!(ed25519_dalek::Verifier::verify(&weak, message.as_bytes(), &forged).is_ok());
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(forged.to_bytes()));
    let aud = [ISS.to_owned()];
    let expected = Expected { iss: ISS, aud: &aud, now: NOW, leeway_s: 30 };
    assert_eq!(verify(&token, |_| Some(&weak), &expected), Err(BadAccessToken::Signature));
}
