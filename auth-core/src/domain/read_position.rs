//! From where on a client has seen its user's data: handed out with an answer, sent along with later reads.
use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const VERSION: u8 = 1;
const BYTES: usize = 15;

/// A position in the log of a shard, opaque to the rules: a read that begins there sees everything up to it. It decides
/// from which server a read comes and nothing else, so it is neither secret nor signed; who makes one up gets an answer from
/// the primary, or one as old as a replica may give to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPosition {
    /// The shard's number, from 1 on.
    pub shard: u16,
    /// Counts the promotions of its primary.
    pub timeline: u32,
    /// Bytes since its log began.
    pub lsn: u64,
}

impl ReadPosition {
    /// No shard has it: whoever brings it is answered by the primary.
    pub const NOWHERE: Self = Self { shard: 0, timeline: 0, lsn: 0 };

    /// Whether two stand in one log, so that one of them covers the other.
    #[must_use]
    pub fn is_in_log_of(self, other: Self) -> bool {
        (self.shard, self.timeline) == (other.shard, other.timeline)
    }
}

/// Not a position that we gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a read position")]
pub struct BadReadPosition;

/// base64url of version, shard, timeline and position, big-endian: 20 characters.
impl fmt::Display for ReadPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; BYTES];
        bytes[0] = VERSION;
        bytes[1..3].copy_from_slice(&self.shard.to_be_bytes());
        bytes[3..7].copy_from_slice(&self.timeline.to_be_bytes());
        bytes[7..].copy_from_slice(&self.lsn.to_be_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for ReadPosition {
    type Err = BadReadPosition;

    fn from_str(text: &str) -> Result<Self, BadReadPosition> {
        let mut bytes = [0; BYTES];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(BYTES) if bytes[0] == VERSION => {}
            _ => return Err(BadReadPosition),
        }
        let [_, s0, s1, t0, t1, t2, t3, lsn @ ..] = bytes;
        Ok(Self {
            shard: u16::from_be_bytes([s0, s1]),
            timeline: u32::from_be_bytes([t0, t1, t2, t3]),
            lsn: u64::from_be_bytes(lsn),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_text_is_frozen() {
        let position = ReadPosition { shard: 3, timeline: 2, lsn: 0x16_B374_D848 };
        assert_eq!(position.to_string(), "AQADAAAAAgAAABazdNhI");
    }

    #[test]
    fn what_we_did_not_give_is_refused() {
        for bad in [
            "",
            "AQADAAAAAgAAABazdNh",
            "AQADAAAAAgAAABazdNhIAA",
            "AgADAAAAAgAAABazdNhI",
            "AQADAAAAAgAAABazdN+I",
        ] {
            assert_eq!(bad.parse::<ReadPosition>(), Err(BadReadPosition), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_position_comes_back(shard: u16, timeline: u32, lsn: u64) {
            let position = ReadPosition { shard, timeline, lsn };
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }

        #[test]
        fn whatever_is_read_was_written_so(text in "[A-Za-z0-9_-]{20}") {
            if let Ok(position) = text.parse::<ReadPosition>() {
                prop_assert_eq!(position.to_string(), text);
            }
        }
    }
}
