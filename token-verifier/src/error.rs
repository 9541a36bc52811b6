//! Why a token was not accepted. Every text here is fit for a client: it names the rule, never the token's content.

/// The two ways in which verification ends without claims.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The token is bad. Answer 401.
    #[error("{0}")]
    Invalid(#[from] InvalidToken),
    /// We lack the keys to tell. Answer 503 with `Retry-After`; never 401.
    #[error("{0}")]
    CannotDecide(#[from] CannotDecide),
}

/// The rule that a token broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// Longer than 8 KiB.
    #[error("the token is too large")]
    TooLarge,
    /// Not three non-empty segments of canonical base64url (RFC 7515 section 3.1).
    #[error("the token is not a compact JWS")]
    Malformed,
    /// The header is not a JSON object, or has a duplicate member or one of the wrong type.
    #[error("the token header is malformed")]
    Header,
    /// `alg` is not the algorithm of the key.
    #[error("the token algorithm is not accepted")]
    Algorithm,
    /// `typ` is not `at+jwt` (RFC 9068 section 2.1).
    #[error("the token is not an access token")]
    Type,
    /// A header member that we never accept, such as `crit` or an embedded key.
    #[error("the token header has a forbidden member")]
    ForbiddenMember,
    /// `kid` is missing, empty or longer than 128 bytes.
    #[error("the token key id is missing or malformed")]
    KeyId,
    /// The issuer, asked recently, has no usable key with this `kid`.
    #[error("the token is signed by an unknown key")]
    UnknownKey,
    /// The signature is not that of the key (strict Ed25519).
    #[error("the token signature is wrong")]
    Signature,
    /// The payload is not a JSON object.
    #[error("the token payload is malformed")]
    Payload,
    /// The named claim is missing, duplicate, of the wrong type or out of range.
    #[error("the token claim {0} is missing or malformed")]
    Claim(&'static str),
    /// `iss` is not our issuer.
    #[error("the token is from another issuer")]
    Issuer,
    /// `aud` does not contain our audience.
    #[error("the token is for another audience")]
    Audience,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `iat`, `nbf` or `auth_time` lies in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `exp` is not after `iat`, or lies too far after it.
    #[error("the token lifetime is out of range")]
    Lifetime,
}

/// Why we cannot tell whether a token is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CannotDecide {
    /// No key set was ever loaded.
    #[error("no keys have been loaded yet")]
    NoKeys,
    /// The key set was last confirmed longer ago than the stale bound.
    #[error("the keys are too old to be trusted")]
    KeysTooOld,
    /// The `kid` is unknown, and the issuer could not be asked recently whether it is new.
    #[error("the token key is unknown and the issuer could not be asked")]
    UnconfirmedKey,
}

impl VerifyError {
    /// Whether a newer key set could change the verdict.
    pub(crate) fn hangs_on_keys(&self) -> bool {
        matches!(self, Self::CannotDecide(_) | Self::Invalid(InvalidToken::UnknownKey))
    }
}
