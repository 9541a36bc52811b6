//! How password hashes are written in the database, and what is refused before any work is done for them.
//!
//! Ours are PHC strings, `$argon2id$v=19$m=19456,t=2,p=1$salt$hash`; imports may be bcrypt. A row is data, and data can
//! be poisoned: cost parameters beyond the bounds here are refused, so that no row can eat a node.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use std::fmt;

/// The most memory that one hash may ask for: 1 GiB.
pub const MAX_MEMORY_KIB: u32 = 1024 * 1024;
/// The most passes.
pub const MAX_PASSES: u32 = 16;
/// The most lanes.
pub const MAX_LANES: u32 = 16;
/// The most memory × passes: about 1.5 s of one core.
pub const MAX_WORK_KIB: u64 = 4 * 1024 * 1024;
/// The highest bcrypt cost: about 1 s of one core.
pub const MAX_BCRYPT_COST: u32 = 14;

/// A password hash as its row holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredPassword {
    /// A PHC string, or a bcrypt hash.
    pub phc: String,
    /// The key of `pepper.keys` that went into it. Imported hashes have none.
    pub pepper_id: Option<u32>,
}

/// Shows the pepper id only: a hash is what an attacker wants to take home.
impl fmt::Debug for StoredPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredPassword")
            .field("phc", &"[redacted]")
            .field("pepper_id", &self.pepper_id)
            .finish()
    }
}

/// Why a stored hash cannot be used. The row is damaged or foreign; the password is not to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadStored {
    /// Neither a PHC string of Argon2id version 19 nor a bcrypt hash.
    #[error("stored password has an unknown format")]
    Malformed,
    /// Asks for more memory or time than any row may.
    #[error("stored password asks for too much work")]
    TooExpensive,
    /// bcrypt knows no pepper, so the row contradicts itself.
    #[error("stored password names a pepper that its format cannot have")]
    Peppered,
}

/// The cost of an Argon2id hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes. They are computed one after the other here: they cost no more and save no time.
    pub lanes: u32,
}

impl Cost {
    /// Whether it is within the bounds of Argon2 (RFC 9106, section 3.1) and of this module.
    pub(super) fn check(self) -> Result<Self, BadStored> {
        let Self { memory_kib, passes, lanes } = self;
        if passes < 1 || lanes < 1 || u64::from(memory_kib) < 8 * u64::from(lanes) {
            return Err(BadStored::Malformed);
        }
        let work = u64::from(memory_kib) * u64::from(passes);
        let excessive = memory_kib > MAX_MEMORY_KIB || passes > MAX_PASSES || lanes > MAX_LANES;
        if excessive || work > MAX_WORK_KIB { Err(BadStored::TooExpensive) } else { Ok(self) }
    }
}

/// A stored hash taken apart.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Format {
    Argon2id(Argon2id),
    /// The text itself: the bcrypt crate parses it again.
    Bcrypt(String),
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Argon2id {
    pub cost: Cost,
    /// 8 to 64 bytes; ours have 16.
    pub salt: Vec<u8>,
    /// 16 to 64 bytes; ours have 32.
    pub output: Vec<u8>,
}

impl fmt::Display for Argon2id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cost { memory_kib, passes, lanes } = self.cost;
        let (salt, output) = (STANDARD_NO_PAD.encode(&self.salt), STANDARD_NO_PAD.encode(&self.output));
        write!(f, "$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${output}")
    }
}

impl Format {
    pub(super) fn parse(text: &str) -> Result<Self, BadStored> {
        if text.starts_with("$2") { parse_bcrypt(text) } else { parse_argon2id(text).map(Self::Argon2id) }
    }
}

fn parse_argon2id(text: &str) -> Result<Argon2id, BadStored> {
    use BadStored::Malformed;
    let rest = text.strip_prefix("$argon2id$v=19$").ok_or(Malformed)?;
    let mut segments = rest.split('$');
    let (Some(params), Some(salt), Some(output), None) =
        (segments.next(), segments.next(), segments.next(), segments.next())
    else {
        return Err(Malformed);
    };
    let mut params = params.split(',');
    let mut param =
        |name| params.next().and_then(|param| param.strip_prefix(name)).and_then(decimal).ok_or(Malformed);
    let cost = Cost { memory_kib: param("m=")?, passes: param("t=")?, lanes: param("p=")? };
    if params.next().is_some() {
        return Err(Malformed);
    }
    let bytes = |segment, least| {
        let bytes = STANDARD_NO_PAD.decode(segment).map_err(|_| Malformed)?;
        if (least..=64).contains(&bytes.len()) { Ok(bytes) } else { Err(Malformed) }
    };
    Ok(Argon2id { cost: cost.check()?, salt: bytes(salt, 8)?, output: bytes(output, 16)? })
}

fn parse_bcrypt(text: &str) -> Result<Format, BadStored> {
    // `$2x$` marks hashes of an implementation with a bug (CVE-2011-2483): nobody should still have one.
    let known = ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| text.starts_with(prefix));
    let digits = text.get(4..6).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let cost: u32 = digits.and_then(|digits| digits.parse().ok()).ok_or(BadStored::Malformed)?;
    if !known || cost < 4 || text.parse::<bcrypt::HashParts>().is_err() {
        return Err(BadStored::Malformed);
    }
    if cost > MAX_BCRYPT_COST { Err(BadStored::TooExpensive) } else { Ok(Format::Bcrypt(text.to_owned())) }
}

/// Digits only and no leading zero: one number, one spelling.
fn decimal(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SALT: &str = "AAAAAAAAAAAAAAAAAAAAAA";
    const HASH: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn refusal(text: &str) -> Option<BadStored> {
        Format::parse(text).err()
    }

    #[test]
    fn argon2id_is_read_in_one_spelling() {
        assert_eq!(refusal(&format!("$argon2id$v=19$m=19456,t=2,p=1${SALT}${HASH}")), None);
        let malformed = [
            String::new(),
            format!("$argon2i$v=19$m=19456,t=2,p=1${SALT}${HASH}"),
            format!("$argon2id$v=16$m=19456,t=2,p=1${SALT}${HASH}"),
            format!("$argon2id$m=19456,t=2,p=1${SALT}${HASH}"),
            format!("$argon2id$v=19$t=2,m=19456,p=1${SALT}${HASH}"),
            format!("$argon2id$v=19$m=019456,t=2,p=1${SALT}${HASH}"),
            format!("$argon2id$v=19$m=+19456,t=2,p=1${SALT}${HASH}"),
            format!("$argon2id$v=19$m=19456,t=2,p=1,keyid=AA${SALT}${HASH}"),
            format!("$argon2id$v=19$m=19456,t=0,p=1${SALT}${HASH}"),
            format!("$argon2id$v=19$m=7,t=2,p=1${SALT}${HASH}"),
            format!("$argon2id$v=19$m=99999999999,t=2,p=1${SALT}${HASH}"),
            format!("$argon2id$v=19$m=19456,t=2,p=1$AAAA${HASH}"),
            format!("$argon2id$v=19$m=19456,t=2,p=1${SALT}$AAAA"),
            format!("$argon2id$v=19$m=19456,t=2,p=1${SALT}"),
            format!("$argon2id$v=19$m=19456,t=2,p=1${SALT}${HASH}$"),
            format!("$argon2id$v=19$m=19456,t=2,p=1${SALT}${HASH}="),
        ];
        for text in malformed {
            assert_eq!(refusal(&text), Some(BadStored::Malformed), "{text}");
        }
    }

    #[test]
    fn rows_cannot_ask_for_too_much() {
        for params in ["m=1048577,t=1,p=1", "m=19456,t=17,p=1", "m=19456,t=2,p=17", "m=1048576,t=5,p=1"] {
            let text = format!("$argon2id$v=19${params}${SALT}${HASH}");
            assert_eq!(refusal(&text), Some(BadStored::TooExpensive), "{params}");
        }
        assert_eq!(refusal(&format!("$argon2id$v=19$m=1048576,t=4,p=16${SALT}${HASH}")), None);
    }

    #[test]
    fn bcrypt_is_read_within_its_bounds() {
        let tail = "CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
        for good in ["$2a$05$", "$2b$04$", "$2y$14$"] {
            assert_eq!(refusal(&format!("{good}{tail}")), None);
        }
        for malformed in ["$2x$05$", "$2$05$", "$2a$+5$", "$2a$03$", "$2a$5$", "$2a$", "$2a$0é$"] {
            assert_eq!(refusal(&format!("{malformed}{tail}")), Some(BadStored::Malformed), "{malformed}");
        }
        assert_eq!(refusal(&format!("$2b$15${tail}")), Some(BadStored::TooExpensive));
        assert_eq!(refusal(&format!("$2b$99${tail}")), Some(BadStored::TooExpensive));
        assert_eq!(refusal(&format!("$2b$10${tail}A")), Some(BadStored::Malformed));
    }

    #[test]
    fn hashes_are_not_printed() {
        let stored = StoredPassword { phc: "$argon2id$x".into(), pepper_id: Some(2) };
        assert_eq!(format!("{stored:?}"), r#"StoredPassword { phc: "[redacted]", pepper_id: Some(2) }"#);
    }

    proptest! {
        #[test]
        fn argon2id_round_trips(
            memory_kib in 128u32..=262_144, passes in 1u32..=16, lanes in 1u32..=16,
            salt in proptest::collection::vec(any::<u8>(), 8..=64), output in proptest::collection::vec(any::<u8>(), 16..=64),
        ) {
            let hash = Argon2id { cost: Cost { memory_kib, passes, lanes }, salt, output };
            prop_assert!(Format::parse(&hash.to_string()) == Ok(Format::Argon2id(hash)));
        }

        #[test]
        fn no_text_panics(text in r"(\$argon2id\$v=19\$|\$2a\$)?.{0,80}") {
            let _ = Format::parse(&text);
        }
    }
}
