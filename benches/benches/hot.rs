//! `make bench`: what requests are made of, one piece at a time.
use std::hint::black_box;
use std::time::Duration;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use auth_core::crypto::access_token::{Expected, verify};
use auth_core::crypto::password::{HashClass, HashConfig, PasswordHasher};
use auth_core::crypto::refresh_token::{RefreshCodec, RefreshToken};
use auth_core::crypto::ring::SecretRing;
use auth_core::crypto::signing_key::SigningKey;
use benches::{ISSUER, claims};
use criterion::{Criterion, criterion_group, criterion_main};
use shard_key::{Bucket, IdentifierKind, LookupKey, RoutingKey, SessionId, TenantId};
use shard_router::{BucketMap, Placement, ShardId};
use token_verifier::{Clock, FetchFuture, Fetched, JwksSource, Verifier};

const NOW: i64 = 1_900_000_000;
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const PASSWORD: &[u8] = b"correct horse battery staple";

fn ring() -> SecretRing {
    SecretRing::parse("1 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE").expect("a ring of one key")
}

fn place(c: &mut Criterion) {
    let (routing, lookup) = (RoutingKey::new([1; 32]), LookupKey::new([2; 32]));
    let address = "ada.lovelace@example.com";
    c.bench_function("place/address to bucket", |b| {
        b.iter(|| routing.bucket_of(TenantId::DEFAULT, IdentifierKind::Email, black_box(address)));
    });
    c.bench_function("place/address to lookup hash", |b| {
        b.iter(|| lookup.lookup_hash(TenantId::DEFAULT, IdentifierKind::Email, black_box(address)));
    });
    let shard = |at: usize| ShardId::new((at % 3) as i16 + 1).expect("a shard");
    let placements: Vec<_> = (0..Bucket::COUNT).map(|at| Placement { shard: shard(at), epoch: 1 }).collect();
    let map = BucketMap::new(&placements).expect("a placement for every bucket");
    let buckets: Vec<_> = Bucket::all().collect();
    let mut at = 0;
    c.bench_function("place/bucket to shard", |b| {
        b.iter(|| {
            // Far apart, so that one cache line does not serve all.
            at = (at + 4099) % buckets.len();
            map.place(black_box(buckets[at]))
        });
    });
}

fn ids(c: &mut Criterion) {
    let id = SessionId::generate(Bucket::all().next_back().expect("a bucket"), 1_700_000_000_000, [7; 8]);
    let text = id.to_string();
    c.bench_function("id/generate", |b| {
        b.iter(|| SessionId::generate(id.bucket(), black_box(1_700_000_000_000), black_box([7; 8])));
    });
    c.bench_function("id/write", |b| b.iter(|| black_box(id).to_string()));
    c.bench_function("id/parse, with its bucket", |b| {
        b.iter(|| black_box(text.as_str()).parse::<SessionId>().map(|id| id.bucket()));
    });
}

struct Fixed(String);

impl JwksSource for Fixed {
    fn fetch<'a>(&'a self, _: Option<&'a str>) -> FetchFuture<'a> {
        let bytes = self.0.clone().into_bytes();
        Box::pin(async move { Ok(Fetched::Body { bytes, etag: None, max_age: None }) })
    }
}

struct At(u64);

impl Clock for At {
    fn unix_s(&self) -> u64 {
        self.0
    }

    fn uptime(&self) -> Duration {
        Duration::from_secs(1)
    }
}

fn access_token(c: &mut Criterion) {
    let key = SigningKey::from_seed(&[7; 32]);
    let public = key.verifying_key();
    let what = claims(NOW);
    let token = key.sign(&what);
    c.bench_function("access token/sign", |b| b.iter(|| key.sign(black_box(&what))));
    let aud = [ISSUER.to_owned()];
    let expected = Expected { iss: ISSUER, aud: &aud, now: NOW, leeway_s: 30 };
    c.bench_function("access token/verify", |b| {
        b.iter(|| verify(black_box(&token), |_| Some(&public), &expected).expect("a good token"));
    });
    let set = serde_json::json!({ "keys": [key.jwk()] }).to_string();
    let verifier = Verifier::builder(ISSUER, ISSUER).source(Fixed(set)).clock(At(NOW as u64));
    let verifier = verifier.build().expect("a verifier");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(verifier.verify_or_fetch(&token)).expect("a good token");
    c.bench_function("access token/verify, token-verifier", |b| {
        b.iter(|| verifier.verify(black_box(&token)).expect("a good token"));
    });
}

fn refresh_token(c: &mut Criterion) {
    let codec = RefreshCodec::new(ring());
    let sid = claims(NOW).sid;
    let token = RefreshToken { kid: 1, sid, generation: 41, seed: [3; 16] };
    let text = codec.encode(&token).expect("the ring has the key");
    c.bench_function("refresh token/encode", |b| b.iter(|| codec.encode(black_box(&token))));
    c.bench_function("refresh token/decode", |b| b.iter(|| codec.decode(black_box(&text))));
}

/// Ours is to reach 95 % of the bare loop.
fn password(c: &mut Criterion) {
    let mut group = c.benchmark_group("password");
    group.sample_size(40);
    let params = Params::new(MEMORY_KIB, PASSES, 1, Some(32)).expect("good parameters");
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    let mut memory = vec![Block::default(); params.block_count()];
    let mut output = [0; 32];
    group.bench_function("argon2 with memory of its own", |b| {
        b.iter(|| {
            argon2
                .hash_password_into_with_memory(PASSWORD, &[9; 16], &mut output, &mut memory)
                .expect("good parameters");
        });
    });
    let config = HashConfig {
        memory_kib: MEMORY_KIB,
        passes: PASSES,
        lanes: 1,
        permits: 1,
        wait_ms: 250,
        peppers: ring(),
    };
    let hasher = PasswordHasher::new(config).expect("good parameters");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    group.bench_function("ours", |b| {
        b.iter(|| runtime.block_on(hasher.hash(PASSWORD, [9; 16], HashClass::Login)).expect("a free permit"));
    });
    group.finish();
}

criterion_group!(hot, place, ids, access_token, refresh_token, password);
criterion_main!(hot);
