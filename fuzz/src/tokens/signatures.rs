//! Tokens whose signature is wrong, or right only by the letter of a lax reading of RFC 8032.
//!
//! What Ed25519 leaves open, and strict verification (no small-order points, S below L, R byte for byte) closes: RFC 8032
//! section 5.1.7; Chalkias, Garillot, Nikolaenko, "Taming the many EdDSAs" (2020). The points are computed here.
use curve25519_dalek::constants::{ED25519_BASEPOINT_TABLE, EIGHT_TORSION};
use curve25519_dalek::scalar::Scalar;
use ed25519_dalek::{Signature as Ed25519, Signer as _, Verifier as _};
use hmac::{KeyInit as _, Mac as _};
use sha2::Digest as _;

use super::Cases;
use super::Why::{Algorithm, Header, Malformed, Signature};
use crate::world::{KIDS, b64, claims, header, jwk, key, sign, token};

/// The group order L = 2^252 + 27742317777372353535851937790883648493, little endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

pub fn add(cases: &mut Cases) {
    let good = token();
    let (signed, text) = good.rsplit_once('.').expect("a token has a signature");
    let genuine = key(1).sign(signed.as_bytes()).to_bytes();
    assert_eq!(text, b64(genuine), "the token's signature is the key's");
    lengths_and_bits(cases, signed, genuine);
    malleable(cases, signed, genuine);
    small_order(cases, signed);
    of_something_else(cases, signed);
    other_algorithms(cases);
    flips(cases);
}

fn signature(cases: &mut Cases, name: &str, signed: &str, bytes: &[u8]) {
    cases.bad(name, format!("{signed}.{}", b64(bytes)), Signature);
}

fn lengths_and_bits(cases: &mut Cases, signed: &str, genuine: [u8; 64]) {
    for bit in [0, 7, 100, 254, 255, 256, 300, 503, 504, 507, 508, 509, 510, 511] {
        let mut flipped = genuine;
        flipped[bit / 8] ^= 1 << (bit % 8);
        signature(cases, &format!("signature bit {bit}"), signed, &flipped);
    }
    signature(cases, "signature of zeros", signed, &[0; 64]);
    signature(cases, "signature of ones", signed, &[0xff; 64]);
    for bytes in [1, 31, 32, 63] {
        signature(cases, &format!("signature cut to {bytes} bytes"), signed, &genuine[..bytes]);
    }
    signature(cases, "signature with a zero behind", signed, &[&genuine[..], &[0]].concat());
    signature(cases, "signature with a zero in front", signed, &[&[0], &genuine[..]].concat());
    signature(cases, "signature twice", signed, &[genuine, genuine].concat());
    signature(cases, "R and S swapped", signed, &[&genuine[32..], &genuine[..32]].concat());
    let mut reversed = genuine;
    reversed[32..].reverse();
    signature(cases, "S in the other byte order", signed, &reversed);
    // The SEQUENCE of two INTEGERs that ECDSA has.
    let der = [&[0x30, 0x44, 0x02, 0x20], &genuine[..32], &[0x02, 0x20], &genuine[32..]].concat();
    signature(cases, "signature as DER", signed, &der);
}

/// S + nL satisfies the equation as well as S: a second signature for one message.
fn malleable(cases: &mut Cases, signed: &str, genuine: [u8; 64]) {
    let mut sum = genuine;
    for times in 1..=3 {
        sum = plus_order(sum);
        signature(cases, &format!("S + {times} L"), signed, &sum);
    }
    let mut s_is = |name: &str, s: [u8; 32]| signature(cases, name, signed, &[&genuine[..32], &s].concat());
    s_is("S = 0", [0; 32]);
    s_is("S = L", ORDER);
    let mut below = ORDER;
    below[0] -= 1;
    s_is("S = L - 1", below);
    s_is("S = 2^256 - 1", [0xff; 32]);
    s_is("-S", (-Scalar::from_bytes_mod_order(genuine[32..].try_into().expect("32 bytes"))).to_bytes());
}

/// R of small order with S = H(R ‖ A ‖ M)·a, and R with a part of small order.
fn small_order(cases: &mut Cases, signed: &str) {
    for (at, point) in EIGHT_TORSION.iter().enumerate() {
        let r = point.compress().to_bytes();
        let forged = [r, (challenge(&r, signed) * key(1).to_scalar()).to_bytes()].concat();
        // The identity satisfies the equation itself: a lax library takes it, strict verification does not.
        let lax = key(1)
            .verifying_key()
            .verify(signed.as_bytes(), &Ed25519::from_slice(&forged).expect("64 bytes"));
        assert_eq!(lax.is_ok(), at == 0, "only the identity fools the plain check");
        signature(cases, &format!("R the small-order point {at}"), signed, &forged);
    }
    let r = Scalar::from(7_u64);
    for (at, torsion) in EIGHT_TORSION.iter().enumerate().skip(1) {
        let mixed = (&r * ED25519_BASEPOINT_TABLE + torsion).compress().to_bytes();
        let s = r + challenge(&mixed, signed) * key(1).to_scalar();
        signature(
            cases,
            &format!("R mixed with the small-order point {at}"),
            signed,
            &[mixed, s.to_bytes()].concat(),
        );
    }
    // The only encodings with y at or above p = 2^255 - 19 whose points are known: y = p (0), p + 1 (1), with either sign.
    for (name, low, high) in [
        ("p", 0xed, 0x7f),
        ("p + 1", 0xee, 0x7f),
        ("p, negative", 0xed, 0xff),
        ("p + 1, negative", 0xee, 0xff),
    ] {
        let mut r = [0xff; 32];
        (r[0], r[31]) = (low, high);
        let s = challenge(&r, signed) * key(1).to_scalar();
        signature(cases, &format!("R not canonical, y = {name}"), signed, &[r, s.to_bytes()].concat());
    }
    let mut identity = [0; 64];
    identity[0] = 1;
    signature(cases, "R the identity, S = 0", signed, &identity);
    let mut off_curve = [0; 64];
    off_curve[0] = 2;
    signature(cases, "R on no curve", signed, &off_curve);
}

fn of_something_else(cases: &mut Cases, signed: &str) {
    let (h, p) = signed.split_once('.').expect("two segments");
    let mut of = |name: &str, key: u8, text: &[u8]| {
        signature(cases, name, signed, &crate::world::key(key).sign(text).to_bytes());
    };
    of("signature of the second key", 2, signed.as_bytes());
    of("signature of an unpublished key", 3, signed.as_bytes());
    of("signature of the payload alone", 1, p.as_bytes());
    of("signature of the header alone", 1, h.as_bytes());
    of("signature of the claims undecoded", 1, claims().to_string().as_bytes());
    of("signature of header and payload without the dot", 1, format!("{h}{p}").as_bytes());
    of("signature with a dot behind", 1, format!("{signed}.").as_bytes());
    of("signature of nothing", 1, b"");
    of("signature of the SHA-512", 1, &sha2::Sha512::digest(signed));
    let context = [&b"SigEd25519 no Ed25519 collisions\x00\x00"[..], signed.as_bytes()].concat();
    of("Ed25519ctx without context", 1, &context);
    let mut later = claims();
    later["tenant"] = "another".into();
    let other = sign(&key(1), header(KIDS[0]), later.to_string());
    let (_, stolen) = other.rsplit_once('.').expect("a signature");
    cases.bad("signature of another token", format!("{signed}.{stolen}"), Signature);
}

/// The classic confusions (RFC 8725 section 2.1), signed as their header says.
fn other_algorithms(cases: &mut Cases) {
    let payload = b64(claims().to_string());
    let as_alg = |alg: &str| format!("{}.{payload}", b64(header(KIDS[0]).replace("EdDSA", alg)));
    let secrets = [
        ("public key", key(1).verifying_key().to_bytes().to_vec()),
        ("JWK", jwk(KIDS[0], &key(1)).to_string().into_bytes()),
        ("x of the JWK", b64(key(1).verifying_key()).into_bytes()),
        ("empty secret", Vec::new()),
    ];
    let hs256 = as_alg("HS256");
    for (name, secret) in secrets {
        let mut mac =
            hmac::Hmac::<sha2::Sha256>::new_from_slice(&secret).expect("HMAC takes keys of any length");
        mac.update(hs256.as_bytes());
        let tag = mac.finalize().into_bytes();
        // The tag's length gives it away before its algorithm does; stretched to 64 bytes the algorithm must.
        let plain = format!("{hs256}.{}", b64(tag));
        cases.bad_twice(&format!("HS256 with the {name}"), plain, Signature, Header);
        let stretched = format!("{hs256}.{}", b64([tag, tag].concat()));
        cases.bad(&format!("HS256 with the {name}, 64 bytes"), stretched, Algorithm);
    }
    cases.bad_twice(
        "RS256 with 256 bytes",
        format!("{}.{}", as_alg("RS256"), b64([7; 256])),
        Signature,
        Header,
    );
    cases.bad("ES256 of zeros", format!("{}.{}", as_alg("ES256"), b64([0; 64])), Algorithm);
    cases.bad("none with a signature of zeros", format!("{}.{}", as_alg("none"), b64([0; 64])), Algorithm);
    cases.bad_twice("none without a signature", format!("{}.", as_alg("none")), Malformed, Header);
}

fn flips(cases: &mut Cases) {
    let genuine = key(1).sign(token().rsplit_once('.').expect("a signature").0.as_bytes()).to_bytes();
    let (mut h, mut p) = (header(KIDS[0]).into_bytes(), claims().to_string().into_bytes());
    let join = |h: &[u8], p: &[u8]| format!("{}.{}.{}", b64(h), b64(p), b64(genuine));
    // "EdDSA" begins at 8: no JSON any more, or another algorithm.
    h[6] ^= 1;
    cases.bad("a bit of the header's JSON", join(&h, &p), Header);
    h[6] ^= 1;
    let at = h.len() - 3;
    h[at] ^= 3;
    cases.bad("a bit of the header's kid", join(&h, &p), Signature);
    h[at] ^= 3;
    let at = p.len() - 3;
    p[at] ^= 1;
    cases.bad("a bit of the payload", join(&h, &p), Signature);
}

fn plus_order(mut signature: [u8; 64]) -> [u8; 64] {
    let mut carry = 0u16;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        carry += u16::from(*byte) + u16::from(order);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    signature
}

/// H(R ‖ A ‖ M) modulo L.
fn challenge(r: &[u8; 32], signed: &str) -> Scalar {
    let hash = sha2::Sha512::new()
        .chain_update(r)
        .chain_update(key(1).verifying_key())
        .chain_update(signed)
        .finalize();
    Scalar::from_bytes_mod_order_wide(&hash.into())
}
