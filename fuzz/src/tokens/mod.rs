//! The token corpus: good tokens, and bad ones each with the reason for which our two verifiers refuse it.
//!
//! The reasons stand here, not in the verifiers: a token that is refused by accident proves nothing. `token-corpus` writes
//! them all to `interop/corpus/tokens.json`; the same text comes out each time.

mod claims;
mod forms;
mod headers;
mod signatures;
mod valid;

use serde_json::{Value, json};

use crate::world::{AUDIENCE, ISSUER, NOW_S, jwks};

/// The rule that a token breaks, in `token-verifier`'s grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Longer than 8 KiB.
    TooLarge,
    /// Not three segments of canonical base64url.
    Malformed,
    /// The header cannot be read.
    Header,
    /// `alg`.
    Algorithm,
    /// `typ`.
    Type,
    /// A member that brings its own key or changes the reading.
    Forbidden,
    /// `kid` is missing or malformed.
    KeyId,
    /// No such key.
    UnknownKey,
    /// The signature.
    Signature,
    /// The payload cannot be read.
    Payload,
    /// The claim of that name.
    Claim(&'static str),
    /// `iss`.
    Issuer,
    /// `aud`.
    Audience,
    /// `exp`.
    Expired,
    /// `iat`, `nbf` or `auth_time`.
    NotYet,
    /// `exp - iat`.
    Lifetime,
}

impl Why {
    /// What `token-verifier` says.
    fn by_verifier(self) -> String {
        match self {
            Self::TooLarge => "the token is too large",
            Self::Malformed => "the token is not a compact JWS",
            Self::Header => "the token header is malformed",
            Self::Algorithm => "the token algorithm is not accepted",
            Self::Type => "the token is not an access token",
            Self::Forbidden => "the token header has a forbidden member",
            Self::KeyId => "the token key id is missing or malformed",
            Self::UnknownKey => "the token is signed by an unknown key",
            Self::Signature => "the token signature is wrong",
            Self::Payload => "the token payload is malformed",
            Self::Claim(name) => return format!("the token claim {name} is missing or malformed"),
            Self::Issuer => "the token is from another issuer",
            Self::Audience => "the token is for another audience",
            Self::Expired => "the token has expired",
            Self::NotYet => "the token is not valid yet",
            Self::Lifetime => "the token lifetime is out of range",
        }
        .to_owned()
    }

    /// What `auth-core` says, whose reasons are coarser.
    fn by_node(self) -> String {
        match self {
            Self::TooLarge => "token is too long",
            Self::Malformed => "token is malformed",
            Self::Header | Self::Algorithm | Self::Type | Self::Forbidden | Self::KeyId => {
                "token header is not acceptable"
            }
            Self::UnknownKey => "token key is unknown",
            Self::Signature => "token signature is wrong",
            Self::Payload | Self::Claim(_) | Self::Lifetime => "token claims are not acceptable",
            Self::Issuer => "token has another issuer",
            Self::Audience => "token has another audience",
            Self::Expired => "token has expired",
            Self::NotYet => "token is not valid yet",
        }
        .to_owned()
    }
}

/// A token and the two verdicts; no reason means that it is accepted.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is special about it; unique.
    pub name: String,
    /// The token.
    pub token: String,
    /// What a service that embeds `token-verifier` says.
    pub verifier: Option<Why>,
    /// What a node says.
    pub node: Option<Why>,
}

/// Collects cases.
#[derive(Default)]
pub struct Cases(Vec<Case>);

impl Cases {
    /// A token that both accept.
    fn good(&mut self, name: &str, token: String) {
        self.push(name, token, None, None);
    }

    /// A token that both refuse for one reason.
    fn bad(&mut self, name: &str, token: String, why: Why) {
        self.push(name, token, Some(why), Some(why));
    }

    /// A token that both refuse, each looking at another fault first.
    fn bad_twice(&mut self, name: &str, token: String, verifier: Why, node: Why) {
        self.push(name, token, Some(verifier), Some(node));
    }

    /// A token that only services refuse: the node alone can have signed it.
    fn bad_for_services(&mut self, name: &str, token: String, why: Why) {
        self.push(name, token, Some(why), None);
    }

    /// A token that only nodes refuse: they know what they write, services must let later versions pass.
    fn bad_for_nodes(&mut self, name: &str, token: String, why: Why) {
        self.push(name, token, None, Some(why));
    }

    fn push(&mut self, name: &str, token: String, verifier: Option<Why>, node: Option<Why>) {
        self.0.push(Case { name: name.to_owned(), token, verifier, node });
    }
}

/// All of them, always in the same order.
pub fn all() -> Vec<Case> {
    let mut cases = Cases::default();
    valid::add(&mut cases);
    forms::add(&mut cases);
    headers::add(&mut cases);
    signatures::add(&mut cases);
    claims::add(&mut cases);
    cases.0
}

/// The corpus as its file has it: one line a token.
pub fn document() -> String {
    let line = |case: &Case| {
        json!({
            "name": case.name,
            "valid": case.verifier.is_none() && case.node.is_none(),
            "token_verifier": case.verifier.map(Why::by_verifier),
            "auth_core": case.node.map(Why::by_node),
            "token": case.token,
        })
        .to_string()
    };
    let lines: Vec<String> = all().iter().map(line).collect();
    let head =
        [("issuer", json!(ISSUER)), ("audience", json!(AUDIENCE)), ("now_s", json!(NOW_S)), ("jwks", jwks())];
    let head: String =
        head.iter().map(|(name, value): &(&str, Value)| format!("\"{name}\":{value},\n")).collect();
    format!("{{\n{head}\"tokens\":[\n{}\n]}}\n", lines.join(",\n"))
}
