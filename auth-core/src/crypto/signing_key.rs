//! The Ed25519 keys that sign access tokens: made from random bytes, named by their thumbprint, sealed at rest.
//!
//! When a key signs and when it is shown is `domain::keys`; what a token says is [`super::access_token`].

use super::mac::sha256;
use super::seal::{Aad, SealError, Sealer};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, VerifyingKey};
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;

/// A private key ready to sign, with the header segment that all its tokens begin with.
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
    kid: String,
    header: String,
}

/// Shows the kid only.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, [redacted])", self.kid)
    }
}

/// Why a stored key cannot be used. The row is to be left out and reported; the other keys go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// The sealed half does not open.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// What was sealed is not 32 bytes.
    #[error("the private key is not 32 bytes")]
    PrivateLength,
    /// The public half is not 32 bytes.
    #[error("the public key is not 32 bytes")]
    PublicLength,
    /// The public half is no point of the curve, or one of small order, for which anybody can forge.
    #[error("the public key is not a usable Ed25519 point")]
    Point,
    /// The kid is not the thumbprint of this key.
    #[error("the kid is not the thumbprint of the key")]
    Kid,
}

impl SigningKey {
    /// The key that RFC 8032 derives from 32 bytes of a secure random generator.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        let kid = thumbprint(key.verifying_key().as_bytes());
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{kid}"}}"#));
        Self { key, kid, header }
    }

    /// Opens a sealed key and checks that it is the one named `kid`.
    ///
    /// # Errors
    /// See [`BadKey`].
    pub fn unseal(kid: &str, sealed: &[u8], sealer: &Sealer) -> Result<Self, BadKey> {
        let seed = Zeroizing::new(sealer.open(&place(kid), sealed)?);
        let seed: &[u8; 32] = seed.as_slice().try_into().map_err(|_| BadKey::PrivateLength)?;
        let key = Self::from_seed(seed);
        if key.kid == kid { Ok(key) } else { Err(BadKey::Kid) }
    }

    /// The private half, sealed for the row of this kid. `nonce` must come fresh from the random generator.
    #[must_use]
    pub fn seal(&self, sealer: &Sealer, nonce: [u8; 24]) -> Vec<u8> {
        sealer.seal(&place(&self.kid), self.key.as_bytes(), nonce)
    }

    /// Its name: the RFC 7638 thumbprint, 43 characters.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half as stored.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// The public half ready to verify.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        self.key.verifying_key()
    }

    /// The public half as the JWKS shows it.
    #[must_use]
    pub fn jwk(&self) -> Jwk {
        Jwk::new(&self.public())
    }

    /// The first segment of its tokens.
    pub(super) fn header(&self) -> &str {
        &self.header
    }

    /// The signature over `header.payload`.
    pub(super) fn sign_bytes(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

/// A public key of the JWKS (RFC 7517, RFC 8037). The members stand in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    /// Always `OKP`.
    pub kty: String,
    /// Always `Ed25519`.
    pub crv: String,
    /// The public key, base64url.
    pub x: String,
    /// The thumbprint.
    pub kid: String,
    /// Always `sig`.
    #[serde(rename = "use")]
    pub usage: String,
    /// Always `EdDSA`.
    pub alg: String,
}

impl Jwk {
    /// The JWK of a public key.
    #[must_use]
    pub fn new(public: &[u8; 32]) -> Self {
        Self {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            x: URL_SAFE_NO_PAD.encode(public),
            kid: thumbprint(public),
            usage: "sig".to_owned(),
            alg: "EdDSA".to_owned(),
        }
    }
}

/// The public key of a stored row, checked before anybody relies on it.
///
/// # Errors
/// [`BadKey::PublicLength`], [`BadKey::Point`] or [`BadKey::Kid`].
pub fn verifying_key(kid: &str, public: &[u8]) -> Result<VerifyingKey, BadKey> {
    let public: &[u8; 32] = public.try_into().map_err(|_| BadKey::PublicLength)?;
    let key = VerifyingKey::from_bytes(public).map_err(|_| BadKey::Point)?;
    if key.is_weak() {
        return Err(BadKey::Point);
    }
    if thumbprint(public) == kid { Ok(key) } else { Err(BadKey::Kid) }
}

/// RFC 7638 with RFC 8037, section 2: SHA-256 over the required members in lexicographic order, base64url.
#[must_use]
pub fn thumbprint(public: &[u8; 32]) -> String {
    let x = URL_SAFE_NO_PAD.encode(public);
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    URL_SAFE_NO_PAD.encode(sha256(members.as_bytes()))
}

fn place(kid: &str) -> Vec<u8> {
    Aad::place(&[b"directory.signing_key", kid.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::ring::SecretRing;
    use proptest::prelude::*;

    fn sealer() -> Sealer {
        Sealer::new(SecretRing::parse("1 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE").unwrap())
    }

    /// RFC 8037, appendices A.1 to A.3.
    #[test]
    fn the_rfc_8037_example_comes_out() {
        let d = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let key = SigningKey::from_seed(&d.try_into().unwrap());
        assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(
            serde_json::to_string(&key.jwk()).unwrap(),
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","#.to_owned()
                + r#""kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k","use":"sig","alg":"EdDSA"}"#
        );
    }

    #[test]
    fn a_sealed_key_opens_under_its_own_name_only() {
        let key = SigningKey::from_seed(&[4; 32]);
        let sealed = key.seal(&sealer(), [0; 24]);
        assert_eq!(SigningKey::unseal(key.kid(), &sealed, &sealer()).unwrap().public(), key.public());
        let other = SigningKey::unseal("other", &sealed, &sealer()).unwrap_err();
        assert_eq!(other, BadKey::Sealed(SealError::NotAuthentic));
        let planted = sealer().seal(&place(key.kid()), &[5; 32], [0; 24]);
        assert_eq!(SigningKey::unseal(key.kid(), &planted, &sealer()).unwrap_err(), BadKey::Kid);
        let short = sealer().seal(&place(key.kid()), &[5; 31], [0; 24]);
        assert_eq!(SigningKey::unseal(key.kid(), &short, &sealer()).unwrap_err(), BadKey::PrivateLength);
    }

    #[test]
    fn damaged_public_keys_are_refused() {
        let key = SigningKey::from_seed(&[4; 32]);
        assert!(verifying_key(key.kid(), &key.public()).is_ok());
        assert_eq!(verifying_key(key.kid(), &[1; 31]), Err(BadKey::PublicLength));
        assert_eq!(verifying_key("x", &key.public()), Err(BadKey::Kid));
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(verifying_key(&thumbprint(&identity), &identity), Err(BadKey::Point));
        assert_eq!(verifying_key(&thumbprint(&[2; 32]), &[2; 32]), Err(BadKey::Point));
    }

    #[test]
    fn the_private_half_is_not_printed() {
        let key = SigningKey::from_seed(&[4; 32]);
        assert_eq!(format!("{key:?}"), format!("SigningKey({}, [redacted])", key.kid()));
    }

    proptest! {
        #[test]
        fn keys_round_trip(seed in any::<[u8; 32]>(), nonce in any::<[u8; 24]>()) {
            let key = SigningKey::from_seed(&seed);
            let again = SigningKey::unseal(key.kid(), &key.seal(&sealer(), nonce), &sealer()).unwrap();
            prop_assert_eq!(again.header(), key.header());
            prop_assert_eq!(verifying_key(key.kid(), &key.public()).unwrap(), again.verifying_key());
        }
    }
}
