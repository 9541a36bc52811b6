//! Envoy verifies by itself, with the JWKS that it fetched.
use std::sync::Arc;

use reqwest::Method;

use super::gateway::{Gateway, Kind, Neighbours};
use super::servers::{Line, Service};
use super::{caller, order, port, refuses_strangers, signed_in};
use crate::Suite;
use crate::world::{World, eventually};

pub fn add(suite: &mut Suite) {
    let missing = || Kind::EnvoyJwt.missing();
    suite.add_unless("gateway: envoy verifies by itself, also when no node answers", missing(), offline);
    suite.add_unless("gateway: envoy refuses tokens for somebody else", missing(), audience);
    suite.add_unless("gateway: envoy without keys takes that for no verdict", missing(), no_keys);
}

/// Envoy beside this service, with changes to its file; its keys come over this port if one is named.
fn envoy(world: &World, service: &Service, keys_over: Option<u16>, changes: &[(&str, String)]) -> Gateway {
    let near = Neighbours { service: service.port, nodes: [port(world, 1), port(world, 2)] };
    let redirected = keys_over.into_iter().flat_map(|keys| {
        ["port_value: 3002", "port_value: 3012"].map(|node| (node, format!("port_value: {keys}")))
    });
    let changes: Vec<_> = redirected.chain(changes.iter().cloned()).collect();
    Gateway::start(world, Kind::EnvoyJwt, near, &changes)
}

/// The keys are fetched each second, over a line that is cut.
async fn offline(world: Arc<World>) {
    let (service, session) = (Service::start().await, world.new_session().await);
    let keys = world.cluster.spare_port().expect("a spare port");
    let line = Line::open(keys, port(&world, 1)).await;
    let often = ("cache_duration: 300s", "cache_duration: 1s".to_owned());
    let gateway = envoy(&world, &service, Some(keys), &[often]);
    gateway.until(&world, None, 401).await;
    refuses_strangers(&world, &gateway, &session.access).await;
    assert_eq!(service.asked(), 0, "the service saw a request that was refused");
    let heard = order(&world, &gateway, &session.access).await.expect(200).body;
    assert_eq!(caller(&heard), signed_in(&session));

    line.cut();
    eventually("keys were asked for in vain", || async { line.asked_for_keys() > 1 }).await;
    order(&world, &gateway, &session.access).await.expect(200);
    line.close().await;
    refuses_strangers(&world, &gateway, &session.access).await;
    order(&world, &gateway, &session.access).await.expect(200);
    // What the page says, too: the token of a session that is over is good until it ends.
    world.call(Method::POST, "/auth/v1/logout", Some(&session.access), None).await.expect(204);
    order(&world, &gateway, &session.access).await.expect(200);
}

async fn audience(world: Arc<World>) {
    let (service, session) = (Service::start().await, world.new_session().await);
    let other = ("audiences: [http://127.0.0.1:3002]", "audiences: [http://other.example]".to_owned());
    let gateway = envoy(&world, &service, None, &[other]);
    gateway.until(&world, None, 401).await;
    let answer = order(&world, &gateway, &session.access).await.expect(401);
    assert!(answer.header("www-authenticate").contains("invalid_token"), "{:?}", answer.headers);
    assert_eq!(service.asked(), 0);
}

/// Envoy comes up before any node does.
async fn no_keys(world: Arc<World>) {
    let (service, session) = (Service::start().await, world.new_session().await);
    let keys = world.cluster.spare_port().expect("a spare port");
    let gateway = envoy(&world, &service, Some(keys), &[]);
    gateway.until(&world, None, 401).await;
    let answer = order(&world, &gateway, &session.access).await.expect(503);
    assert_eq!(answer.header("retry-after"), "5");
    assert_eq!(service.asked(), 0);
    let line = Line::open(keys, port(&world, 1)).await;
    gateway.until(&world, Some(&session.access), 200).await;
    line.close().await;
}
