//! Frozen vectors. A change here orphans every stored row: there is no migration, so there is no change.
//!
//! The constants were not computed by this crate: Python's `hmac`, `hashlib` and integer arithmetic
//! produced them from the description in the module docs.

use shard_key::{Bucket, IdentifierKind, LookupKey, RoutingKey, SessionId, TenantId, UserId};

/// Bytes 0..32 and 32..64.
fn keys() -> (RoutingKey, LookupKey) {
    let routing: [u8; 32] = std::array::from_fn(|i| i as u8);
    let lookup: [u8; 32] = std::array::from_fn(|i| i as u8 + 32);
    (RoutingKey::new(routing), LookupKey::new(lookup))
}

#[rustfmt::skip]
const IDENTIFIERS: [(i32, &str, u16, &str); 5] = [
    (1, "ada@example.com", 8501, "635b1c191b4703b6668e0447408afa5641d571ff1a9ca82f2272187a821688b0"),
    (2, "ada@example.com", 14673, "96723894e107cbc5779b698f4bacc27fac1a9c9042ca583f2d39b89f65bdce3c"),
    (1, "grace@example.org", 12625, "8c0562b5fae4d4de58b14641b71a7c7f1c19527c4a391053fa8d3dd20a916bda"),
    (1, "", 4190, "c52c8c8df1560d8c21ed716fb3d4122e46a945782ed585921e9450faf24d3fbe"),
    (1, "jürgen@xn--bcher-kva.example", 6449, "84512dbcdd9401d9b02f64fb051207db2a2c79866a50d9c5e16edfc6d1f1a625"),
];

#[test]
fn identifiers_keep_their_bucket_and_hash() {
    let (routing, lookup) = keys();
    for (tenant, value, bucket, hash) in IDENTIFIERS {
        let tenant = TenantId::new(tenant);
        assert_eq!(routing.bucket_of(tenant, IdentifierKind::Email, value).get(), bucket, "{value}");
        let got = lookup.lookup_hash(tenant, IdentifierKind::Email, value);
        let got: String = got.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(got, hash, "{value}");
    }
}

#[test]
fn keys_keep_their_fingerprints() {
    let (routing, lookup) = keys();
    assert_eq!(routing.fingerprint(), "c5982e16c857f906");
    assert_eq!(lookup.fingerprint(), "ea1e755ae91d2890");
    assert!(!routing.is_same_secret_as(&lookup));
    assert!(routing.is_same_secret_as(&LookupKey::new(std::array::from_fn(|i| i as u8))));
}

#[test]
fn ids_keep_their_layout() {
    let vectors = [
        (0, 0, [0; 8], "00000000-0000-8000-8000-000000000000"),
        (16383, (1 << 48) - 1, [0xFF; 8], "ffffffff-ffff-8fff-bfff-ffffffffffff"),
        (
            12345,
            1_785_542_400_123,
            0x0123_4567_89ab_cdef_u64.to_be_bytes(),
            "019fba9e-d87b-8123-b039-456789abcdef",
        ),
    ];
    for (bucket, unix_ms, random, text) in vectors {
        let bucket = Bucket::new(bucket).unwrap();
        let id = UserId::generate(bucket, unix_ms, random);
        assert_eq!(id.to_string(), text);
        assert_eq!((id.bucket(), id.unix_ms()), (bucket, unix_ms));
        assert_eq!(SessionId::generate(bucket, unix_ms, random).as_uuid(), id.as_uuid());
    }
}

#[test]
fn kinds_keep_their_codes() {
    assert_eq!((IdentifierKind::Email.code(), IdentifierKind::Email.label()), (1, "email"));
    assert_eq!(IdentifierKind::from_code(1), Some(IdentifierKind::Email));
    assert_eq!(IdentifierKind::from_code(0), None);
}

#[test]
fn secrets_do_not_print() {
    let (routing, lookup) = keys();
    assert_eq!(format!("{routing:?} {lookup:?}"), "RoutingKey([redacted]) LookupKey([redacted])");
    let hash = lookup.lookup_hash(TenantId::DEFAULT, IdentifierKind::Email, "ada@example.com");
    assert_eq!(format!("{hash:?}"), "LookupHash(635b1c19…)");
}
