//! E-mail addresses and their normal form.
//!
//! Normalisation v1 is frozen: trim, NFKC, full case folding, IDNA (UTS 46) for the domain. The normal form decides
//! the bucket and the uniqueness of an address for ever, so its vectors below may be added to, never changed, and code
//! points that the pinned Unicode tables do not know are refused: a library upgrade must not split one person in two.
use std::fmt;

use caseless::Caseless;
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// An address: as it was written (for showing and sending) and its normal form (for finding).
#[derive(Clone, PartialEq, Eq)]
pub struct Email {
    as_written: String,
    normalised: String,
}

/// Why an address was refused. RFC 5321 section 4.5.3.1 gives the lengths; quoted local parts (RFC 5322 section 3.4.1)
/// and address literals are valid there and refused here on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EmailError {
    /// Nothing is left after trimming.
    #[error("must not be empty")]
    Empty,
    /// More than [`Email::MAX_BYTES`], or a local part of more than 64 bytes.
    #[error("is too long")]
    TooLong,
    /// Not `local@domain`.
    #[error("must have the form name@domain")]
    Shape,
    /// The part before the `@` has characters that we do not accept.
    #[error("has a name with characters that are not accepted")]
    Local,
    /// The part after the `@` is no domain name.
    #[error("has no valid domain")]
    Domain,
    /// A code point that the pinned Unicode version does not know.
    #[error("has characters that are not assigned in Unicode")]
    Unassigned,
}

impl Email {
    /// The longest address, in bytes, before and after normalisation.
    pub const MAX_BYTES: usize = 254;
    const MAX_LOCAL_BYTES: usize = 64;

    /// Parses what a person typed.
    pub fn parse(raw: &str) -> Result<Self, EmailError> {
        let written = raw.trim();
        if written.is_empty() {
            return Err(EmailError::Empty);
        }
        if written.len() > Self::MAX_BYTES {
            return Err(EmailError::TooLong);
        }
        if written.chars().any(|c| c.general_category() == GeneralCategory::Unassigned) {
            return Err(EmailError::Unassigned);
        }
        let (local, domain) = written.rsplit_once('@').ok_or(EmailError::Shape)?;
        let normalised = format!("{}@{}", normal_local(local)?, normal_domain(domain)?);
        if normalised.len() > Self::MAX_BYTES {
            return Err(EmailError::TooLong);
        }
        Ok(Self { as_written: written.to_owned(), normalised })
    }

    /// The address as it was typed, trimmed.
    pub fn as_written(&self) -> &str {
        &self.as_written
    }

    /// The normal form, v1.
    pub fn normalised(&self) -> &str {
        &self.normalised
    }
}

/// An address is a personal value: it never reaches a log.
impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email([redacted])")
    }
}

fn normal_local(local: &str) -> Result<String, EmailError> {
    if local.is_empty() {
        return Err(EmailError::Shape);
    }
    // Folding can leave NFKC again, so it is normalised once more: the result is then stable under itself.
    let folded: String = local.nfkc().default_case_fold().nfkc().collect();
    if folded.len() > Email::MAX_LOCAL_BYTES {
        return Err(EmailError::TooLong);
    }
    let dots = folded.starts_with('.') || folded.ends_with('.') || folded.contains("..");
    if folded.is_empty() || dots || !folded.chars().all(accepted_in_local) {
        return Err(EmailError::Local);
    }
    Ok(folded)
}

/// RFC 5322 `atext` and the dot, and beyond ASCII (RFC 6531) letters, marks, numbers and symbols.
fn accepted_in_local(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || ".!#$%&'*+-/=?^_`{|}~".contains(c);
    }
    use GeneralCategory as G;
    !matches!(
        c.general_category(),
        G::Control
            | G::Format
            | G::Surrogate
            | G::PrivateUse
            | G::Unassigned
            | G::LineSeparator
            | G::ParagraphSeparator
            | G::SpaceSeparator
    )
}

fn normal_domain(domain: &str) -> Result<String, EmailError> {
    // UTS 46 maps before it normalises, and maps U+0345 to a letter: marks in another order would be another domain.
    let composed: String = domain.nfc().collect();
    let ascii = idna::domain_to_ascii_strict(&composed).map_err(|_| EmailError::Domain)?;
    let labels_ok = ascii.split('.').all(|label| !label.is_empty() && label.len() <= 63);
    let dotted = ascii.contains('.');
    let numeric_top = ascii.rsplit('.').next().is_some_and(|top| top.bytes().all(|b| b.is_ascii_digit()));
    if ascii.len() > 253 || !labels_ok || !dotted || numeric_top {
        return Err(EmailError::Domain);
    }
    Ok(ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frozen: v1. Add to it, never change a line.
    const VECTORS: &[(&str, &str)] = &[
        ("Ada@Example.COM", "ada@example.com"),
        ("  ada@example.com\t", "ada@example.com"),
        ("STRASSE@example.com", "strasse@example.com"),
        ("straße@example.com", "strasse@example.com"),
        ("ＡＤＡ@example.com", "ada@example.com"),
        ("ada@BÜCHER.example", "ada@xn--bcher-kva.example"),
        ("ada@bu\u{308}cher.example", "ada@xn--bcher-kva.example"),
        ("Ada+Tag@example.com", "ada+tag@example.com"),
        ("ΣΊΣΥΦΟΣ@example.com", "σίσυφοσ@example.com"),
        ("o'brien@example.co.uk", "o'brien@example.co.uk"),
        ("ﬁona@example.com", "fiona@example.com"),
        ("用户@例子.广告", "用户@xn--fsqu00a.xn--4rr70v"),
        ("ada@a\u{345}\u{34d}.example", "ada@xn--a-9fb83a.example"),
        ("ada@a\u{34d}\u{345}.example", "ada@xn--a-9fb83a.example"),
    ];

    #[test]
    fn the_frozen_vectors_hold() {
        for (written, normal) in VECTORS {
            let email = Email::parse(written);
            assert_eq!(email.as_ref().map(Email::normalised), Ok(*normal), "{written}");
        }
    }

    #[test]
    fn the_normal_form_is_a_fixed_point() {
        for (_, normal) in VECTORS {
            assert_eq!(Email::parse(normal).as_ref().map(Email::normalised), Ok(*normal));
        }
    }

    #[test]
    fn odd_shapes_are_refused_with_a_reason() {
        use EmailError::*;
        let long_local = format!("{}@example.com", "a".repeat(65));
        let long = format!("a@{}.com", "b".repeat(260));
        for (raw, why) in [
            ("", Empty),
            ("   ", Empty),
            ("plain", Shape),
            ("@example.com", Shape),
            ("a@", Domain),
            ("a@localhost", Domain),
            ("a@-x.com", Domain),
            ("a@x..com", Domain),
            ("a@[127.0.0.1]", Domain),
            ("a@127.0.0.1", Domain),
            ("a b@example.com", Local),
            ("\"a b\"@example.com", Local),
            ("a@b@example.com", Local),
            (".a@example.com", Local),
            ("a..b@example.com", Local),
            ("a\u{0}@example.com", Local),
            ("a\u{200b}@example.com", Local),
            ("a\u{378}@example.com", Unassigned),
            (long_local.as_str(), TooLong),
            (long.as_str(), TooLong),
        ] {
            assert_eq!(Email::parse(raw).map(|_| ()), Err(why), "{raw:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics_and_is_stable(raw in "\\PC{0,40}@?\\PC{0,40}") {
            if let Ok(email) = Email::parse(&raw) {
                let again = Email::parse(email.normalised());
                proptest::prop_assert_eq!(again.map(|e| e.normalised), Ok(email.normalised));
            }
        }
    }
}
