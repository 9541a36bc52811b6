//! What the benches and the floors share.
pub mod stats;

use auth_core::crypto::access_token::AccessClaims;
use shard_key::{Bucket, SessionId, UserId};

/// Who issues the tokens, and whom they are for.
pub const ISSUER: &str = "http://127.0.0.1:3002";

/// What the access token of a login at `iat` says.
pub fn claims(iat: i64) -> AccessClaims {
    let bucket = Bucket::all().next().expect("there are buckets");
    AccessClaims {
        iss: ISSUER.to_owned(),
        sub: UserId::generate(bucket, 1_700_000_000_000, [1; 8]),
        aud: vec![ISSUER.to_owned()],
        client_id: "first-party".to_owned(),
        sid: SessionId::generate(bucket, 1_700_000_000_000, [2; 8]),
        jti: "AAAAAAAAAAAAAAAAAAAAAA".to_owned(),
        iat,
        exp: iat + 300,
        auth_time: iat,
        amr: vec!["pwd".to_owned()],
        tenant: "default".to_owned(),
        roles: Vec::new(),
        scope: None,
    }
}
