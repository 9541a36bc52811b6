//! Access tokens and the JWKS as services meet them.
use std::sync::Arc;

use reqwest::Method;
use token_verifier::Verifier;

use crate::Suite;
use crate::world::{World, claims};

pub fn add(suite: &mut Suite) {
    suite.add("the_jwks_is_cacheable_and_the_same_on_both_nodes", jwks);
    suite.add("claims_are_those_of_rfc_9068", shape);
    suite.add("token_verifier_accepts_ours_and_refuses_the_rest", verifier);
    suite.add("tampered_tokens_are_refused_by_the_nodes", tampered);
}

async fn jwks(world: Arc<World>) {
    let path = "/.well-known/jwks.json";
    let one = world.call_at(&world.node(1), Method::GET, path, None, None).await.expect(200);
    let two = world.call_at(&world.node(2), Method::GET, path, None, None).await.expect(200);
    assert_eq!(one.body, two.body);
    assert_eq!(one.header("cache-control"), "public, max-age=10, stale-if-error=86400");
    let keys = one.body["keys"].as_array().cloned().unwrap_or_default();
    assert!(!keys.is_empty());
    for key in &keys {
        assert_eq!(
            (&key["kty"], &key["crv"], &key["alg"]),
            (&"OKP".into(), &"Ed25519".into(), &"EdDSA".into())
        );
        assert!(key.get("d").is_none());
    }
    let again =
        world.http.get(format!("{}{path}", world.node(2))).header("if-none-match", one.header("etag"));
    assert_eq!(again.send().await.expect("an answer").status(), 304);
}

async fn shape(world: Arc<World>) {
    let session = world.new_session().await;
    let claims = claims(&session.access);
    let issuer = world.node(1);
    assert_eq!(claims["iss"], issuer.as_str());
    assert_eq!(claims["aud"], issuer.as_str());
    assert_eq!(claims["client_id"], "first-party");
    assert_eq!(claims["sid"], session.id.as_str());
    assert_eq!(claims["tenant"], "default");
    assert_eq!(claims["amr"], serde_json::json!(["pwd"]));
    let number = |name: &str| claims[name].as_i64().unwrap_or_default();
    assert_eq!(number("exp") - number("iat"), 300);
    assert!(number("auth_time") <= number("iat") + 1);
    assert!(claims.get("roles").is_none() && claims.get("scope").is_none());
    let header = jsonwebtoken::decode_header(&session.access).expect("a header that another library reads");
    assert_eq!((header.alg, header.typ.as_deref()), (jsonwebtoken::Algorithm::EdDSA, Some("at+jwt")));
}

async fn verifier(world: Arc<World>) {
    let session = world.new_session().await;
    let issuer = world.node(1);
    let build =
        async |audience: &str| Verifier::builder(&issuer, audience).start().await.expect("a verifier");
    let ours = build(&issuer).await;
    let verified = ours.verify_or_fetch(&session.access).await.expect("a valid token");
    assert_eq!(verified.sid.to_string(), session.id);
    let (head, signature) = session.access.rsplit_once('.').expect("three parts");
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    assert!(ours.verify(&format!("{head}.{flipped}{}", &signature[1..])).is_err());
    assert!(build("https://other.example").await.verify(&session.access).is_err());
}

async fn tampered(world: Arc<World>) {
    let session = world.new_session().await;
    let parts: Vec<_> = session.access.split('.').collect();
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0";
    let other = world.new_session().await;
    let foreign: Vec<_> = other.access.split('.').collect();
    for bad in [
        format!("{none}.{}.", parts[1]),
        format!("{}.{}.{}", parts[0], foreign[1], parts[2]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{}.{}.", parts[0], parts[1], parts[2]),
        format!("{}.{}.{}=", parts[0], parts[1], parts[2]),
        "x".repeat(7000),
    ] {
        world.get("/auth/verify", &bad).await.expect_problem(401, "invalid-token");
    }
    world.get("/auth/verify", &session.access).await.expect(200);
}
