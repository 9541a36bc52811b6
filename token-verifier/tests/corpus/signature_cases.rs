//! Tokens whose signature is wrong, or right only by the letter.

use std::ops::{Add, Mul};

use ed25519_dalek::{Signer as _, Verifier as _};
use hmac::{KeyInit as _, Mac as _};
use sha2::Digest as _;
use token_verifier::InvalidToken::*;

use crate::common::*;
use crate::{Case, decode};

pub fn signatures(cases: &mut Vec<Case>) {
    let good = token(KID, &key(1));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let signature: [u8; 64] = decode(signature).try_into().unwrap();
    let mut case = |name: &str, signed: &str, signature: &[u8], want| {
        cases.push((name.to_owned(), format!("{signed}.{}", b64(signature)), want));
    };
    for bit in [0, 7, 100, 255, 256, 300, 503, 504, 507, 511] {
        let mut flipped = signature;
        flipped[bit / 8] ^= 1 << (bit % 8);
        case(&format!("signature bit {bit}"), signed, &flipped, Signature);
    }
    case("all zero", signed, &[0; 64], Signature);
    case("all ones", signed, &[0xff; 64], Signature);
    case("63 bytes", signed, &signature[..63], Signature);
    case("65 bytes", signed, &[&signature[..], &[0]].concat(), Signature);
    case("1 byte", signed, &[0], Signature);
    case("twice", signed, &[signature, signature].concat(), Signature);
    case("R and S swapped", signed, &[&signature[32..], &signature[..32]].concat(), Signature);
    case("S + L", signed, &plus_order(signature), Signature);
    case("S + 2 L", signed, &plus_order(plus_order(signature)), Signature);
    case("another key", signed, &key(2).sign(signed.as_bytes()).to_bytes(), Signature);
    case(
        "payload alone signed",
        signed,
        &key(1).sign(b64(claims().to_string()).as_bytes()).to_bytes(),
        Signature,
    );
    case("of another token", signed, &key(1).sign(b"other").to_bytes(), Signature);

    // R = the identity, S = k·a: right by the equation of RFC 8032, so that a lax library takes it. Strict: no.
    let mut identity = [0; 32];
    identity[0] = 1;
    let small_r = small_order_r(signed.as_bytes(), identity);
    let lax = ed25519_dalek::Signature::from_bytes(&small_r);
    assert!(
        key(1).verifying_key().verify(signed.as_bytes(), &lax).is_ok(),
        "the case must fool the lax check"
    );
    case("small-order R", signed, &small_r, Signature);

    // The classic confusions, signed as their header says.
    let payload = b64(claims().to_string());
    let hs256 = format!("{}.{payload}", b64(header(KID).replace("EdDSA", "HS256")));
    let secrets =
        [key(1).verifying_key().to_bytes().to_vec(), jwk(KID, &key(1)).to_string().into_bytes(), Vec::new()];
    for secret in secrets {
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&secret).unwrap();
        mac.update(hs256.as_bytes());
        let tag = mac.finalize().into_bytes();
        // The tag's length gives it away before its algorithm does; stretched to 64 bytes the algorithm must.
        case("HS256 with the public key", &hs256, &tag, Signature);
        case("HS256 stretched", &hs256, &[tag, tag].concat(), Algorithm);
    }
    let rs256 = format!("{}.{payload}", b64(header(KID).replace("EdDSA", "RS256")));
    case("RS256 sized", &rs256, &[7; 256], Signature);
    let es256 = format!("{}.{payload}", b64(header(KID).replace("EdDSA", "ES256")));
    case("ES256 psychic zero", &es256, &[0; 64], Algorithm);

    let mut flips = |name: &str, at: usize| {
        let mut parts: Vec<Vec<u8>> = good.split('.').map(decode).collect();
        let middle = parts[at].len() - 30;
        parts[at][middle] ^= 1;
        let token = format!("{}.{}.{}", b64(&parts[0]), b64(&parts[1]), b64(&parts[2]));
        cases.push((name.to_owned(), token, if at == 0 { Header } else { Signature }));
    };
    flips("a bit of the header", 0);
    flips("a bit of the payload", 1);
    flips("a bit of the signature", 2);
}

/// The group order L = 2^252 + 27742317777372353535851937790883648493, little endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn plus_order(mut signature: [u8; 64]) -> [u8; 64] {
    let mut carry = 0u16;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        carry += u16::from(*byte) + u16::from(order);
        *byte = u8::try_from(carry & 0xff).unwrap();
        carry >>= 8;
    }
    signature
}

/// (R, S) with S = H(R ‖ A ‖ M)·a, which holds when R has no part in the prime-order group.
fn small_order_r(message: &[u8], r: [u8; 32]) -> [u8; 64] {
    fn scalar<S: From<u64> + Copy + Add<Output = S> + Mul<Output = S>>(_: S, bytes: &[u8]) -> S {
        bytes.iter().rev().fold(S::from(0), |sum, &byte| sum * S::from(256) + S::from(u64::from(byte)))
    }
    let a = key(1).to_scalar();
    let hash = sha2::Sha512::new()
        .chain_update(r)
        .chain_update(key(1).verifying_key())
        .chain_update(message)
        .finalize();
    let s = scalar(a, &hash) * a;
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&r);
    signature[32..].copy_from_slice(&s.to_bytes());
    signature
}
