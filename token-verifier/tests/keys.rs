//! How keys are fetched, shared, kept and given up, against a real HTTP server on a free port. No test proves
//! anything by sleeping: time is a parameter, and where something must happen by itself a condition is awaited.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::future::{Future as _, poll_fn};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use axum::http::StatusCode;
use common::*;
use token_verifier::{CannotDecide::*, FetchFuture, Fetched, InvalidToken, JwksSource, Verifier};

const COOL_DOWN: Duration = Duration::from_secs(30);

#[tokio::test]
async fn waiters_share_one_fetch() {
    let clock = TestClock::new();
    let server = KeyServer::start(jwks(&[(KID, &key(1))])).await;
    // Without a cool-down nothing but the single flight keeps fetches together.
    let verifier = server.builder(&clock).cool_down(Duration::ZERO).build().unwrap();
    let permits = server.shared.gate.acquire_many(1000).await.unwrap();
    let token = token(KID, &key(1));
    let mut waiting: Vec<_> = (0..50).map(|_| Box::pin(verifier.verify_or_fetch(&token))).collect();
    for waiter in &mut waiting {
        poll_fn(|context| {
            assert!(waiter.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
    }
    until("the fetch arrives", || server.hits() == 1).await;
    drop(permits);
    for waiter in waiting {
        waiter.await.unwrap();
    }
    assert_eq!((server.hits(), verifier.status().fetches), (1, 1));
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_nobody_with_it() {
    let clock = TestClock::new();
    let server = KeyServer::start(jwks(&[(KID, &key(1))])).await;
    let verifier = server.builder(&clock).build().unwrap();
    let permits = server.shared.gate.acquire_many(1000).await.unwrap();
    let good = token(KID, &key(1));
    {
        let mut gone = Box::pin(verifier.verify_or_fetch(&good));
        poll_fn(|context| {
            assert!(gone.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        until("the fetch arrives", || server.hits() == 1).await;
    }
    drop(permits);
    until("the fetch ends", || verifier.status().keys == 1).await;
    assert!(verifier.verify(&good).is_ok());
    assert_eq!(server.hits(), 1);
}

#[tokio::test]
async fn invented_key_ids_cannot_hammer_the_issuer() {
    let clock = TestClock::new();
    let server = KeyServer::start(jwks(&[(KID, &key(1))])).await;
    let verifier = server.builder(&clock).build().unwrap();
    for n in 0..200 {
        let error = verifier.verify_or_fetch(&token(&format!("invented-{n}"), &key(9))).await.unwrap_err();
        assert_eq!(error, InvalidToken::UnknownKey.into());
    }
    assert_eq!(server.hits(), 1);
    clock.age(COOL_DOWN - Duration::from_millis(1));
    verifier.verify_or_fetch(&token("invented", &key(9))).await.unwrap_err();
    assert_eq!(server.hits(), 1);
    clock.age(Duration::from_millis(1));
    for n in 0..200 {
        verifier.verify_or_fetch(&token(&format!("invented-{n}"), &key(9))).await.unwrap_err();
    }
    assert_eq!(server.hits(), 2);
    // What is broken before its key matters causes no fetch at all.
    clock.age(COOL_DOWN);
    verifier.verify_or_fetch("a.b.c").await.unwrap_err();
    assert_eq!(server.hits(), 2);
}

#[tokio::test]
async fn rotation() {
    let clock = TestClock::new();
    let server = KeyServer::start(jwks(&[(KID, &key(1))])).await;
    let verifier = server.builder(&clock).build().unwrap();
    let (old, new) = (token(KID, &key(1)), token("key-2", &key(2)));
    verifier.verify_or_fetch(&old).await.unwrap();

    server.reply(StatusCode::OK, jwks(&[(KID, &key(1)), ("key-2", &key(2))]));
    clock.age(COOL_DOWN);
    verifier.verify_or_fetch(&new).await.unwrap();
    verifier.verify_or_fetch(&old).await.unwrap();
    assert_eq!(server.hits(), 2);

    server.reply(StatusCode::OK, jwks(&[("key-2", &key(2))]));
    clock.age(COOL_DOWN);
    verifier.verify_or_fetch(&token("key-3", &key(3))).await.unwrap_err();
    assert_eq!(verifier.verify_or_fetch(&old).await.unwrap_err(), InvalidToken::UnknownKey.into());
    verifier.verify_or_fetch(&new).await.unwrap();
    // The same kid with another key: the new one counts.
    server.reply(StatusCode::OK, jwks(&[("key-2", &key(4))]));
    clock.age(COOL_DOWN);
    verifier.verify_or_fetch(&token("key-3", &key(3))).await.unwrap_err();
    assert_eq!(verifier.verify(&new).unwrap_err(), InvalidToken::Signature.into());
}

#[tokio::test]
async fn last_good_keys_serve_on_within_bounds() {
    let clock = TestClock::new();
    let good_set = jwks(&[(KID, &key(1))]);
    let server = KeyServer::start(good_set.clone()).await;
    let verifier = server.builder(&clock).build().unwrap();
    let (known, unknown) = (token(KID, &key(1)), token("key-2", &key(2)));
    verifier.verify_or_fetch(&known).await.unwrap();

    let huge = format!(r#"{{"pad":"{}","keys":[]}}"#, "x".repeat(70_000));
    for (status, body) in [
        (StatusCode::INTERNAL_SERVER_ERROR, good_set.clone()),
        (StatusCode::NOT_FOUND, good_set.clone()),
        (StatusCode::FOUND, good_set.clone()),
        (StatusCode::NOT_MODIFIED, String::new()),
        (StatusCode::OK, String::new()),
        (StatusCode::OK, r#"{"keys":[]}"#.to_owned()),
        (StatusCode::OK, huge),
    ] {
        let hits = server.hits();
        server.reply(status, body);
        clock.age(COOL_DOWN);
        if status == StatusCode::NOT_MODIFIED {
            continue; // our server sends it with an ETag only; see `etags`
        }
        // Unknown key, issuer not answering: we cannot tell, so it is not the caller's fault.
        assert_eq!(verifier.verify_or_fetch(&unknown).await.unwrap_err(), UnconfirmedKey.into(), "{status}");
        assert_eq!(server.hits(), hits + 1, "{status}");
        assert!(verifier.status().last_error.is_some());
        verifier.verify_or_fetch(&known).await.unwrap();
    }
    clock.age(Duration::from_secs(24 * 3600));
    assert_eq!(verifier.verify(&known).unwrap_err(), KeysTooOld.into());
    assert_eq!(verifier.verify_or_fetch(&known).await.unwrap_err(), KeysTooOld.into());
    server.reply(StatusCode::OK, good_set);
    clock.age(COOL_DOWN);
    verifier.verify_or_fetch(&known).await.unwrap();
    assert_eq!(verifier.status().last_error, None);
    assert_eq!(verifier.verify_or_fetch(&unknown).await.unwrap_err(), InvalidToken::UnknownKey.into());
}

#[tokio::test]
async fn without_keys_nothing_is_decided() {
    let clock = TestClock::new();
    let server = KeyServer::start(jwks(&[(KID, &key(1))])).await;
    server.reply(StatusCode::SERVICE_UNAVAILABLE, "");
    let verifier = server.builder(&clock).start().await.unwrap();
    let good = token(KID, &key(1));
    assert_eq!(verifier.verify(&good).unwrap_err(), NoKeys.into());
    assert_eq!(verifier.verify_or_fetch(&good).await.unwrap_err(), NoKeys.into());
    // What is bad under every key is the caller's fault even now.
    assert_eq!(verifier.verify_or_fetch("a.b").await.unwrap_err(), InvalidToken::Malformed.into());
    server.reply(StatusCode::OK, jwks(&[(KID, &key(1))]));
    clock.age(Duration::from_secs(1)); // the first wait after a failure, not the whole cool-down
    verifier.verify_or_fetch(&good).await.unwrap();
}

#[tokio::test]
async fn etags() {
    let clock = TestClock::new();
    let server = KeyServer::start(jwks(&[(KID, &key(1))])).await;
    *server.shared.etag.lock().unwrap() = Some("\"one\"");
    let verifier = server.builder(&clock).build().unwrap();
    verifier.verify_or_fetch(&token(KID, &key(1))).await.unwrap();
    clock.age(COOL_DOWN);
    verifier.verify_or_fetch(&token("key-2", &key(2))).await.unwrap_err();
    assert_eq!(server.shared.not_modified.load(Ordering::SeqCst), 1);
    let status = verifier.status();
    assert_eq!((status.keys, status.age, status.last_error), (1, Some(Duration::ZERO), None));
    // A new body with a new ETag replaces the keys.
    *server.shared.etag.lock().unwrap() = Some("\"two\"");
    server.reply(StatusCode::OK, jwks(&[("key-2", &key(2))]));
    clock.age(COOL_DOWN);
    verifier.verify_or_fetch(&token("key-2", &key(2))).await.unwrap();
    assert_eq!(verifier.verify(&token(KID, &key(1))).unwrap_err(), InvalidToken::UnknownKey.into());
}

#[tokio::test]
async fn the_background_follows_max_age() {
    let clock = TestClock::new();
    let server = KeyServer::start(jwks(&[(KID, &key(1))])).await;
    *server.shared.cache_control.lock().unwrap() = "max-age=0";
    let fast = Duration::from_millis(20);
    let verifier = server.builder(&clock).refresh_between(fast, fast).start().await.unwrap();
    server.reply(StatusCode::OK, jwks(&[("key-2", &key(2))]));
    let new = token("key-2", &key(2));
    until("the new key is there without anybody asking", || verifier.verify(&new).is_ok()).await;
    // And it survives an outage of the issuer.
    server.reply(StatusCode::BAD_GATEWAY, "");
    until("a refresh fails", || verifier.status().last_error.is_some()).await;
    assert!(verifier.verify(&new).is_ok());
    server.reply(StatusCode::OK, jwks(&[("key-2", &key(2)), ("key-3", &key(3))]));
    until("it recovers", || verifier.status().last_error.is_none()).await;
    assert!(verifier.verify(&token("key-3", &key(3))).is_ok());
}

#[tokio::test]
async fn the_background_ends_with_the_verifier() {
    struct Shared(Arc<String>);
    impl JwksSource for Shared {
        fn fetch<'a>(&'a self, _: Option<&'a str>) -> FetchFuture<'a> {
            Box::pin(async {
                Ok(Fetched::Body { bytes: self.0.clone().as_bytes().to_vec(), etag: None, max_age: None })
            })
        }
    }
    let body = Arc::new(jwks(&[(KID, &key(1))]));
    let seen: Weak<String> = Arc::downgrade(&body);
    let verifier = Verifier::builder(ISSUER, AUDIENCE).source(Shared(body)).start().await.unwrap();
    assert_eq!(verifier.status().keys, 1);
    drop(verifier.clone());
    assert!(seen.upgrade().is_some());
    drop(verifier);
    until("the source is dropped", || seen.upgrade().is_none()).await;
}

#[tokio::test]
async fn a_source_that_panics_is_a_failed_fetch() {
    struct Broken;
    impl JwksSource for Broken {
        fn fetch<'a>(&'a self, _: Option<&'a str>) -> FetchFuture<'a> {
            Box::pin(async { panic!("on purpose") })
        }
    }
    let clock = TestClock::new();
    let verifier = Verifier::builder(ISSUER, AUDIENCE).clock(clock.clone()).source(Broken).build().unwrap();
    for _ in 0..3 {
        assert_eq!(verifier.verify_or_fetch(&token(KID, &key(1))).await.unwrap_err(), NoKeys.into());
    }
    assert_eq!(verifier.status().fetches, 1);
    clock.age(Duration::from_secs(1));
    assert_eq!(verifier.verify_or_fetch(&token(KID, &key(1))).await.unwrap_err(), NoKeys.into());
    assert_eq!(verifier.status().fetches, 2);
}
