//! Key files: rings of numbered keys that rotate, and single permanent keys.
//!
//! A ring is a text of lines `id key`. The first line is the key in use, the others are kept for what they once
//! sealed or signed. Errors name the line and never show what stands in it: a key with a typo is still a secret.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use zeroize::Zeroizing;

/// Numbered 32-byte keys; the first is the current one. Never empty.
#[derive(Clone)]
pub struct SecretRing {
    keys: Vec<(u32, Zeroizing<[u8; 32]>)>,
}

/// Why a key file cannot be used. Lines are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// No line holds a key.
    #[error("holds no key")]
    Empty,
    /// Not `id key`.
    #[error("line {line}: expected an id and a key")]
    Shape {
        /// The offending line.
        line: usize,
    },
    /// The id is not a decimal number from 1 to 4294967295.
    #[error("line {line}: the id is not a number from 1 to 4294967295")]
    Id {
        /// The offending line.
        line: usize,
    },
    /// The key is not 32 bytes in base64url without padding.
    #[error("line {line}: the key is not 32 bytes in base64url without padding")]
    Key {
        /// The offending line.
        line: usize,
    },
    /// An earlier line has the same id.
    #[error("line {line}: the id was used before")]
    Duplicate {
        /// The later one of the two lines.
        line: usize,
    },
}

impl SecretRing {
    /// Reads a ring. Blank lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// The first line that is wrong, or [`RingError::Empty`].
    pub fn parse(text: &str) -> Result<Self, RingError> {
        let mut keys: Vec<(u32, Zeroizing<[u8; 32]>)> = Vec::new();
        for (line, content) in key_lines(text) {
            let mut words = content.split_ascii_whitespace();
            let (Some(id), Some(key), None) = (words.next(), words.next(), words.next()) else {
                return Err(RingError::Shape { line });
            };
            let id = parse_id(id).ok_or(RingError::Id { line })?;
            let key = decode_key(key).ok_or(RingError::Key { line })?;
            if keys.iter().any(|(known, _)| *known == id) {
                return Err(RingError::Duplicate { line });
            }
            keys.push((id, key));
        }
        if keys.is_empty() { Err(RingError::Empty) } else { Ok(Self { keys }) }
    }

    /// The key for everything new, with its id.
    #[must_use]
    pub fn current(&self) -> (u32, &[u8; 32]) {
        let (id, key) = self.keys.first().expect("a ring is never empty: parse refuses it");
        (*id, key)
    }

    /// The key of that id, current or retired.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&[u8; 32]> {
        self.keys.iter().find(|(known, _)| *known == id).map(|(_, key)| &**key)
    }

    /// The ids, the current one first.
    pub fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.keys.iter().map(|(id, _)| *id)
    }
}

/// Shows the ids only.
impl fmt::Debug for SecretRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.ids().map(|id| (id, "[redacted]"))).finish()
    }
}

/// Reads a file that holds one 32-byte key (`routing.key`, `lookup.key`); comments as in a ring.
///
/// # Errors
/// [`RingError::Empty`], or the line that is wrong; a second key is [`RingError::Shape`].
pub fn parse_key32(text: &str) -> Result<Zeroizing<[u8; 32]>, RingError> {
    let mut lines = key_lines(text);
    let (line, content) = lines.next().ok_or(RingError::Empty)?;
    let key = decode_key(content).ok_or(RingError::Key { line })?;
    match lines.next() {
        None => Ok(key),
        Some((line, _)) => Err(RingError::Shape { line }),
    }
}

/// The lines that should hold a key, counted from 1.
fn key_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let trimmed = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    trimmed.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Digits only: `parse` alone would take `+1`.
fn parse_id(word: &str) -> Option<u32> {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    word.parse().ok().filter(|id| digits && *id >= 1)
}

fn decode_key(word: &str) -> Option<Zeroizing<[u8; 32]>> {
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(word).ok()?);
    Some(Zeroizing::new(bytes.as_slice().try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
    const TWO: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI";

    #[test]
    fn the_first_key_is_current_and_the_others_are_found() {
        let ring = SecretRing::parse(&format!("# rotated in May\n\n  7 {ONE}\r\n3 {TWO}\n")).unwrap();
        assert_eq!(ring.current(), (7, &[1; 32]));
        assert_eq!(ring.get(3), Some(&[2; 32]));
        assert_eq!(ring.get(4), None);
        assert_eq!(ring.ids().collect::<Vec<_>>(), [7, 3]);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line() {
        let refusals = [
            (String::new(), RingError::Empty),
            ("# nothing\n \n".into(), RingError::Empty),
            ("1".into(), RingError::Shape { line: 1 }),
            (format!("1 {ONE} x"), RingError::Shape { line: 1 }),
            (format!("\n0 {ONE}"), RingError::Id { line: 2 }),
            (format!("+1 {ONE}"), RingError::Id { line: 1 }),
            (format!("-1 {ONE}"), RingError::Id { line: 1 }),
            (format!("4294967296 {ONE}"), RingError::Id { line: 1 }),
            (format!("1 {}", &ONE[1..]), RingError::Key { line: 1 }),
            (format!("1 {ONE}="), RingError::Key { line: 1 }),
            (format!("1 {}F", &ONE[..42]), RingError::Key { line: 1 }),
            (format!("1 {ONE}\n1 {TWO}"), RingError::Duplicate { line: 2 }),
        ];
        for (text, error) in refusals {
            assert_eq!(SecretRing::parse(&text).unwrap_err(), error, "{text:?}");
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let ring = SecretRing::parse(&format!("1 {ONE}")).unwrap();
        assert_eq!(format!("{ring:?}"), r#"{1: "[redacted]"}"#);
        let error = SecretRing::parse(&format!("1 {ONE}x")).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("AQEB"));
    }

    #[test]
    fn a_single_key_stands_alone() {
        assert_eq!(*parse_key32(&format!("# permanent\n{ONE}\n")).unwrap(), [1; 32]);
        assert_eq!(parse_key32("\n").unwrap_err(), RingError::Empty);
        assert_eq!(parse_key32(&format!("{ONE}\n{TWO}")).unwrap_err(), RingError::Shape { line: 2 });
        assert_eq!(parse_key32(&format!("1 {ONE}")).unwrap_err(), RingError::Key { line: 1 });
    }

    proptest! {
        #[test]
        fn rings_round_trip(keys in proptest::collection::btree_map(1u32.., any::<[u8; 32]>(), 1..8)) {
            let text: String = keys.iter().map(|(id, key)| format!("{id} {}\n", URL_SAFE_NO_PAD.encode(key))).collect();
            let ring = SecretRing::parse(&text).unwrap();
            for (id, key) in &keys {
                prop_assert_eq!(ring.get(*id), Some(key));
            }
            prop_assert_eq!(ring.current().0, *keys.keys().next().unwrap());
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = SecretRing::parse(&text);
            let _ = parse_key32(&text);
        }
    }
}
