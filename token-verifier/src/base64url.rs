//! base64url as RFC 7515 section 2 has it: no padding, no other alphabet, and one spelling for each value
//! (left-over bits must be zero, or a token could be altered without altering what it says).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Decodes `text`, or `None` if it is not canonical.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Decodes exactly `N` bytes, without allocating.
pub(crate) fn decode_exact<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != (N * 4).div_ceil(3) {
        return None;
    }
    let mut bytes = [0; N];
    let written = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    (written == N).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_for_each_value() {
        assert_eq!(decode("AA").as_deref(), Some(&[0][..]));
        for text in ["AB", "AA=", "AA==", "A", "A A", "AA\n", "+w", "/w", "AAAAA"] {
            assert_eq!(decode(text), None, "{text:?}");
        }
        assert_eq!(decode_exact::<1>("AA"), Some([0]));
        assert_eq!(decode_exact::<2>("AA"), None);
        assert_eq!(decode_exact::<1>("AB"), None);
        assert_eq!(decode_exact::<32>(&"A".repeat(44)), None);
        assert_eq!(decode_exact::<32>(&"A".repeat(43)), Some([0; 32]));
    }
}
