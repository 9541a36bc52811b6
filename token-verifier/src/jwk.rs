//! A JWK set (RFC 7517 section 5) read with suspicion: every length is checked before a library sees it, one bad
//! key does not cost the good ones, and a set without a good key is refused as a whole.

use std::collections::HashMap;

use ed25519_dalek::VerifyingKey;

use crate::base64url;
use crate::header::MAX_KID_BYTES;
use crate::json::{Json, member};

/// The largest accepted body.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024;
/// JWS name of the one algorithm (RFC 8037 section 3.1).
pub(crate) const ALGORITHM: &str = "EdDSA";
/// Members of private keys (RFC 7518 section 6): a set that has one was published by mistake.
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A public key and the only algorithm that it is used with.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub algorithm: &'static str,
    pub verifying: VerifyingKey,
}

/// The good keys of a set by `kid`.
pub(crate) type Keys = HashMap<Box<str>, Key>;

/// Reads a set. Returns the good keys, never none, and how many were dropped.
pub(crate) fn parse_set(body: &[u8]) -> Result<(Keys, usize), &'static str> {
    if body.len() > MAX_BODY_BYTES {
        return Err("the key set is too large");
    }
    let set: Json = serde_json::from_slice(body).map_err(|_| "the key set is not JSON")?;
    let set = set.object().ok_or("the key set is not an object without duplicates")?;
    let Some(Json::List(list)) = member(set, "keys") else {
        return Err("the key set has no list of keys");
    };
    // A kid that is claimed twice is nobody's, even if one of the two keys is bad.
    let mut claimed: HashMap<&str, usize> = HashMap::new();
    for kid in list.iter().flat_map(kids_of) {
        *claimed.entry(kid).or_default() += 1;
    }
    let keys: Keys = list
        .iter()
        .filter_map(parse_key)
        .filter(|(kid, _)| claimed.get(kid) == Some(&1))
        .map(|(kid, key)| (kid.into(), key))
        .collect();
    if keys.is_empty() {
        return Err("the key set has no usable key");
    }
    let dropped = list.len() - keys.len();
    Ok((keys, dropped))
}

/// Every `kid` of an object, also of one that has several: which of them counts is a matter of the reader.
fn kids_of(jwk: &Json) -> impl Iterator<Item = &str> {
    let members = if let Json::Object(members) = jwk { members.as_slice() } else { &[] };
    members.iter().filter(|(name, _)| name == "kid").filter_map(|(_, kid)| kid.text())
}

/// One key, or `None` if anything about it is not as it must be (RFC 8037 section 2).
fn parse_key(jwk: &Json) -> Option<(&str, Key)> {
    let members = jwk.object()?;
    if members.iter().any(|(name, _)| PRIVATE.contains(&name.as_str())) {
        return None;
    }
    let text = |name| member(members, name).and_then(Json::text);
    if text("kty") != Some("OKP")
        || text("crv") != Some("Ed25519")
        || text("use") != Some("sig")
        || text("alg") != Some(ALGORITHM)
    {
        return None;
    }
    if let Some(operations) = member(members, "key_ops") {
        let Json::List(operations) = operations else { return None };
        operations.iter().find(|operation| operation.text() == Some("verify"))?;
    }
    let kid = text("kid").filter(|kid| !kid.is_empty() && kid.len() <= MAX_KID_BYTES)?;
    let x: [u8; 32] = base64url::decode_exact(text("x")?)?;
    if !is_canonical_point(&x) {
        return None;
    }
    let verifying = VerifyingKey::from_bytes(&x).ok().filter(|key| !key.is_weak())?;
    Some((kid, Key { algorithm: ALGORITHM, verifying }))
}

/// RFC 8032 section 5.1.3 step 1: y below p = 2^255 − 19. The curve library reduces instead.
fn is_canonical_point(x: &[u8; 32]) -> bool {
    let above = x[0] >= 0xed && x[1..31].iter().all(|&b| b == 0xff) && x[31] & 0x7f == 0x7f;
    !above
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"; // RFC 8037 appendix A.2

    fn jwk(kid: &str) -> String {
        format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{GOOD_X}","kid":"{kid}","use":"sig","alg":"EdDSA"}}"#)
    }

    fn set(keys: &[String]) -> Result<(Keys, usize), &'static str> {
        parse_set(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes())
    }

    #[test]
    fn one_bad_key_does_not_cost_the_others() {
        let good = jwk("good");
        let bad = [
            jwk("").replace(r#","kid":"""#, ""),
            jwk(""),
            jwk(&"k".repeat(129)),
            jwk("b").replace("OKP", "EC"),
            jwk("b").replace("Ed25519", "X25519"),
            jwk("b").replace(r#""sig""#, r#""enc""#),
            jwk("b").replace(r#""use":"sig","#, ""),
            jwk("b").replace(r#""EdDSA""#, r#""ES256""#),
            jwk("b").replace(GOOD_X, &GOOD_X[..42]),
            jwk("b").replace(GOOD_X, ""),
            jwk("b").replace(GOOD_X, &format!("{GOOD_X}=")),
            jwk("b").replace(GOOD_X, &format!("{GOOD_X}AAAA")),
            jwk("b").replace(GOOD_X, &format!("{}p", &GOOD_X[..42])), // trailing bits
            jwk("b").replace(GOOD_X, &"A".repeat(43)),                // y = 0: order 4
            jwk("b").replace(GOOD_X, &format!("AQ{}", "A".repeat(41))), // y = 1: the identity
            jwk("b").replace(GOOD_X, &format!("8P{}38", "_".repeat(39))), // y = p + 3: not canonical
            jwk("b").replace(r#""use""#, r#""d":"AA","use""#),
            jwk("b").replace(r#""use""#, r#""use":"sig","use""#),
            jwk("b").replace(r#""use""#, r#""key_ops":["sign"],"use""#),
            jwk("b").replace(r#""kid":"b""#, r#""kid":7"#),
            "7".to_owned(),
            "[]".to_owned(),
            "null".to_owned(),
        ];
        for bad in bad {
            assert_eq!(
                set(std::slice::from_ref(&bad)).unwrap_err(),
                "the key set has no usable key",
                "{bad}"
            );
            let (keys, dropped) = set(&[bad.clone(), good.clone()]).unwrap();
            assert_eq!((keys.len(), dropped), (1, 1), "{bad}");
            assert!(keys.contains_key("good"));
        }
        let (keys, dropped) = set(&[jwk("twice"), jwk("twice"), jwk("good")]).unwrap();
        assert_eq!((keys.len(), dropped, keys.contains_key("good")), (1, 2, true));
        let two_names = jwk("other").replace(r#""use""#, r#""kid":"twice","use""#);
        let (keys, dropped) = set(&[jwk("twice"), two_names, jwk("good")]).unwrap();
        assert_eq!((keys.len(), dropped, keys.contains_key("good")), (1, 2, true));
        let (keys, _) =
            set(&[jwk("a").replace(r#""use""#, r#""key_ops":["verify"],"later":1.5,"use""#)]).unwrap();
        assert_eq!(keys.len(), 1);
    }

    #[test]
    fn whole_sets_refused() {
        for body in ["", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[]}"#, "nonsense"] {
            assert!(parse_set(body.as_bytes()).is_err(), "{body}");
        }
        let twice = format!(r#"{{"keys":[{0}],"keys":[{0}]}}"#, jwk("a"));
        assert!(parse_set(twice.as_bytes()).is_err());
        let large = format!(r#"{{"keys":[{}],"pad":"{}"}}"#, jwk("a"), "x".repeat(MAX_BODY_BYTES));
        assert!(parse_set(large.as_bytes()).is_err());
    }
}
