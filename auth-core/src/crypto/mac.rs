//! SHA-256, and HMAC-SHA256 over parts that cannot be confused with each other.
//!
//! Concatenating parts lets `("ab", "c")` pass for `("a", "bc")`. Each part is therefore preceded by its length as a
//! big-endian `u32`, the same rule as in `shard-key`.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// HMAC-SHA256 (RFC 2104) under `key` over the parts, each prefixed with its length.
#[must_use]
pub fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        hmac.update(&length_prefix(part));
        hmac.update(part);
    }
    hmac.finalize().into_bytes().into()
}

/// SHA-256 of the bytes as they are.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Whether both are the same, in a time that depends on their lengths only.
#[must_use]
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// The parts in one buffer, each prefixed with its length.
#[must_use]
pub fn length_prefixed(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
    for part in parts {
        out.extend_from_slice(&length_prefix(part));
        out.extend_from_slice(part);
    }
    out
}

fn length_prefix(part: &[u8]) -> [u8; 4] {
    u32::try_from(part.len()).expect("no part of a MAC comes near 4 GiB: bodies end at 64 KiB").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn sha256_is_sha256() {
        assert_eq!(
            hex(&sha256(b"abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "FIPS 180-4 example"
        );
    }

    #[test]
    fn a_mac_is_hmac_sha256_of_the_prefixed_parts() {
        // python3: hmac.new(bytes(range(32)), b'\0\0\0\2ab\0\0\0\0\0\0\0\1c', 'sha256').hexdigest()
        let key = std::array::from_fn(|i| u8::try_from(i).unwrap());
        assert_eq!(
            hex(&mac(&key, &[b"ab", b"", b"c"])),
            "64d220681a669f90b6b937a0999e2b3382de24ebca288381e0894770fdec25bb"
        );
    }

    proptest! {
        #[test]
        fn moving_a_boundary_changes_the_mac(text in proptest::collection::vec(any::<u8>(), 2..64), cut in 0usize..64) {
            let cut = cut % text.len();
            let key = [7; 32];
            let split = mac(&key, &[&text[..cut], &text[cut..]]);
            prop_assert_ne!(split, mac(&key, &[&text]));
            if text[..cut] != text[cut..] {
                prop_assert_ne!(split, mac(&key, &[&text[cut..], &text[..cut]]));
            }
        }

        #[test]
        fn equality_is_equality(a in any::<[u8; 32]>(), b in any::<[u8; 32]>()) {
            prop_assert!(constant_time_eq(&a, &a));
            prop_assert_eq!(constant_time_eq(&a, &b), a == b);
            prop_assert!(!constant_time_eq(&a, &a[..31]));
        }
    }
}
