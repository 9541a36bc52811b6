//! Values that are encrypted at rest: e-mail addresses, private signing keys, later TOTP secrets.
//!
//! A sealed value is `1 ‖ key id (u32 BE) ‖ nonce (24) ‖ XChaCha20-Poly1305 ciphertext and tag`. The additional data
//! says where the value belongs, so that somebody who can write to the database cannot move a value into another
//! row or column and have it opened there. Nonces are 24 random bytes from the caller.

use super::mac::length_prefixed;
use super::ring::SecretRing;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use shard_key::{TenantId, UserId};

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + 4 + NONCE_BYTES;

/// Seals and opens under the keys of `seal.keys`.
#[derive(Clone, Debug)]
pub struct Sealer {
    ring: SecretRing,
}

/// Why a sealed value does not open. None of these is the caller's fault: the row is damaged, was moved, or its key
/// is missing on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Too short to be a sealed value.
    #[error("sealed value is cut short")]
    Truncated,
    /// Written by a later version.
    #[error("sealed value has unknown version {0}")]
    UnknownVersion(u8),
    /// The ring does not hold its key.
    #[error("sealed value needs key {0}, which is not in the ring")]
    UnknownKey(u32),
    /// Changed, or opened in another place than it was sealed for.
    #[error("sealed value is not authentic in this place")]
    NotAuthentic,
}

/// Where a sealed value belongs: the additional data of the seal.
pub struct Aad;

impl Aad {
    /// A column of a user's row: table ‖ column ‖ tenant ‖ user, each length-prefixed.
    #[must_use]
    pub fn user_column(table: &str, column: &str, tenant: TenantId, user: UserId) -> Vec<u8> {
        let tenant = tenant.get().to_be_bytes();
        length_prefixed(&[table.as_bytes(), column.as_bytes(), &tenant, user.as_uuid().as_bytes()])
    }

    /// A place that belongs to no user: each part length-prefixed.
    #[must_use]
    pub fn place(parts: &[&[u8]]) -> Vec<u8> {
        length_prefixed(parts)
    }
}

impl Sealer {
    /// Seals with the ring's first key and opens with all of them.
    #[must_use]
    pub fn new(ring: SecretRing) -> Self {
        Self { ring }
    }

    /// Encrypts for one place. `nonce` must come fresh from the random generator.
    #[must_use]
    pub fn seal(&self, aad: &[u8], plaintext: &[u8], nonce: [u8; NONCE_BYTES]) -> Vec<u8> {
        let (id, key) = self.ring.current();
        let ciphertext = cipher(key)
            .encrypt(&XNonce::from(nonce), Payload { msg: plaintext, aad })
            .expect("XChaCha20-Poly1305 fails only from 256 GiB on");
        let mut out = Vec::with_capacity(HEADER_BYTES + ciphertext.len());
        out.push(VERSION);
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&ciphertext);
        out
    }

    /// Decrypts what was sealed for this very place.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (&version, rest) = sealed.split_first().ok_or(SealError::Truncated)?;
        if version != VERSION {
            return Err(SealError::UnknownVersion(version));
        }
        let (id, rest) = rest.split_first_chunk::<4>().ok_or(SealError::Truncated)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Truncated)?;
        if ciphertext.len() < TAG_BYTES {
            return Err(SealError::Truncated);
        }
        let id = u32::from_be_bytes(*id);
        let key = self.ring.get(id).ok_or(SealError::UnknownKey(id))?;
        cipher(key)
            .decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad })
            .map_err(|_| SealError::NotAuthentic)
    }

    /// Whether the value stands under another key than the current one, and should be sealed anew when written.
    #[must_use]
    pub fn is_outdated(&self, sealed: &[u8]) -> bool {
        sealed.get(1..5) != Some(&self.ring.current().0.to_be_bytes())
    }
}

fn cipher(key: &[u8; 32]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OLD: &str = "1 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\n";
    const NEW: &str = "2 AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI\n";

    fn sealer(text: &str) -> Sealer {
        Sealer::new(SecretRing::parse(text).unwrap())
    }

    #[test]
    fn a_retired_key_still_opens() {
        let sealed = sealer(OLD).seal(b"here", b"ada@example.com", [9; 24]);
        let rotated = sealer(&format!("{NEW}{OLD}"));
        assert_eq!(rotated.open(b"here", &sealed).unwrap(), b"ada@example.com");
        assert!(rotated.is_outdated(&sealed));
        assert!(!rotated.is_outdated(&rotated.seal(b"", b"", [0; 24])));
        assert_eq!(sealer(NEW).open(b"here", &sealed), Err(SealError::UnknownKey(1)));
    }

    #[test]
    fn the_format_is_frozen() {
        let sealed = sealer(OLD).seal(b"aad", b"hi", [3; 24]);
        assert_eq!(sealed[..29], [&[1, 0, 0, 0, 1][..], &[3; 24]].concat());
        assert_eq!(sealed[29..], FROZEN);
    }

    /// Made with libsodium.
    const FROZEN: [u8; 18] = [38, 105, 92, 80, 67, 126, 100, 83, 22, 174, 149, 1, 181, 58, 184, 0, 200, 58];

    #[test]
    fn users_and_columns_are_places_of_their_own() {
        let user = UserId::generate(shard_key::Bucket::new(1).unwrap(), 1, [0; 8]);
        let other = UserId::generate(shard_key::Bucket::new(1).unwrap(), 1, [1; 8]);
        let tenant = TenantId::DEFAULT;
        let places = [
            Aad::user_column("users", "email", tenant, user),
            Aad::user_column("users", "email", tenant, other),
            Aad::user_column("users", "email", TenantId::new(2), user),
            Aad::user_column("user", "semail", tenant, user),
            Aad::place(&[b"users"]),
        ];
        let sealer = sealer(OLD);
        for (i, sealed_for) in places.iter().enumerate() {
            let sealed = sealer.seal(sealed_for, b"x", [0; 24]);
            for (j, opened_in) in places.iter().enumerate() {
                assert_eq!(sealer.open(opened_in, &sealed).is_ok(), i == j);
            }
        }
    }

    proptest! {
        #[test]
        fn values_round_trip_and_no_byte_can_change(
            aad in proptest::collection::vec(any::<u8>(), 0..40),
            text in proptest::collection::vec(any::<u8>(), 0..80),
            nonce in any::<[u8; 24]>(),
            at in any::<prop::sample::Index>(),
            flip in 1u8..,
        ) {
            let sealer = sealer(OLD);
            let mut sealed = sealer.seal(&aad, &text, nonce);
            prop_assert_eq!(sealer.open(&aad, &sealed).unwrap(), text);
            prop_assert!(sealer.open(&aad, &sealed[..at.index(sealed.len())]).is_err());
            let at = at.index(sealed.len());
            sealed[at] ^= flip;
            prop_assert!(sealer.open(&aad, &sealed).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(sealer(OLD).open(b"", &bytes).is_err());
        }
    }
}
