//! The refresh token: what it says, and that we said it.
//!
//! `tsr_` + base64url(version 1 ‖ kid u32 BE ‖ session id 16 ‖ gen u64 BE ‖ seed 16 ‖ MAC 32). The MAC is HMAC-SHA256
//! under key `kid` of `refresh.keys`, over a label and every field before it, length-prefixed. Nothing of a token is
//! believed, and no database is asked, before its MAC has been checked: knowing somebody's session id is worth nothing.
//!
//! The seed is the family's 128 random bits and stays; only `gen` moves. A successor is therefore *derived*: after a
//! lost answer the same one can be made again, and a family never forks. Whether a generation is still good is the
//! session row's to say, not this module's.

use super::mac::{constant_time_eq, mac, sha256};
use super::ring::SecretRing;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use shard_key::SessionId;
use std::fmt;
use uuid::Uuid;

const PREFIX: &str = "tsr_";
const VERSION: u8 = 1;
const LABEL: &[u8] = b"tessera.refresh.v1";
const FIELD_BYTES: usize = 1 + 4 + 16 + 8 + 16;
const TOKEN_BYTES: usize = FIELD_BYTES + 32;
/// 77 bytes are 103 characters of base64url, after the prefix.
const TEXT_BYTES: usize = PREFIX.len() + (TOKEN_BYTES * 4).div_ceil(3);

/// One generation of a refresh token family.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken {
    /// The key that signs it.
    pub kid: u32,
    /// Its session; the bucket is inside.
    pub sid: SessionId,
    /// How often the family was rotated, 0 at login. Never negative.
    pub generation: i64,
    /// The family's secret, the same in all generations.
    pub seed: [u8; 16],
}

/// Shows everything but the seed.
impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshToken")
            .field("kid", &self.kid)
            .field("sid", &self.sid)
            .field("generation", &self.generation)
            .field("seed", &"[redacted]")
            .finish()
    }
}

/// Why a text is not a refresh token of ours. To the client all of these are one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRefreshToken {
    /// Wrong prefix, length or alphabet, or not the canonical spelling.
    #[error("not a refresh token")]
    Malformed,
    /// Written by a later version.
    #[error("unknown refresh token version")]
    UnknownVersion,
    /// Signed with a key that the ring does not hold. If it was ours once, it was removed too early.
    #[error("unknown refresh token key")]
    UnknownKey {
        /// When the session in it was opened, if it tells the truth: nothing of the token is proven.
        session_unix_ms: u64,
    },
    /// Forged or damaged.
    #[error("refresh token is not authentic")]
    NotAuthentic,
}

/// Why a token cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The ring does not hold the key that the session row names.
    #[error("refresh key {0} is not in the ring")]
    UnknownKey(u32),
    /// A row with a negative generation is damaged.
    #[error("the generation is negative")]
    NegativeGeneration,
}

/// Writes and reads refresh tokens under the keys of `refresh.keys`.
#[derive(Clone, Debug)]
pub struct RefreshCodec {
    ring: SecretRing,
}

impl RefreshCodec {
    /// Reads tokens of every key in the ring.
    #[must_use]
    pub fn new(ring: SecretRing) -> Self {
        Self { ring }
    }

    /// The key for new families and rotations.
    #[must_use]
    pub fn current_kid(&self) -> u32 {
        self.ring.current().0
    }

    /// The text of a token, signed with the key of its own `kid`: a replayed successor must come out the same.
    ///
    /// # Errors
    /// See [`EncodeError`]; both mean a damaged row or an incomplete ring, never a bad client.
    pub fn encode(&self, token: &RefreshToken) -> Result<String, EncodeError> {
        let key = self.ring.get(token.kid).ok_or(EncodeError::UnknownKey(token.kid))?;
        if token.generation < 0 {
            return Err(EncodeError::NegativeGeneration);
        }
        let mut bytes = [0; TOKEN_BYTES];
        let (fields, tag) = bytes.split_at_mut(FIELD_BYTES);
        fields[0] = VERSION;
        fields[1..5].copy_from_slice(&token.kid.to_be_bytes());
        fields[5..21].copy_from_slice(token.sid.as_uuid().as_bytes());
        fields[21..29].copy_from_slice(&token.generation.to_be_bytes());
        fields[29..].copy_from_slice(&token.seed);
        tag.copy_from_slice(&tag_of(key, fields));
        let mut text = String::with_capacity(TEXT_BYTES);
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
        Ok(text)
    }

    /// The token in a text, if one of our keys signed it.
    ///
    /// # Errors
    /// See [`BadRefreshToken`].
    pub fn decode(&self, text: &str) -> Result<RefreshToken, BadRefreshToken> {
        use BadRefreshToken::{Malformed, NotAuthentic, UnknownKey, UnknownVersion};
        let bytes = bytes_of(text).ok_or(Malformed)?;
        let (fields, tag) = bytes.split_at(FIELD_BYTES);
        if fields[0] != VERSION {
            return Err(UnknownVersion);
        }
        let kid = u32::from_be_bytes(array(&fields[1..5]));
        let session = SessionId::try_from(Uuid::from_bytes(array(&fields[5..21])));
        let Some(key) = self.ring.get(kid) else {
            return Err(UnknownKey { session_unix_ms: session.map_err(|_| Malformed)?.unix_ms() });
        };
        if !constant_time_eq(&tag_of(key, fields), tag) {
            return Err(NotAuthentic);
        }
        let sid = session.map_err(|_| Malformed)?;
        let generation = i64::from_be_bytes(array(&fields[21..29]));
        if generation < 0 {
            return Err(Malformed);
        }
        Ok(RefreshToken { kid, sid, generation, seed: array(&fields[29..]) })
    }

    /// The session that a text names, whoever wrote it. Only for counting forgeries: it proves nothing.
    #[must_use]
    pub fn named_session(&self, text: &str) -> Option<SessionId> {
        SessionId::try_from(Uuid::from_bytes(array(&bytes_of(text)?[5..21]))).ok()
    }
}

/// What the session row keeps of the seed: whoever reads the row cannot make a token.
#[must_use]
pub fn seed_hash(seed: &[u8; 16]) -> [u8; 32] {
    sha256(seed)
}

fn bytes_of(text: &str) -> Option<[u8; TOKEN_BYTES]> {
    if text.len() != TEXT_BYTES {
        return None;
    }
    URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?.try_into().ok()
}

fn tag_of(key: &[u8; 32], fields: &[u8]) -> [u8; 32] {
    mac(key, &[LABEL, &fields[..1], &fields[1..5], &fields[5..21], &fields[21..29], &fields[29..]])
}

fn array<const N: usize>(slice: &[u8]) -> [u8; N] {
    slice.try_into().expect("the ranges above cut pieces of the right size")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shard_key::Bucket;

    const RING: &str = "2 AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI\n\
                        1 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\n";

    fn codec(text: &str) -> RefreshCodec {
        RefreshCodec::new(SecretRing::parse(text).unwrap())
    }

    fn sid() -> SessionId {
        SessionId::generate(Bucket::new(5).unwrap(), 1_800_000_000_000, [7; 8])
    }

    /// Signs any field values with key 1: what only we, or a bug of ours, could make.
    fn signed(fields: &[u8]) -> String {
        let tag = tag_of(&[1; 32], fields);
        format!("tsr_{}", URL_SAFE_NO_PAD.encode([fields, &tag].concat()))
    }

    fn fields(version: u8, kid: u32, sid: Uuid, generation: i64) -> Vec<u8> {
        [&[version][..], &kid.to_be_bytes(), sid.as_bytes(), &generation.to_be_bytes(), &[9; 16]].concat()
    }

    /// Tokens live for 90 days: these texts must be read, and written, for ever.
    #[test]
    fn vectors_are_frozen() {
        let sid: SessionId = "01a3185c-5000-8707-8005-070707070707".parse().unwrap();
        let vectors = [
            (
                RefreshToken { kid: 1, sid, generation: 0, seed: [0; 16] },
                "tsr_AQAAAAEBoxhcUACHB4AFBwcHBwcHAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAxZ8g0WHxuWO2GXkdbOM_GuJQYO7orZtzRgkeDKIcSAw",
            ),
            (
                RefreshToken { kid: 2, sid, generation: i64::MAX, seed: [0xFF; 16] },
                "tsr_AQAAAAIBoxhcUACHB4AFBwcHBwcHf_______________________________G0tKV67bKHEgk_rddwceMCK-U97VCbdgPVVDgHl9aoo",
            ),
        ];
        for (token, text) in vectors {
            assert_eq!(codec(RING).encode(&token).unwrap(), text);
            assert_eq!(codec(RING).decode(text).unwrap(), token);
        }
    }

    #[test]
    fn new_families_take_the_first_key() {
        assert_eq!(codec(RING).current_kid(), 2);
    }

    #[test]
    fn a_token_is_written_with_its_own_key_or_not_at_all() {
        let token = RefreshToken { kid: 3, sid: sid(), generation: 0, seed: [0; 16] };
        assert_eq!(codec(RING).encode(&token), Err(EncodeError::UnknownKey(3)));
        let token = RefreshToken { kid: 1, generation: -1, ..token };
        assert_eq!(codec(RING).encode(&token), Err(EncodeError::NegativeGeneration));
    }

    #[test]
    fn each_refusal_has_its_reason() {
        use BadRefreshToken::{Malformed, NotAuthentic, UnknownKey, UnknownVersion};
        let good = fields(1, 1, sid().as_uuid(), 4);
        let text = signed(&good);
        assert_eq!(codec(RING).decode(&text).unwrap().generation, 4);
        let v7 = Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0000);
        let refused = [
            (String::new(), Malformed),
            (text.replace("tsr_", "tsx_"), Malformed),
            (format!("{text}="), Malformed),
            (text[..text.len() - 1].to_owned(), Malformed),
            (format!("{}é", &text[..text.len() - 2]), Malformed),
            (text.replacen(&text[10..11], "+", 1), Malformed),
            (signed(&fields(2, 1, sid().as_uuid(), 0)), UnknownVersion),
            (signed(&fields(1, 9, sid().as_uuid(), 0)), UnknownKey { session_unix_ms: sid().unix_ms() }),
            (signed(&fields(1, 9, v7, 0)), Malformed),
            (signed(&fields(1, 2, sid().as_uuid(), 0)), NotAuthentic),
            (signed(&fields(1, 1, v7, 0)), Malformed),
            (signed(&fields(1, 1, Uuid::nil(), 0)), Malformed),
            (signed(&fields(1, 1, sid().as_uuid(), -1)), Malformed),
        ];
        for (text, reason) in refused {
            assert_eq!(codec(RING).decode(&text), Err(reason), "{text}");
        }
    }

    #[test]
    fn only_the_canonical_spelling_is_read() {
        let text = signed(&fields(1, 1, sid().as_uuid(), 0));
        let last = *text.as_bytes().last().unwrap();
        // 77 bytes leave 4 unused bits in the last character: 15 other characters would decode to the same bytes.
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        for other in alphabet.bytes().filter(|byte| *byte != last) {
            let changed = format!("{}{}", &text[..text.len() - 1], char::from(other));
            assert!(codec(RING).decode(&changed).is_err());
        }
    }

    #[test]
    fn the_seed_is_not_printed() {
        let token = RefreshToken { kid: 1, sid: sid(), generation: 0, seed: [0xAB; 16] };
        let shown = format!("{token:?}");
        assert!(shown.contains("[redacted]") && !shown.contains("171"), "{shown}");
    }

    proptest! {
        #[test]
        fn tokens_round_trip_and_no_character_can_change(
            kid in 1u32..=2, bucket in 0u16..16384, ms in 0u64..1 << 48, random in any::<[u8; 8]>(),
            generation in 0i64.., seed in any::<[u8; 16]>(), at in any::<prop::sample::Index>(), other in "[A-Za-z0-9_-]",
        ) {
            let sid = SessionId::generate(Bucket::new(bucket).unwrap(), ms, random);
            let token = RefreshToken { kid, sid, generation, seed };
            let mut text = codec(RING).encode(&token).unwrap();
            prop_assert_eq!(text.len(), TEXT_BYTES);
            prop_assert_eq!(codec(RING).decode(&text).unwrap(), token);
            let at = at.index(text.len());
            if text[at..=at] != other {
                text.replace_range(at..=at, &other);
                prop_assert!(codec(RING).decode(&text).is_err());
            }
        }

        #[test]
        fn no_text_panics(text in "(tsr_)?.{0,110}") {
            prop_assert!(codec(RING).decode(&text).is_err());
        }
    }
}
