//! The JOSE header (RFC 7515 section 4): which key is asked for, and nothing else. It never chooses the algorithm.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::error::InvalidToken;
use crate::json::{Skipped, Text, put};

/// The only accepted `typ` (RFC 9068 section 2.1).
const TYPE: &str = "at+jwt";
/// The longest `kid`, in a token and in a key set.
pub(crate) const MAX_KID_BYTES: usize = 128;

/// Members that change how a token is to be read, or bring their own key.
const FORBIDDEN: [&str; 9] = ["crit", "b64", "zip", "jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256"];

/// A header whose `typ` and `kid` have been checked. `alg` is compared with the key once that is known.
#[derive(Debug)]
pub(crate) struct Header<'a> {
    pub alg: Cow<'a, str>,
    pub kid: Cow<'a, str>,
}

/// Reads and checks a decoded header.
pub(crate) fn parse(bytes: &[u8]) -> Result<Header<'_>, InvalidToken> {
    let text = std::str::from_utf8(bytes).map_err(|_| InvalidToken::Header)?;
    let raw: Raw<'_> = serde_json::from_str(text).map_err(|_| InvalidToken::Header)?;
    if raw.forbidden {
        return Err(InvalidToken::ForbiddenMember);
    }
    let alg = raw.alg.ok_or(InvalidToken::Algorithm)?.0;
    if raw.typ.is_none_or(|typ| typ.0 != TYPE) {
        return Err(InvalidToken::Type);
    }
    let kid = raw.kid.ok_or(InvalidToken::KeyId)?.0;
    if kid.is_empty() || kid.len() > MAX_KID_BYTES {
        return Err(InvalidToken::KeyId);
    }
    Ok(Header { alg, kid })
}

#[derive(Default)]
struct Raw<'a> {
    alg: Option<Text<'a>>,
    typ: Option<Text<'a>>,
    kid: Option<Text<'a>>,
    forbidden: bool,
}

impl<'de> Deserialize<'de> for Raw<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JOSE header")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw<'de>, A::Error> {
        let mut raw = Raw::default();
        let mut skipped = Skipped::default();
        while let Some(Text(name)) = map.next_key()? {
            match &*name {
                "alg" => put(&mut raw.alg, &mut map)?,
                "typ" => put(&mut raw.typ, &mut map)?,
                "kid" => put(&mut raw.kid, &mut map)?,
                other => {
                    raw.forbidden |= FORBIDDEN.contains(&other);
                    skipped.skip(name, &mut map)?;
                }
            }
        }
        Ok(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_extended_headers() {
        let header = parse(br#"{"alg":"EdDSA","typ":"at+jwt","kid":"k1"}"#).unwrap();
        assert_eq!((&*header.alg, &*header.kid), ("EdDSA", "k1"));
        assert!(parse(br#"{"alg":"EdDSA","typ":"at+jwt","kid":"k1","later":{"a":[1]}}"#).is_ok());
    }

    #[test]
    fn refusals() {
        use InvalidToken::*;
        for (text, want) in [
            (r#"["EdDSA","at+jwt","k1"]"#, Header),
            (r#"{"alg":"EdDSA","typ":"at+jwt","kid":"k1","kid":"k1"}"#, Header),
            (r#"{"alg":"EdDSA","typ":"at+jwt","kid":"k1","\u006bid":"k2"}"#, Header),
            (r#"{"alg":"EdDSA","typ":"at+jwt","kid":"k1","a":1,"a":1}"#, Header),
            (r#"{"alg":"EdDSA","typ":"at+jwt","kid":1}"#, Header),
            (r#"{"alg":"EdDSA","typ":"at+jwt","kid":null}"#, Header),
            (r#"{"alg":"EdDSA","typ":"at+jwt","kid":"k1"} x"#, Header),
            (r#"{"alg":"EdDSA","typ":"at+jwt","kid":"k1","crit":[]}"#, ForbiddenMember),
            (r#"{"typ":"at+jwt","kid":"k1"}"#, Algorithm),
            (r#"{"alg":"EdDSA","kid":"k1"}"#, Type),
            (r#"{"alg":"EdDSA","typ":"AT+JWT","kid":"k1"}"#, Type),
            (r#"{"alg":"EdDSA","typ":"at+jwt"}"#, KeyId),
            (r#"{"alg":"EdDSA","typ":"at+jwt","kid":""}"#, KeyId),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err(), want, "{text}");
        }
    }
}
