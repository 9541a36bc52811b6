//! Behind gateways as strangers run them: nginx, Traefik, Caddy and Envoy, with the files that `docs/gateways` shows.
mod gateway;
mod jwt;
mod servers;

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use crate::Suite;
use crate::world::{Answer, PASSWORD, Session, World, claims, session};
use gateway::{Gateway, Kind, Neighbours};
use servers::{Line, Service, StandIn, values};

/// What a client may try to pass itself off with. A service that reads headers as CGI does takes `_` for `-`.
const SPOOFED: [&str; 6] =
    ["X-Auth-Subject", "x-auth-session", "X-Auth-Roles", "X_Auth_Subject", "X-Auth_Session", "X_Auth-Roles"];

pub fn add(suite: &mut Suite) {
    for kind in [Kind::Nginx, Kind::Traefik, Kind::Caddy, Kind::EnvoyExtAuthz] {
        let name = |says: &str| format!("gateway: {} {says}", kind.name());
        let says = name("lets in who is signed in, under their own name, until they log out");
        suite.add_unless(&says, kind.missing(), move |world| forward_auth(world, kind));
        let says = name("takes no outage for a verdict");
        suite.add_unless(&says, kind.missing(), move |world| no_verdict(world, kind));
    }
    jwt::add(suite);
}

/// The port of a node of the cluster.
fn port(world: &World, node: u16) -> u16 {
    world.cluster.port(&format!("node-{node}")).expect("a node")
}

/// Who calls, as the service would read it, in order.
fn caller(heard: &Value) -> Vec<(String, String)> {
    let headers = heard["headers"].as_array().expect("headers").iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pairs = headers.map(|pair| (text(&pair[0]).to_lowercase().replace('_', "-"), text(&pair[1])));
    let mut caller: Vec<_> = pairs.filter(|(name, _)| name.starts_with("x-auth-")).collect();
    caller.sort();
    caller
}

fn signed_in(session: &Session) -> Vec<(String, String)> {
    let subject = claims(&session.access)["sub"].as_str().expect("a subject").to_owned();
    vec![("x-auth-session".into(), session.id.clone()), ("x-auth-subject".into(), subject)]
}

/// The token with one bit of its signature changed; and one that nobody signed.
fn forgeries(token: &str) -> [String; 3] {
    let (head, signature) = token.rsplit_once('.').expect("three parts");
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let payload = head.split('.').nth(1).expect("a payload");
    let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0"; // {"alg":"none","typ":"at+jwt"}
    [
        format!("{head}.{flipped}{}", &signature[1..]),
        format!("{unsigned}.{payload}."),
        "no.token.of-ours".into(),
    ]
}

/// A call with everything that a client might put on it: a body, a query, somebody else's name.
async fn order(world: &World, gateway: &Gateway, token: &str) -> Answer {
    let mut request = world.http.post(format!("{}/orders?of=today", gateway.url)).bearer_auth(token);
    request = request.header("cookie", "of=the-service");
    for name in SPOOFED {
        request = request.header(name, "mallory");
    }
    // Headers that are named here are for the next hop only: the name must not get lost with them.
    request = request.header("connection", "x-auth-subject, X-Auth-Session").body("two of them");
    Answer::read(request.send().await.expect("an answer")).await
}

async fn refuses_strangers(world: &World, gateway: &Gateway, token: &str) {
    let stranger = world.http.get(&gateway.url).header("x-auth-subject", "mallory").send().await;
    let answer = Answer::read(stranger.expect("an answer")).await.expect(401);
    assert!(answer.header("www-authenticate").starts_with("Bearer"), "{:?}", answer.headers);
    for forged in forgeries(token) {
        order(world, gateway, &forged).await.expect(401);
    }
}

/// The session of a user who logs in through the gateway.
async fn log_in(world: &World, gateway: &Gateway) -> Session {
    let email = world.register().await;
    let request = world.http.post(format!("{}/auth/v1/login", gateway.url));
    let request = request.json(&json!({"email": email, "password": PASSWORD}));
    session(&email, &Answer::read(request.send().await.expect("an answer")).await.expect(200))
}

async fn forward_auth(world: Arc<World>, kind: Kind) {
    let service = Service::start().await;
    let near = Neighbours { service: service.port, nodes: [port(&world, 1), port(&world, 2)] };
    let gateway = Gateway::start(&world, kind, near, &[]);
    gateway.until(&world, None, 401).await;
    let session = log_in(&world, &gateway).await;
    refuses_strangers(&world, &gateway, &session.access).await;
    assert_eq!(service.asked(), 0, "the service saw a request that was refused");

    let heard = order(&world, &gateway, &session.access).await.expect(200).body;
    assert_eq!(caller(&heard), signed_in(&session));
    assert_eq!((&heard["method"], &heard["target"]), (&json!("POST"), &json!("/orders?of=today")));
    assert_eq!((&heard["body"], values(&heard, "cookie")), (&json!("two of them"), vec!["of=the-service"]));
    for method in [Method::HEAD, Method::OPTIONS, Method::PUT, Method::PATCH, Method::DELETE] {
        let request = world.http.request(method.clone(), &gateway.url).bearer_auth(&session.access);
        assert_eq!(request.send().await.expect("an answer").status(), 200, "{method}");
    }

    let so_far = service.asked();
    let out = world.http.post(format!("{}/auth/v1/logout", gateway.url)).bearer_auth(&session.access);
    Answer::read(out.send().await.expect("an answer")).await.expect(204);
    for _ in 0..4 {
        gateway.get(&world, &session.access).await.expect(401);
    }
    assert_eq!(service.asked(), so_far, "the service saw a request of a session that is over");
}

/// What the client is told when the node says 503, 429 and 500: status and `Retry-After`.
fn trouble(kind: Kind) -> [(u16, &'static str); 3] {
    match kind {
        Kind::Nginx => [(503, "7"), (503, "9"), (503, "")],
        Kind::EnvoyExtAuthz | Kind::EnvoyJwt => [(503, "5"), (429, "9"), (503, "5")],
        Kind::Traefik | Kind::Caddy => [(503, "7"), (429, "9"), (500, "")],
    }
}

/// One node of two is gone all the time, a stand-in speaks for the other.
async fn no_verdict(world: Arc<World>, kind: Kind) {
    let (service, node) = (Service::start().await, StandIn::start().await);
    let [gone, living] = [(); 2].map(|()| world.cluster.spare_port().expect("a spare port"));
    let line = Line::open(living, node.port).await;
    node.say(200, &[("x-auth-subject", "ada"), ("x-auth-roles", "admin,ops")]);
    let near = Neighbours { service: service.port, nodes: [gone, living] };
    let gateway = Gateway::start(&world, kind, near, &[]);
    gateway.until(&world, Some("a-token"), 200).await;
    for _ in 0..10 {
        let heard = order(&world, &gateway, "a-token").await.expect(200).body;
        let expected = [("x-auth-roles", "admin,ops"), ("x-auth-subject", "ada")];
        assert_eq!(caller(&heard), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    asked_well(&node.asked(), near.nodes);
    passes_the_api(&world, &gateway, &node, near.nodes).await;

    let so_far = service.asked();
    let says: [(u16, &[_]); 3] = [(503, &[("retry-after", "7")]), (429, &[("retry-after", "9")]), (500, &[])];
    for ((status, headers), expected) in says.into_iter().zip(trouble(kind)) {
        node.say(status, headers);
        let answer = order(&world, &gateway, "a-token").await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after").as_str()), expected, "for {status}");
    }
    line.close().await;
    for _ in 0..4 {
        let status = order(&world, &gateway, "a-token").await.status;
        assert!(status.is_server_error(), "{status} while nobody could be asked");
    }
    assert_eq!(service.asked(), so_far, "the service saw a request that nobody vouched for");
}

/// A `GET` without a body, under a name of ours, and not a word of what the client says about itself.
fn asked_well(asked: &Value, nodes: [u16; 2]) {
    assert_eq!((&asked["method"], &asked["target"]), (&json!("GET"), &json!("/auth/verify")));
    assert_eq!((values(asked, "authorization"), &asked["body"]), (vec!["Bearer a-token"], &json!("")));
    assert!(is_ours(asked, nodes), "{asked}");
    assert_eq!((caller(asked), values(asked, "cookie")), (vec![], vec![]));
}

fn is_ours(asked: &Value, nodes: [u16; 2]) -> bool {
    let names = nodes.map(|port| format!("127.0.0.1:{port}"));
    matches!(values(asked, "host")[..], [host] if names.iter().any(|name| name == host))
}

/// Logging in goes past the check; the last hop of `X-Forwarded-For` is what the gateway saw, not what the client says.
async fn passes_the_api(world: &World, gateway: &Gateway, node: &StandIn, nodes: [u16; 2]) {
    let login =
        world.http.post(format!("{}/auth/v1/login", gateway.url)).header("x-forwarded-for", "203.0.113.7");
    let answer = login.body("{}").send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let asked = node.asked();
    assert_eq!((&asked["method"], &asked["target"]), (&json!("POST"), &json!("/auth/v1/login")));
    assert!(asked["body"] == "{}" && is_ours(&asked, nodes), "{asked}");
    let hops = values(&asked, "x-forwarded-for").join(",");
    let last = hops.rsplit(',').next().unwrap_or_default().trim();
    assert!(!last.is_empty() && last != "203.0.113.7", "{asked}");
}
