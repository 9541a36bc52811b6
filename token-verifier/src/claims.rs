//! The claims of an access token (RFC 9068 section 2.2), typed, and the checks on them that need a clock.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use uuid::Uuid;

use crate::error::InvalidToken;
use crate::json::{Skipped, Text, put};

/// The longest `client_id` and `jti`.
const MAX_ID_BYTES: usize = 255;

/// What a verified access token says. Only [`crate::Verifier`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claims {
    /// `iss`: the issuer, equal to the one that the verifier was built with.
    pub iss: String,
    /// `sub`: the user.
    pub sub: Uuid,
    /// `aud`: for whom the token is; one element if the token had a plain string.
    pub aud: Vec<String>,
    /// `client_id`: the OAuth client, or `first-party`.
    pub client_id: String,
    /// `sid`: the session, for logs and for "end this session".
    pub sid: Uuid,
    /// `jti`: the id of this token, unique within the issuer.
    pub jti: String,
    /// `iat`: when it was issued, in seconds since 1970.
    pub iat: u64,
    /// `exp`: from when on it is refused, in seconds since 1970.
    pub exp: u64,
    /// `auth_time`: when the user last proved who they are, in seconds since 1970.
    pub auth_time: u64,
    /// `amr`: how they did (RFC 8176), for example `pwd`.
    pub amr: Vec<String>,
    /// `tenant`: the tenant's name.
    pub tenant: String,
    /// `roles`: empty if the token has none.
    pub roles: Vec<String>,
    /// `scope`: words separated by single spaces (RFC 6749 section 3.3); `None` if the token has none.
    pub scope: Option<String>,
}

impl Claims {
    /// Whether `role` was granted.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|r| r == role)
    }

    /// Whether the single scope `scope` was granted.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes().any(|s| s == scope)
    }

    /// The single scopes.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scope.iter().flat_map(|scope| scope.split(' '))
    }
}

/// What claims are held against.
pub(crate) struct Expected<'a> {
    pub issuer: &'a str,
    pub audience: &'a str,
    pub now_s: u64,
    pub leeway_s: u64,
    pub max_lifetime_s: u64,
}

/// Reads the decoded payload of a token whose signature is good, and checks every claim.
pub(crate) fn parse(payload: &[u8], expected: &Expected<'_>) -> Result<Claims, InvalidToken> {
    let text = std::str::from_utf8(payload).map_err(|_| InvalidToken::Payload)?;
    let mut raw = Raw::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let read = raw.deserialize_into(&mut json).and_then(|()| json.end());
    if read.is_err() {
        return Err(raw.reading.map_or(InvalidToken::Payload, InvalidToken::Claim));
    }
    let nbf = raw.nbf;
    let claims = raw.complete()?;
    check(&claims, nbf, expected)?;
    Ok(claims)
}

fn check(claims: &Claims, nbf: Option<u64>, expected: &Expected<'_>) -> Result<(), InvalidToken> {
    if claims.iss != expected.issuer {
        return Err(InvalidToken::Issuer);
    }
    if !claims.aud.iter().any(|aud| aud == expected.audience) {
        return Err(InvalidToken::Audience);
    }
    let lifetime_s = claims.exp.checked_sub(claims.iat).ok_or(InvalidToken::Lifetime)?;
    if lifetime_s == 0 || lifetime_s > expected.max_lifetime_s {
        return Err(InvalidToken::Lifetime);
    }
    let latest_s = expected.now_s.saturating_add(expected.leeway_s);
    if claims.iat > latest_s || nbf.is_some_and(|nbf| nbf > latest_s) {
        return Err(InvalidToken::NotYetValid);
    }
    // Another node may have checked the password, with a clock a little ahead of the one that signed.
    if claims.auth_time > claims.iat.saturating_add(expected.leeway_s) {
        return Err(InvalidToken::NotYetValid);
    }
    if expected.now_s >= claims.exp.saturating_add(expected.leeway_s) {
        return Err(InvalidToken::Expired);
    }
    Ok(())
}

#[derive(Default)]
struct Raw {
    iss: Option<String>,
    sub: Option<PlainUuid>,
    aud: Option<OneOrMany>,
    client_id: Option<String>,
    sid: Option<PlainUuid>,
    jti: Option<String>,
    iat: Option<u64>,
    exp: Option<u64>,
    nbf: Option<u64>,
    auth_time: Option<u64>,
    amr: Option<Vec<String>>,
    tenant: Option<String>,
    roles: Option<Vec<String>>,
    scope: Option<String>,
    /// The claim that is being read: the one at fault if reading fails.
    reading: Option<&'static str>,
}

impl Raw {
    fn deserialize_into<'de, D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error> {
        RawSeed(self).deserialize(deserializer)
    }

    fn complete(self) -> Result<Claims, InvalidToken> {
        fn need<T>(claim: &'static str, value: Option<T>) -> Result<T, InvalidToken> {
            value.ok_or(InvalidToken::Claim(claim))
        }
        fn id(claim: &'static str, value: Option<String>) -> Result<String, InvalidToken> {
            value.filter(|id| !id.is_empty() && id.len() <= MAX_ID_BYTES).ok_or(InvalidToken::Claim(claim))
        }
        if self.scope.as_ref().is_some_and(|scope| scope.split(' ').any(str::is_empty)) {
            return Err(InvalidToken::Claim("scope"));
        }
        Ok(Claims {
            iss: need("iss", self.iss)?,
            sub: need("sub", self.sub)?.0,
            aud: need("aud", self.aud)?.0,
            client_id: id("client_id", self.client_id)?,
            sid: need("sid", self.sid)?.0,
            jti: id("jti", self.jti)?,
            iat: need("iat", self.iat)?,
            exp: need("exp", self.exp)?,
            auth_time: need("auth_time", self.auth_time)?,
            amr: need("amr", self.amr)?,
            tenant: id("tenant", self.tenant)?,
            roles: self.roles.unwrap_or_default(),
            scope: self.scope,
        })
    }
}

/// Reads into a `Raw` that outlives a failure, so that the claim at fault can be named.
struct RawSeed<'r>(&'r mut Raw);

impl<'de> DeserializeSeed<'de> for RawSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RawSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JWT claims set")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let raw = self.0;
        let mut skipped = Skipped::default();
        macro_rules! claim {
            ($field:ident) => {{
                raw.reading = Some(stringify!($field));
                put(&mut raw.$field, &mut map)?;
            }};
        }
        while let Some(Text(name)) = map.next_key()? {
            match &*name {
                "iss" => claim!(iss),
                "sub" => claim!(sub),
                "aud" => claim!(aud),
                "client_id" => claim!(client_id),
                "sid" => claim!(sid),
                "jti" => claim!(jti),
                "iat" => claim!(iat),
                "exp" => claim!(exp),
                "nbf" => claim!(nbf),
                "auth_time" => claim!(auth_time),
                "amr" => claim!(amr),
                "tenant" => claim!(tenant),
                "roles" => claim!(roles),
                "scope" => claim!(scope),
                _ => skipped.skip(name, &mut map)?,
            }
            raw.reading = None;
        }
        Ok(())
    }
}

/// A UUID in its one canonical text form: hyphenated, lower case.
struct PlainUuid(Uuid);

impl<'de> Deserialize<'de> for PlainUuid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        let uuid = Uuid::try_parse(&text).map_err(D::Error::custom)?;
        if uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) != text.as_ref() {
            return Err(D::Error::custom("not a canonical UUID"));
        }
        Ok(Self(uuid))
    }
}

/// `aud`: a string or a list of strings (RFC 7519 section 4.1.3).
struct OneOrMany(Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor)
    }
}

struct OneOrManyVisitor;

impl<'de> Visitor<'de> for OneOrManyVisitor {
    type Value = OneOrMany;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_str<E>(self, text: &str) -> Result<OneOrMany, E> {
        Ok(OneOrMany(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMany, A::Error> {
        let mut list = Vec::new();
        while let Some(text) = seq.next_element()? {
            list.push(text);
        }
        Ok(OneOrMany(list))
    }
}
