//! Access tokens that this process has opened before: a client sends the same one for minutes, and checking its
//! signature costs more than all the rest of a session check.
//!
//! **Why it cannot let anything in that [`access_token::verify`](super::access_token::verify) refuses.** Verifying is
//! two things. That these bytes have the right form and are signed by this key is a function of the bytes and the key
//! alone, and only that is remembered. It is remembered under the SHA-256 of the *whole* token, signature included, so
//! another signature or one flipped bit is another entry; to share one is to break SHA-256. Everything that can change
//! is asked anew each time: the key set must hold the same key under the same name (so a distrusted or removed key ends
//! its tokens with the next key set, entry or not), and issuer, audience, expiry, not-before and leeway are judged
//! against the clock. Whether the session lives was never a matter of the token.
//!
//! **Bounded.** A fixed number of slots; a token has one, and whoever comes later takes it. Only good tokens enter, so
//! strangers can neither fill nor flush it. An entry is what the token says, never the token: a dump of the process
//! holds nothing here that could be presented.
use std::sync::{Arc, Mutex, PoisonError};

use ed25519_dalek::VerifyingKey;

use super::access_token::{AccessClaims, BadAccessToken, Expected, MAX_TOKEN_BYTES, Signed};
use super::mac::sha256;

/// Slots: at 700 bytes an entry 3 MiB when all are taken.
const SLOTS: usize = 4096;

type Slot = Mutex<Option<(Hash, Arc<Signed>)>>;
type Hash = [u8; 32];

/// The tokens opened before.
pub struct OpenedTokens(Box<[Slot]>);

/// What a verified token says.
pub struct Verified(Arc<Signed>);

impl std::ops::Deref for Verified {
    type Target = AccessClaims;

    fn deref(&self) -> &AccessClaims {
        self.0.claims()
    }
}

impl Default for OpenedTokens {
    fn default() -> Self {
        Self::with_slots(SLOTS)
    }
}

impl OpenedTokens {
    fn with_slots(slots: usize) -> Self {
        Self((0..slots).map(|_| Slot::default()).collect())
    }

    /// As [`access_token::verify`](super::access_token::verify), and with the same verdict at any time.
    ///
    /// # Errors
    /// See [`BadAccessToken`].
    pub fn verify<'k>(
        &self,
        token: &str,
        keys: impl Fn(&str) -> Option<&'k VerifyingKey>,
        expected: &Expected<'_>,
    ) -> Result<Verified, BadAccessToken> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(BadAccessToken::TooLong);
        }
        let hash = sha256(token.as_bytes());
        let slot = self.slot(&hash);
        let held = slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let signed = match held {
            Some((of, signed)) if of == hash && signed.is_trusted(&keys) => signed,
            _ => {
                let signed = Arc::new(Signed::open(token, &keys)?);
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some((hash, Arc::clone(&signed)));
                signed
            }
        };
        signed.check(expected)?;
        Ok(Verified(signed))
    }

    fn slot(&self, hash: &Hash) -> &Slot {
        let [a, b, c, d, ..] = *hash;
        &self.0[u32::from_be_bytes([a, b, c, d]) as usize % self.0.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::super::access_token::verify;
    use super::super::signing_key::SigningKey;
    use super::*;
    use proptest::prelude::*;
    use shard_key::{Bucket, SessionId, UserId};

    const ISS: &str = "https://id.example";
    const NOW: i64 = 1_700_000_000;

    fn claims(number: u8) -> AccessClaims {
        let bucket = Bucket::new(7).unwrap();
        AccessClaims {
            iss: ISS.to_owned(),
            sub: UserId::generate(bucket, 1, [number; 8]),
            aud: vec![ISS.to_owned()],
            client_id: "first-party".to_owned(),
            sid: SessionId::generate(bucket, 1, [number; 8]),
            jti: "AAAAAAAAAAAAAAAAAAAAAA".to_owned(),
            iat: NOW,
            exp: NOW + 300,
            auth_time: NOW,
            amr: vec!["pwd".to_owned()],
            tenant: "default".to_owned(),
            roles: Vec::new(),
            scope: None,
        }
    }

    fn verdict(
        tokens: &OpenedTokens,
        token: &str,
        key: Option<&VerifyingKey>,
        (now, leeway_s): (i64, i64),
    ) -> Result<AccessClaims, BadAccessToken> {
        let aud = [ISS.to_owned()];
        let expected = Expected { iss: ISS, aud: &aud, now, leeway_s };
        let ours = tokens.verify(token, |_| key, &expected).map(|verified| verified.clone());
        assert_eq!(ours, verify(token, |_| key, &expected), "not what the plain check says");
        ours
    }

    #[test]
    fn the_clock_decides_each_time() {
        let (tokens, key) = (OpenedTokens::default(), SigningKey::from_seed(&[1; 32]));
        let (token, public) = (key.sign(&claims(1)), key.verifying_key());
        for _ in 0..2 {
            assert_eq!(verdict(&tokens, &token, Some(&public), (NOW, 30)), Ok(claims(1)));
            assert_eq!(verdict(&tokens, &token, Some(&public), (NOW + 329, 30)), Ok(claims(1)));
            assert_eq!(
                verdict(&tokens, &token, Some(&public), (NOW + 330, 30)),
                Err(BadAccessToken::Expired)
            );
            assert_eq!(verdict(&tokens, &token, Some(&public), (NOW + 300, 0)), Err(BadAccessToken::Expired));
            assert_eq!(verdict(&tokens, &token, Some(&public), (NOW - 31, 30)), Err(BadAccessToken::NotYet));
        }
    }

    #[test]
    fn a_key_that_left_the_set_ends_its_tokens() {
        let (tokens, key) = (OpenedTokens::default(), SigningKey::from_seed(&[1; 32]));
        let (token, public) = (key.sign(&claims(1)), key.verifying_key());
        assert!(verdict(&tokens, &token, Some(&public), (NOW, 30)).is_ok());
        assert_eq!(verdict(&tokens, &token, None, (NOW, 30)), Err(BadAccessToken::UnknownKey));
        let other = SigningKey::from_seed(&[2; 32]).verifying_key();
        assert_eq!(verdict(&tokens, &token, Some(&other), (NOW, 30)), Err(BadAccessToken::Signature));
        assert!(verdict(&tokens, &token, Some(&public), (NOW, 30)).is_ok());
    }

    #[test]
    fn another_issuer_or_audience_is_refused_though_the_token_is_known() {
        let (tokens, key) = (OpenedTokens::default(), SigningKey::from_seed(&[1; 32]));
        let (token, public) = (key.sign(&claims(1)), key.verifying_key());
        assert!(verdict(&tokens, &token, Some(&public), (NOW, 30)).is_ok());
        for (iss, aud) in [("https://other.example", ISS), (ISS, "https://other.example")] {
            let aud = [aud.to_owned()];
            let expected = Expected { iss, aud: &aud, now: NOW, leeway_s: 30 };
            assert!(tokens.verify(&token, |_| Some(&public), &expected).is_err());
        }
    }

    #[test]
    fn one_slot_serves_many_tokens() {
        let (tokens, key) = (OpenedTokens::with_slots(1), SigningKey::from_seed(&[1; 32]));
        let public = key.verifying_key();
        for number in (0..20).chain(0..20) {
            let token = key.sign(&claims(number));
            assert_eq!(verdict(&tokens, &token, Some(&public), (NOW, 30)), Ok(claims(number)));
        }
    }

    proptest! {
        /// A known token with a byte changed is judged as if nothing were known.
        #[test]
        fn a_changed_token_is_a_stranger(at in any::<prop::sample::Index>(), byte in 33u8..127) {
            let (tokens, key) = (OpenedTokens::with_slots(1), SigningKey::from_seed(&[1; 32]));
            let (token, public) = (key.sign(&claims(1)), key.verifying_key());
            prop_assert!(verdict(&tokens, &token, Some(&public), (NOW, 30)).is_ok());
            let mut changed = token.clone().into_bytes();
            changed[at.index(token.len())] = byte;
            let changed = String::from_utf8(changed).unwrap();
            let answer = verdict(&tokens, &changed, Some(&public), (NOW, 30));
            prop_assert_eq!(answer.is_ok(), changed == token);
        }
    }
}
