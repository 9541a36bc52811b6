//! The access token: a JWT after RFC 9068, signed with Ed25519, that services verify without asking us.
//!
//! Signing is by hand: the header segment is computed once a key, the payload is one serialisation, the key is cached.
//! Verifying takes the algorithm from the key and never from the token, and reads a single spelling of everything
//! (RFC 8725): exact header members, canonical base64url, integers that are integers, no member twice, strict Ed25519.
//! What a valid token is worth (is the session still live?) is decided elsewhere. `token-verifier` has the same rules
//! for services that embed it, and shares no code with us on purpose: each checks the other.

use super::signing_key::SigningKey;
use super::strict_json::{parse_object, present};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, VerifyingKey};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shard_key::{SessionId, UserId};
use std::fmt;

/// Longer tokens are refused unread. Ours have about 600 bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// What an access token says. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessClaims {
    /// Who issued it: `server.public_url`.
    pub iss: String,
    /// The user.
    pub sub: UserId,
    /// Whom it is for: at least one. A single one is written as a string, several as a list.
    #[serde(with = "audience")]
    pub aud: Vec<String>,
    /// The client it was issued to.
    pub client_id: String,
    /// The session it belongs to.
    pub sid: SessionId,
    /// Its own name: see [`jti`].
    pub jti: String,
    /// When it was issued.
    pub iat: i64,
    /// From then on it is not valid.
    pub exp: i64,
    /// When the user last proved who they are.
    pub auth_time: i64,
    /// How (RFC 8176).
    pub amr: Vec<String>,
    /// The tenant's slug.
    pub tenant: String,
    /// Roles; left out while there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Scopes, separated by spaces; left out while there are none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub scope: Option<String>,
}

/// What a token must say to be accepted here and now.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The only issuer.
    pub iss: &'a str,
    /// One of these must be among the token's audiences.
    pub aud: &'a [String],
    /// Now, in seconds since 1970.
    pub now: i64,
    /// How far clocks may differ, in seconds.
    pub leeway_s: i64,
}

/// Why a token is refused. To the client all of these are one answer; logs and metrics tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAccessToken {
    /// More than [`MAX_TOKEN_BYTES`].
    #[error("token is too long")]
    TooLong,
    /// Not three segments of canonical base64url.
    #[error("token is malformed")]
    Malformed,
    /// The header is not exactly alg `EdDSA`, typ `at+jwt` and a kid.
    #[error("token header is not acceptable")]
    Header,
    /// No key of that name is trusted.
    #[error("token key is unknown")]
    UnknownKey,
    /// The signature is not the key's.
    #[error("token signature is wrong")]
    Signature,
    /// A claim is missing, has the wrong type or stands twice.
    #[error("token claims are not acceptable")]
    Claims,
    /// Issued by somebody else.
    #[error("token has another issuer")]
    Issuer,
    /// Issued for somebody else.
    #[error("token has another audience")]
    Audience,
    /// Its time is over.
    #[error("token has expired")]
    Expired,
    /// Issued in the future, or not valid yet.
    #[error("token is not valid yet")]
    NotYet,
}

/// A token id from 16 random bytes: 22 characters.
#[must_use]
pub fn jti(random: [u8; 16]) -> String {
    URL_SAFE_NO_PAD.encode(random)
}

impl SigningKey {
    /// The signed token (RFC 7515, compact serialisation).
    #[must_use]
    pub fn sign(&self, claims: &AccessClaims) -> String {
        let payload = serde_json::to_vec(claims).expect("claims are strings, numbers and lists of them");
        let header = self.header();
        // 64 bytes of signature are 86 characters.
        let mut token = String::with_capacity(header.len() + payload.len().div_ceil(3) * 4 + 2 + 86);
        token.push_str(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(&payload, &mut token);
        let signature = self.sign_bytes(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }
}

/// The claims of a token, if a trusted key signed it and it says what is expected.
///
/// # Errors
/// See [`BadAccessToken`]. No claim is read before the signature has been checked.
pub fn verify<'k>(
    token: &str,
    keys: impl FnOnce(&str) -> Option<&'k VerifyingKey>,
    expected: &Expected<'_>,
) -> Result<AccessClaims, BadAccessToken> {
    let signed = Signed::open(token, keys)?;
    signed.check(expected)?;
    Ok(signed.claims)
}

/// A token whose form and signature are good, and by which key. What it says is not judged yet: that depends on now.
#[derive(Debug)]
pub(crate) struct Signed {
    kid: String,
    key: VerifyingKey,
    claims: AccessClaims,
    nbf: Option<i64>,
}

impl Signed {
    /// Everything about a token that no clock changes.
    pub(crate) fn open<'k>(
        token: &str,
        keys: impl FnOnce(&str) -> Option<&'k VerifyingKey>,
    ) -> Result<Self, BadAccessToken> {
        use BadAccessToken::{Claims, Header, Malformed, TooLong, UnknownKey};
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Malformed)?;
        let header: TokenHeader = parse_object(&decode(header)?).map_err(|_| Header)?;
        if header.alg != "EdDSA" || header.typ != "at+jwt" {
            return Err(Header);
        }
        let payload = decode(payload)?;
        let key = *keys(&header.kid).ok_or(UnknownKey)?;
        let signature = Signature::from_slice(&decode(signature)?).map_err(|_| BadAccessToken::Signature)?;
        key.verify_strict(signed.as_bytes(), &signature).map_err(|_| BadAccessToken::Signature)?;
        let claims = parse_object(&payload).map_err(|_| Claims)?;
        let NotBefore { nbf } = parse_object(&payload).map_err(|_| Claims)?;
        Ok(Self { kid: header.kid, key, claims, nbf })
    }

    /// Whether the key that signed it is still the one of that name.
    pub(crate) fn is_trusted<'k>(&self, keys: impl FnOnce(&str) -> Option<&'k VerifyingKey>) -> bool {
        keys(&self.kid).is_some_and(|key| *key == self.key)
    }

    /// Whether it says what is expected here and now.
    pub(crate) fn check(&self, expected: &Expected<'_>) -> Result<(), BadAccessToken> {
        check(&self.claims, self.nbf, expected)
    }

    /// What it says.
    pub(crate) const fn claims(&self) -> &AccessClaims {
        &self.claims
    }
}

fn check(claims: &AccessClaims, nbf: Option<i64>, expected: &Expected<'_>) -> Result<(), BadAccessToken> {
    use BadAccessToken::{Audience, Claims, Expired, Issuer, NotYet};
    let times = [claims.iat, claims.exp, claims.auth_time, nbf.unwrap_or(0)];
    let jti_is_ours = URL_SAFE_NO_PAD.decode(&claims.jti).is_ok_and(|bytes| bytes.len() == 16);
    if times.iter().any(|time| *time < 0) || claims.exp <= claims.iat || !jti_is_ours {
        return Err(Claims);
    }
    if claims.iss != expected.iss {
        return Err(Issuer);
    }
    if !claims.aud.iter().any(|aud| expected.aud.contains(aud)) {
        return Err(Audience);
    }
    if expected.now >= claims.exp.saturating_add(expected.leeway_s) {
        return Err(Expired);
    }
    let latest = expected.now.saturating_add(expected.leeway_s);
    if claims.iat > latest || nbf.is_some_and(|nbf| nbf > latest) { Err(NotYet) } else { Ok(()) }
}

/// The whole header. `crit`, `jwk`, `jku`, `x5c`, `b64` and everything else unknown is refused by its mere presence.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenHeader {
    alg: String,
    typ: String,
    kid: String,
}

/// Never written by us, but meant if it is there (RFC 7519, section 4.1.5).
#[derive(Deserialize)]
struct NotBefore {
    #[serde(default, deserialize_with = "present")]
    nbf: Option<i64>,
}

/// The engine refuses padding, foreign characters and non-zero trailing bits.
fn decode(segment: &str) -> Result<Vec<u8>, BadAccessToken> {
    URL_SAFE_NO_PAD.decode(segment).map_err(|_| BadAccessToken::Malformed)
}

/// `aud` is a string or a list of strings (RFC 7519, section 4.1.3).
mod audience {
    use super::*;

    pub fn serialize<S: Serializer>(aud: &[String], serializer: S) -> Result<S::Ok, S::Error> {
        match aud {
            [one] => serializer.serialize_str(one),
            several => serializer.collect_seq(several),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
        deserializer.deserialize_any(AudienceVisitor)
    }

    struct AudienceVisitor;

    impl<'de> Visitor<'de> for AudienceVisitor {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a list of strings")
        }

        fn visit_str<E>(self, one: &str) -> Result<Vec<String>, E> {
            Ok(vec![one.to_owned()])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<String>, A::Error> {
            let mut several = Vec::new();
            while let Some(one) = seq.next_element()? {
                several.push(one);
            }
            if several.is_empty() { Err(A::Error::custom("no audience")) } else { Ok(several) }
        }
    }
}

#[cfg(test)]
mod tests;
