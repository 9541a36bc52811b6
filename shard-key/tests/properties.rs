//! What holds for every value.

use proptest::prelude::*;
use shard_key::{Bucket, IdentifierKind, ParseIdError, RoutingKey, SessionId, TenantId, UserId};
use std::collections::HashSet;
use uuid::Uuid;

fn any_bucket() -> impl Strategy<Value = Bucket> {
    (0..16384_u16).prop_map(|n| Bucket::new(n).expect("below 16384"))
}

proptest! {
    #[test]
    fn ids_round_trip(bucket in any_bucket(), unix_ms in 0..1_u64 << 48, random: [u8; 8]) {
        let id = UserId::generate(bucket, unix_ms, random);
        prop_assert_eq!(id.bucket(), bucket);
        prop_assert_eq!(id.unix_ms(), unix_ms);
        prop_assert_eq!(id.to_string().parse::<UserId>(), Ok(id));
        prop_assert_eq!(id.to_string().to_uppercase().parse::<UserId>(), Ok(id));
        prop_assert_eq!(UserId::try_from(id.as_uuid()), Ok(id));
        let json = serde_json::to_string(&id).unwrap();
        prop_assert_eq!(&json, &format!("\"{id}\""));
        prop_assert_eq!(serde_json::from_str::<UserId>(&json).unwrap(), id);
    }

    #[test]
    fn ids_of_one_bucket_sort_by_time(bucket in any_bucket(), a in 0..1_u64 << 47, gap in 1..1_u64 << 46, random: [[u8; 8]; 2]) {
        prop_assert!(UserId::generate(bucket, a, random[0]) < UserId::generate(bucket, a + gap, random[1]));
    }

    #[test]
    fn sixty_random_bits_reach_the_id(bucket in any_bucket(), unix_ms: u64, a: [u8; 8], b: [u8; 8]) {
        let kept = |r: [u8; 8]| u64::from_be_bytes(r) & 0x0FFF_FFFF_FFFF_FFFF;
        let same = SessionId::generate(bucket, unix_ms, a) == SessionId::generate(bucket, unix_ms, b);
        prop_assert_eq!(same, kept(a) == kept(b));
    }

    #[test]
    fn any_uuid_is_taken_or_refused_by_version_and_variant(bits: u128) {
        let uuid = Uuid::from_u128(bits);
        let ours = (bits >> 76) & 0xF == 8 && (bits >> 62) & 0b11 == 0b10;
        prop_assert_eq!(UserId::try_from(uuid).is_ok(), ours);
        prop_assert_eq!(uuid.to_string().parse::<UserId>().is_ok(), ours);
    }

    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = text.parse::<UserId>();
    }

    #[test]
    fn sign_ups_land_in_a_bucket(tenant: i32, value in any::<String>()) {
        let key = RoutingKey::new([7; 32]);
        let bucket = key.bucket_of(TenantId::new(tenant), IdentifierKind::Email, &value);
        prop_assert!(bucket.index() < Bucket::COUNT);
        prop_assert_eq!(bucket, key.bucket_of(TenantId::new(tenant), IdentifierKind::Email, &value));
    }
}

#[test]
fn only_the_canonical_text_is_an_id() {
    let id = UserId::generate(Bucket::new(42).unwrap(), 1, [9; 8]);
    let uuid = id.as_uuid();
    for text in [
        uuid.simple().to_string(),
        uuid.urn().to_string(),
        uuid.braced().to_string(),
        format!(" {id}"),
        format!("{id}0"),
        String::new(),
        "é".repeat(18),
    ] {
        assert_eq!(text.parse::<UserId>(), Err(ParseIdError::NotCanonical), "{text}");
    }
    assert_eq!(Uuid::from_u128(0).to_string().parse::<UserId>(), Err(ParseIdError::NotVersion8));
}

#[test]
fn buckets_are_14_bits() {
    assert_eq!(Bucket::all().map(Bucket::get).collect::<HashSet<_>>().len(), Bucket::COUNT);
    assert_eq!(Bucket::new(16384), None);
    assert_eq!(Bucket::try_from(-1), Err(-1));
    assert_eq!(Bucket::try_from(16384), Err(16384));
    assert_eq!(Bucket::try_from(16383).map(i32::from), Ok(16383));
}

#[test]
fn buckets_spread_evenly() {
    let key = RoutingKey::new([3; 32]);
    let mut hits = vec![0_u32; 16];
    for n in 0..16_000 {
        let bucket = key.bucket_of(TenantId::DEFAULT, IdentifierKind::Email, &format!("user{n}@example.com"));
        hits[bucket.index() / 1024] += 1;
    }
    // 1000 a sixteenth, standard deviation 31: six of them.
    assert!(hits.iter().all(|&n| (814..=1186).contains(&n)), "{hits:?}");
}
