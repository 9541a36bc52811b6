//! The password that a person typed, before it is hashed.
use std::fmt;

use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

/// A password within the bounds: 8–1024 bytes after NFC, any characters (NIST SP 800-63B section 3.1.1.2).
/// Never printed, wiped when dropped.
pub struct Password(Zeroizing<String>);

/// Why a password was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Fewer than [`Password::MIN_BYTES`].
    #[error("must be at least 8 bytes")]
    TooShort,
    /// More than [`Password::MAX_BYTES`].
    #[error("must be at most 1024 bytes")]
    TooLong,
}

impl Password {
    /// The shortest password, in bytes of UTF-8 after NFC.
    pub const MIN_BYTES: usize = 8;
    /// The longest password, in bytes of UTF-8 after NFC.
    pub const MAX_BYTES: usize = 1024;

    /// A new password: held to both bounds.
    pub fn parse(raw: &str) -> Result<Self, PasswordError> {
        let password = Self::presented(raw)?;
        if password.0.len() < Self::MIN_BYTES { Err(PasswordError::TooShort) } else { Ok(password) }
    }

    /// A password offered as proof. Only the upper bound counts: an imported account may have a shorter one.
    pub fn presented(raw: &str) -> Result<Self, PasswordError> {
        // NFC can grow a string threefold at most; what is far beyond the bound is not normalised at all.
        if raw.len() > 4 * Self::MAX_BYTES {
            return Err(PasswordError::TooLong);
        }
        let text = Zeroizing::new(raw.nfc().collect::<String>());
        if text.len() > Self::MAX_BYTES { Err(PasswordError::TooLong) } else { Ok(Self(text)) }
    }

    /// The bytes to hash.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_count_bytes_after_nfc() {
        assert_eq!(Password::parse("1234567").map(|_| ()), Err(PasswordError::TooShort));
        assert!(Password::parse("12345678").is_ok());
        assert!(Password::parse(&"a".repeat(1024)).is_ok());
        assert_eq!(Password::parse(&"a".repeat(1025)).map(|_| ()), Err(PasswordError::TooLong));
        assert_eq!(Password::parse(&"a".repeat(1 << 20)).map(|_| ()), Err(PasswordError::TooLong));
        assert!(Password::presented("1").is_ok());
    }

    #[test]
    fn composed_and_decomposed_spellings_are_one_password() {
        let composed = Password::parse("p\u{e9}rsonnel").map(|p| p.as_bytes().to_vec());
        let decomposed = Password::parse("pe\u{301}rsonnel").map(|p| p.as_bytes().to_vec());
        assert_eq!(composed, decomposed);
    }

    #[test]
    fn debug_prints_nothing_of_it() {
        let shown = Password::parse("correct horse").map(|p| format!("{p:?}"));
        assert_eq!(shown, Ok("Password([redacted])".to_owned()));
    }
}
