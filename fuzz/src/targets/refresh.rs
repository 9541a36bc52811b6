//! Refresh tokens.
use std::sync::OnceLock;

use auth_core::crypto::refresh_token::{BadRefreshToken, RefreshCodec, RefreshToken};
use auth_core::crypto::ring::SecretRing;
use shard_key::{Bucket, SessionId};

fn codec() -> &'static RefreshCodec {
    static CODEC: OnceLock<RefreshCodec> = OnceLock::new();
    CODEC.get_or_init(|| {
        let ring =
            "2 AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI\n1 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\n";
        RefreshCodec::new(SecretRing::parse(ring).expect("a ring of two keys"))
    })
}

/// Any text: one that is taken has that one spelling, and what is said of one that is not follows from its session.
pub fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let named = codec().named_session(text);
    match codec().decode(text) {
        Ok(token) => {
            assert_eq!(codec().encode(&token).as_deref(), Ok(text));
            assert_eq!(named, Some(token.sid));
            assert!(token.generation >= 0);
        }
        Err(BadRefreshToken::UnknownKey { session_unix_ms }) => {
            assert_eq!(named.map(|sid| sid.unix_ms()), Some(session_unix_ms));
        }
        Err(BadRefreshToken::Malformed | BadRefreshToken::UnknownVersion | BadRefreshToken::NotAuthentic) => {
        }
    }
}

/// Any values: written and read they are the same, and with any one character changed they are not read.
pub fn fields(data: &[u8]) {
    let mut bytes = [0; 46];
    let length = data.len().min(bytes.len());
    bytes[..length].copy_from_slice(&data[..length]);
    let [kid, bucket @ .., at, other] = bytes;
    let (head, seed) = bucket.split_at(bucket.len() - 16);
    let number = |from: usize| u64::from_be_bytes(head[from..from + 8].try_into().expect("eight bytes"));
    let bucket = Bucket::new((number(0) % 16384) as u16).expect("below 16384");
    let token = RefreshToken {
        kid: 1 + u32::from(kid % 2),
        sid: SessionId::generate(bucket, number(8), number(16).to_be_bytes()),
        generation: (number(19) >> 1).cast_signed(),
        seed: seed.try_into().expect("sixteen bytes"),
    };
    let text = codec().encode(&token).expect("a key of the ring and no negative generation");
    assert_eq!(codec().decode(&text), Ok(token));
    let mut changed = text.clone().into_bytes();
    let at = usize::from(at) % changed.len();
    changed[at] = other & 0x7f;
    let changed = String::from_utf8(changed).expect("ASCII");
    assert_eq!(codec().decode(&changed).is_ok(), changed == text);
}
